package detector

import (
	"cmp"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Two processes with one id are found by a roll call that both answer
// (liveness.Lineage.Beside), and reported with the places where they run.

const (
	// twinGap is the least time between two such calls. A worker answers once a second.
	twinGap = 2 * time.Second
	// twinWithin is how long an answer may take, including the spread.
	twinWithin = 3 * time.Second
)

// message returns what a lineage needs to know about a beat of inc that is heard at
// now.
func message(now time.Time, inc uint64, v *wire.Volatile) liveness.Message {
	sent := cmp.Or(int64(v.Boot), v.Sent) // preferably the boot clock, which cannot be set
	return liveness.Message{Inc: inc, Seq: v.Seq, Sent: sent, Heard: now}
}

// twin checks whether another incarnation lives beside the believed one of w. outcome
// is that of a message of inc.
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

// AskTwins reports whether the caller must call the workers' roll now, as two processes
// may have one id.
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

// TwinsAt returns when AskTwins next has something to do, and false if it has nothing.
func (r *Registry) TwinsAt() (time.Time, bool) { return r.twinsAt, len(r.twins) > 0 }

// beside says where two processes of one id run: the place of the refused one, from its
// own beats, and the address of the believed one's connection.
type beside struct {
	hivebeat.Place
	conn, addr string
}

// hearBeside records where the sender of v runs, whose incarnation is not the one that
// w is known by.
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

// locate asks for the addresses of both connections.
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

// TakeSeek returns the connections whose addresses are wanted, since the last call.
// Pass the answers to Located.
func (r *Registry) TakeSeek() []string {
	list := r.seek
	r.seek = nil
	return list
}

// Located records the address from which a connection was made, and reports whether
// that changes a record.
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
