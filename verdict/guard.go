package verdict

import "slices"

// Outcome classifies a message for its receiver.
type Outcome uint8

// The outcomes of Guard.Hear.
const (
	First     Outcome = iota + 1 // no incarnation was known: accepted as it is
	Next                         // the known incarnation advanced
	Restarted                    // a higher incarnation took over
	TakenOver                    // a lower one that was never seen took over from one that is not alive: a clock was set back
	Same                         // the last seq again: another page, if messages have pages, otherwise stale
	Stale                        // refused: seq not above the last one, a superseded incarnation, or after its goodbye
	Older                        // refused: a lower incarnation, while the known one is alive
)

// Accepted reports whether the message counts: First, Next, Restarted or TakenOver. A
// message that is not accepted must change nothing.
func (o Outcome) Accepted() bool { return o >= First && o <= TakenOver }

// Begins reports whether the message is the first one of its incarnation here.
func (o Outcome) Begins() bool { return o.Accepted() && o != Next }

// String returns the outcome in words, such as "taken over".
func (o Outcome) String() string {
	names := [...]string{"none", "first", "next", "restarted", "taken over", "same", "stale", "older"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

const (
	remembered = 8 // superseded incarnations kept
	rivals     = 4 // lower incarnations kept that were refused
)

// Guard decides which incarnation of one sender is the valid one, and which of its
// messages are accepted. Neither a replay nor a delayed message brings back a process
// that ended:
//
//   - a higher incarnation supersedes the valid one at once;
//   - a lower one that was never seen takes over only if the valid one is not alive;
//   - a superseded one does not come back, as far as Guard remembers: the last eight;
//   - within an incarnation, only a higher seq is accepted.
//
// The zero Guard knows no incarnation. A Guard is not safe for concurrent use. Hear
// allocates only when an incarnation is superseded or refused for the first time.
type Guard struct {
	inc, seq uint64
	others   []other // superseded ones, oldest first, and rivals
	ended    bool    // the valid one said goodbye
}

// other is an incarnation that is not the valid one.
type other struct {
	inc, seq   uint64
	superseded bool
}

// Inc returns the valid incarnation, and 0 if none was heard yet.
func (g *Guard) Inc() uint64 { return g.inc }

// Seq returns the highest seq heard of the valid incarnation.
func (g *Guard) Seq() uint64 { return g.seq }

// Ended reports whether the valid incarnation said goodbye.
func (g *Guard) Ended() bool { return g.ended }

// End makes the goodbye of the valid incarnation final: none of its later messages is
// accepted.
func (g *Guard) End() { g.ended = true }

// Other returns the record of a known incarnation other than the valid one: the highest
// seq heard from it, and whether it was superseded. ok is false if Guard does not
// remember it.
func (g *Guard) Other(inc uint64) (seq uint64, superseded, ok bool) {
	if i := g.find(inc); i >= 0 {
		return g.others[i].seq, g.others[i].superseded, true
	}
	return 0, false, false
}

// Hear judges a message with a valid (inc, seq), both above 0. alive says whether the
// valid incarnation is alive now, by the receiver's verdict: neither late, lost nor
// left.
func (g *Guard) Hear(inc, seq uint64, alive bool) Outcome {
	if inc == g.inc && g.inc != 0 {
		return g.same(seq)
	}
	if g.inc == 0 {
		g.Take(inc, seq)
		return First
	}
	at := g.find(inc)
	switch {
	case at >= 0 && g.others[at].superseded:
		return g.refuse(at, seq, Stale)
	case inc > g.inc:
		g.Take(inc, seq)
		return Restarted
	case !alive:
		if at >= 0 && seq <= g.others[at].seq {
			return Stale // a replay does not bring back an incarnation that was refused before
		}
		g.Take(inc, seq)
		return TakenOver
	case at >= 0:
		return g.refuse(at, seq, Older)
	}
	g.remember(other{inc: inc, seq: seq})
	return Older
}

// Take makes inc the valid incarnation and seq its last one, even if Guard would refuse
// it. Use it for state that is restored after a restart, or for the decision of another
// receiver, which may have heard more. Take forgets a goodbye of inc.
func (g *Guard) Take(inc, seq uint64) {
	if was := g.inc; was != inc && was != 0 {
		g.others = slices.DeleteFunc(g.others, func(o other) bool { return o.inc == inc })
		g.remember(other{inc: was, seq: g.seq, superseded: true})
	}
	g.inc, g.seq, g.ended = inc, seq, false
}

// same judges a message of the valid incarnation.
func (g *Guard) same(seq uint64) Outcome {
	switch {
	case seq == g.seq:
		return Same
	case seq < g.seq, g.ended:
		return Stale
	}
	g.seq = seq
	return Next
}

// refuse records how far a refused incarnation has come.
func (g *Guard) refuse(at int, seq uint64, o Outcome) Outcome {
	g.others[at].seq = max(g.others[at].seq, seq)
	return o
}

func (g *Guard) find(inc uint64) int {
	return slices.IndexFunc(g.others, func(o other) bool { return o.inc == inc })
}

// remember adds o, and forgets the oldest one of its kind if there are too many.
func (g *Guard) remember(o other) {
	keep, oldest := rivals, -1
	if o.superseded {
		keep = remembered
	}
	for i := len(g.others) - 1; i >= 0; i-- {
		if g.others[i].superseded == o.superseded {
			keep--
			oldest = i
		}
	}
	if keep <= 0 {
		g.others = slices.Delete(g.others, oldest, oldest+1)
	}
	g.others = append(g.others, o)
}
