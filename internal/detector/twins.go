package detector

import (
	"cmp"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Two processes with one id are found by a roll call that both answer
// (liveness.Lineage.Beside), and told with the places where they run.

const (
	// twinGap is the least time between two such calls. A worker answers once a second.
	twinGap = 2 * time.Second
	// twinWithin is how long an answer may take, the spread included.
	twinWithin = 3 * time.Second
)

// message is what a lineage has to know of a beat of inc that is heard now.
func message(now time.Time, inc uint64, v *wire.Volatile) liveness.Message {
	sent := cmp.Or(int64(v.Boot), v.Sent) // a clock that nobody sets, where there is one
	return liveness.Message{Inc: inc, Seq: v.Seq, Sent: sent, Heard: now}
}

// twin finds out whether another incarnation lives beside the one of w that is believed.
// outcome is that of a message of inc.
func (r *Registry) twin(now time.Time, w *worker, outcome liveness.Outcome, inc uint64, v *wire.Volatile) {
	other, seq := w.lineage.Beside(outcome, message(now, inc, v), w.counted())
	if other != 0 {
		r.conflict(now, w, other, seq)
	}
	if w.lineage.Asks() {
		if r.twins == nil {
			r.twins = make(map[*worker]struct{})
		}
		r.twins[w] = struct{}{}
	}
}

// AskTwins reports whether the workers' roll is to be called now, as two processes may
// have one id.
func (r *Registry) AskTwins(now time.Time) bool {
	if len(r.twins) == 0 || now.Before(r.twinsAt) {
		return false
	}
	r.twinsAt = now.Add(twinGap)
	for w := range r.twins {
		w.lineage.Asked(now, twinWithin)
		if w.lineage.Sure() {
			r.locate(w)
		}
	}
	clear(r.twins)
	return true
}

// TwinsAt returns when AskTwins has something to do.
func (r *Registry) TwinsAt() (time.Time, bool) { return r.twinsAt, len(r.twins) > 0 }

// beside is where two processes of one id run: the one that is not believed, as it says
// itself, and of the other one the address of its connection.
type beside struct {
	hivebeat.Place
	conn, addr string
}

// hearBeside notes where the sender of v runs, which is of another incarnation than w is
// known by.
func (w *worker) hearBeside(v *wire.BeatView) {
	if w.beside == nil {
		w.beside = new(beside)
	}
	v.Place().Note(&w.beside.Place, v.Inc)
}

// places returns where the two processes of a conflict run.
func (w *worker) places() (believed, refused hivebeat.Place) {
	f := &w.facts
	believed = hivebeat.Place{Inc: f.Inc, Host: f.Host, PID: f.PID, Conn: f.Conn}
	refused.Inc = w.rival.inc
	if b := w.beside; b != nil {
		if b.conn == f.Conn {
			believed.Addr = b.addr
		}
		if b.Inc == refused.Inc {
			refused = b.Place
		}
	}
	return believed, refused
}

// locate asks for the addresses of the connections of both.
func (r *Registry) locate(w *worker) {
	if b := w.beside; b != nil {
		if b.addr == "" || b.conn != w.facts.Conn {
			r.seek = append(r.seek, w.facts.Conn)
		}
		if b.Addr == "" {
			r.seek = append(r.seek, b.Conn)
		}
	}
}

// TakeSeek returns connections whose addresses are asked for, since the last call. What
// is found is for Located.
func (r *Registry) TakeSeek() []string {
	list := r.seek
	r.seek = nil
	return list
}

// Located says from which address a connection was made, and reports whether a record
// says so from now on.
func (r *Registry) Located(conn, addr string) (news bool) {
	if conn == "" {
		return false
	}
	for _, w := range r.sorted {
		b := w.beside
		if b == nil {
			continue
		}
		if w.facts.Conn == conn && (b.conn != conn || b.addr != addr) {
			b.conn, b.addr = conn, addr
			news = news || w.rival.inc != 0
		}
		if b.Conn == conn && b.Addr != addr {
			b.Addr = addr
			news = news || w.rival.inc == b.Inc
		}
	}
	return news
}
