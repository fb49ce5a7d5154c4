package fleet

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/verdict"
)

// Two hives with one id are found by a roll call: both answer it (liveness.Lineage.Beside). The conflict is
// reported with the places where they run.

const (
	// twinGap is the least time between two such calls of one hive. A hive answers once in
	// hivecore.RollGap.
	twinGap = 5 * time.Second
	// twinWithin is the time that an answer may take. The answer may be the next regular snapshot.
	twinWithin = twinGap + time.Second
	// twinPace is the time between two first calls, over all hives. If many hives restart at once, most
	// are not called: their next snapshots must do.
	twinPace = 100 * time.Millisecond
)

// besides checks a message that was heard now for a second process: two incarnations that both advance are a
// conflict. o is how the lineage classified the message; alive says whether h was up before it.
func (v *View) besides(h *Hive, s *wire.SnapshotView, o liveness.Outcome, alive bool, now time.Time) {
	if s.Inc != h.line.Inc() {
		s.Place().Note(&h.beside, s.Inc)
	}
	switch {
	case o == liveness.Conflict || o == liveness.Back:
		v.conflict(h, s.Inc, s.Seq, now)
	case !o.Accepted() && h.rival == s.Inc && s.Seq > h.rivalSeq:
		v.rivalGoesOn(h, s.Seq, now)
	}
	if !v.doubt.IsZero() {
		return
	}
	if inc, seq := h.line.Beside(o, message(s, now), alive); inc != 0 {
		v.conflict(h, inc, seq, now)
	}
	if h.line.Asks() {
		if _, known := v.twins.At(h); !known {
			at := now
			if h.line.Sure() {
				at = h.calledTwin.Add(twinGap)
			}
			v.twins.Set(h, at)
		}
	}
}

// message returns the fields of a snapshot, read now, that a lineage needs.
func message(s *wire.SnapshotView, now time.Time) liveness.Message {
	return liveness.Message{Inc: s.Inc, Seq: s.Seq, Sent: s.Sent, Heard: now}
}

// conflict reports that two incarnations of h both advance.
func (v *View) conflict(h *Hive, inc, seq uint64, now time.Time) {
	h.rival, h.rivalNoticed = inc, time.Time{}
	v.rivalGoesOn(h, seq, now)
	v.ready.Steps = append(v.ready.Steps, Step{h.id, hivebeat.KindConflict, h.live, h.live, "", h.line.Inc(), h.conflictReason()})
	v.counts.hive(h, hivebeat.KindConflict, "", evidence{})
	v.change(h)
	v.Compare(h)
	v.locate(h)
}

// rivalGoesOn records that the rival of h was heard again.
func (v *View) rivalGoesOn(h *Hive, seq uint64, now time.Time) {
	h.rivalSeq, h.rivalAt = seq, now
	v.change(h)
	if now.Sub(h.rivalNoticed) >= liveness.NoticeEvery {
		h.rivalNoticed = now
		v.ready.Notices = append(v.ready.Notices, hivebeat.Notice{ID: h.id, Inc: h.rival, Believed: h.line.Inc()})
	}
}

// callTwins calls the roll of hives whose id two processes may share.
func (v *View) callTwins(now time.Time) {
	for h := range v.twins.Due(now) {
		if !h.line.Asks() || !h.line.Sure() && now.Sub(v.twinAsked) < twinPace {
			continue
		}
		v.twinAsked, h.calledTwin = now, now
		v.ready.Calls = append(v.ready.Calls, RollCall{Hive: h.id, Spread: AskSpread})
		h.line.Asked(now, twinWithin)
		if h.line.Sure() {
			v.locate(h)
		}
	}
}

// locate requests the addresses of both connections.
func (v *View) locate(h *Hive) {
	if conn := h.head().Conn; conn != "" && h.address[0] != conn {
		v.ready.Seek = append(v.ready.Seek, conn)
	}
	if b := &h.beside; b.Conn != "" && b.Addr == "" {
		v.ready.Seek = append(v.ready.Seek, b.Conn)
	}
}

// Located records the address that a connection was made from.
func (v *View) Located(conn, addr string, now time.Time) {
	for _, h := range v.order {
		ours, its := h.head().Conn == conn, h.beside.Conn == conn
		if conn == "" || !ours && !its {
			continue
		}
		if ours {
			h.address = [2]string{conn, addr}
		}
		if its {
			h.beside.Addr = addr
		}
		v.change(h)
	}
	v.updateIndex(now)
}

// Conflicting returns the other incarnation that uses the id of h now, or 0.
func (h *Hive) Conflicting(now time.Time) uint64 {
	if h.rival == 0 || now.Sub(h.rivalAt) > verdict.LostAfter(h.every, 0) {
		return 0
	}
	return h.rival
}

// Places returns where the two processes of a conflict run.
func (h *Hive) Places() (believed, refused hivebeat.Place) {
	s := h.head()
	believed, refused = hivebeat.Place{Inc: h.line.Inc()}, hivebeat.Place{Inc: h.rival}
	if s.Inc == believed.Inc {
		believed.Host, believed.PID, believed.Conn = s.Host.Name, s.PID, s.Conn
		if h.address[0] == s.Conn {
			believed.Addr = h.address[1]
		}
	}
	if h.beside.Inc == h.rival {
		refused = h.beside
	}
	return believed, refused
}

func (h *Hive) conflictReason() string {
	believed, refused := h.Places()
	return liveness.ConflictReason("hive", h.id, believed, refused)
}

// places returns where the two processes of a worker's conflict run: a is the believed one, b the one with the
// incarnation refused.
func (h *Hive) places(r *hivebeat.Record, refused uint64) (a, b hivebeat.Place) {
	a = hivebeat.Place{Inc: r.Inc, Host: r.Host, PID: r.PID, Conn: r.Conn, Addr: r.Addr}
	if a.Host == "" {
		a.Host = h.head().Host.Name
	}
	if b.Inc = refused; r.Rival == refused {
		b = r.RivalAt
		b.Inc = refused
	}
	return a, b
}
