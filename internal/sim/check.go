package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Invariant is something that holds in every run.
type Invariant string

// The invariants.
const (
	// Nobody is given up who was heard, or could have been heard, within his
	// deadline: time in which the observer was stopped, or knew that it was cut off,
	// does not count. And nobody is given up who lives and had no trouble, on a
	// network that the contract gives its guarantee for.
	NoFalseDeath Invariant = "no false death"
	// Who died is given up by the deadline that follows from his last message, and
	// everybody who looks at him later says so.
	DeathTold Invariant = "each death is told by its bound"
	// No age is less than the time since the message in question came in.
	NoYoungAge Invariant = "no age is younger than it is"
	// An incarnation whose place was taken stays away, if it has ended.
	NoResurrection Invariant = "no old incarnation comes back"
	// When nothing has gone wrong for a while all queens say the same, and it is so.
	Convergence Invariant = "queens converge to the truth"
	// Nobody is held back for ever.
	BrakeEnds Invariant = "the brake ends"
	// No event is twice in the stream, or missing.
	EventsOnce Invariant = "events are told once"
	// Who is busy and finishes nothing is told as stalled by the limit, once, until he
	// goes on; and nobody else is.
	Stalls Invariant = "stalled is told once, and is so"
	// The simulation itself, and what only a plain bug can break.
	Sound Invariant = "nothing is plainly wrong"
)

// Violation is an invariant that does not hold.
type Violation struct {
	Invariant Invariant `json:"invariant"`
	At        Span      `json:"at"`
	Text      string    `json:"text"`
}

func (v *Violation) String() string {
	return fmt.Sprintf("%s, after %v: %s", v.Invariant, v.At.D().Round(time.Millisecond), v.Text)
}

const monitorEvery = 5 * time.Second

// monitor looks at everybody now and then.
func (w *world) monitor() {
	w.at(w.now+monitorEvery, func() {
		for _, h := range w.hives {
			w.checkDeathsTold(&h.proc, h.known)
			w.checkStalls(h)
		}
		for _, q := range w.queens {
			w.checkDeathsTold(&q.proc, q.known)
			w.checkShown(q)
			w.checkHeld(q)
			w.checkBelieved(q)
		}
		w.monitor()
	})
}

// checkDeathsTold looks for the dead whom an observer takes for living.
func (w *world) checkDeathsTold(by *proc, known sightings) {
	if by.paused() || by.cuts > 0 || by.noticed {
		return
	}
	for _, s := range known {
		l := life{s.id, s.inc}
		p := w.truth.procs[l]
		if p == nil || p.alive() || s.live == hivebeat.Lost || s.live == hivebeat.Left {
			continue
		}
		a, ok := w.truth.last[hearing{by, l}]
		if !ok {
			a = arrival{at: max(by.born, s.incAt), every: w.plan.HiveEvery.D()}
		}
		if q, ok := by.self.(*queen); ok {
			a.at = max(a.at, q.told[s.id])
		}
		limit := max(a.at, by.born) + lostAfter(a.every, a.quiet) + w.slack(by, a)
		if w.now > limit {
			w.breaks(DeathTold, "%s incarnation %d died %v ago, was heard by %s %v ago at last, and is %s to it",
				s.id, s.inc, w.now-p.died, by.name, w.now-a.at, s.live)
		}
	}
}

// slack is how much later than by its deadline a death may be told: for the time
// that the observer could not see, which it credits with what it can not know, and
// what it learns from others.
func (w *world) slack(by *proc, a arrival) time.Duration {
	d := 2500 * time.Millisecond // the key is read first
	if q, ok := by.self.(*queen); ok {
		d += q.brakeSlack()
	}
	for i := range by.troubles {
		if t := &by.troubles[i]; t.end(w.now) >= a.at-5*time.Second { // or it still doubted what it heard
			// Since something was heard last, or a cut may have gone unnoticed.
			d += max(0, t.end(w.now)-max(t.from, a.at)) + max(pingLimit, lostAfter(w.plan.WorkerEvery.D(), 0)) + liveness.BackGrace + 5*time.Second
		}
	}
	return d
}

// checkShown holds what a queen would answer now against the truth.
func (w *world) checkShown(q *queen) {
	if q.paused() {
		return
	}
	now := w.time()
	if err := q.view.Verify(now); err != nil {
		w.breaks(Sound, "what %s keeps of its view differs from what it is: %v", q.name, err)
	}
	for _, h := range q.view.Hives() {
		hl := life{h.ID(), h.Head().Inc}
		if hl.inc == 0 { // known from the roster alone
			hl.inc = h.Inc()
		}
		hp := w.truth.procs[hl]
		if hp == nil {
			continue
		}
		slow := w.truth.slow[hl]
		for _, k := range h.Workers() {
			late, r := slow, k.Record()
			kl := life{h.ID() + "/" + r.Worker, r.Inc}
			w.checkAbsent(q, h, hp, k)
			at, ok := w.truth.seqs[heardSeq{hearing{hp, kl}, r.Seq, 0}]
			if k.Via() == hivebeat.ViaQueen { // it may have heard it itself
				if own, heard := w.truth.seqs[heardSeq{hearing{&q.proc, kl}, r.Seq, 0}]; heard {
					at, ok = max(at, own), true
				}
			}
			if !ok {
				continue // of an incarnation of the hive before this one
			}
			live, age, _ := q.view.Shown(h, k, now)
			truth := w.now - at
			if h.Head().Inc == 0 && w.plan.Before > 0 { // by an entry without ages and promises
				continue
			}
			if age.Duration() < truth-late-2*unseen {
				w.breaks(NoYoungAge, "%s shows %s/%s as heard %v ago, and its hive heard it %v ago", q.name, h.ID(), r.Worker, age.Duration(), truth)
			}
			// What it did a queen may not know of a beat that another one heard.
			if did := w.truth.works[lifeSeq{kl, r.Seq}]; r.Stalled && did.done == r.Done {
				w.truth.stalled(q.name, kl, did.since, at)
			}
			if live == hivebeat.Alive && age.Duration() > q.view.Fresh() {
				w.breaks(NoYoungAge, "%s shows %s/%s as alive at an age of %v", q.name, h.ID(), r.Worker, age.Duration())
			}
		}
	}
}

// checkAbsent looks for a worker that is still there though its hive, which began
// anew, has not listed it for its own deadline, and could have.
func (w *world) checkAbsent(q *queen, h *fleet.Hive, hp *proc, k *fleet.Worker) {
	r := k.Record()
	hive, ok := hp.self.(*hive)
	if !ok || hive.lists(r.Worker) || r.Live == hivebeat.Lost || r.Live == hivebeat.Left || !h.Up() || h.Head().Inc != hp.inc || q.view.Adopted(h.ID()) {
		return
	}
	l := life{h.ID() + "/" + r.Worker, r.Inc}
	limit := hp.born + lostAfter(w.plan.WorkerEvery.D(), 0) + detector.WarmAfter + 4*w.plan.HiveEvery.D()
	lossy := w.plan.Paged && w.plan.Net.Loss > 0 // some page may be missing each time
	if w.now <= limit || lossy || hp.bothered(0, w.now, true) || q.bothered(hp.born, w.now, true) || w.truth.usurped(life{h.ID(), hp.inc}) {
		return
	}
	if !w.mayWait(hive.born, l, r.Every) {
		w.breaks(DeathTold, "%s incarnation %d is not listed by %s, which began %v ago, and %s says %s", l.ident, l.inc, hp.name, w.now-hp.born, q.name, r.Live)
	}
}

// checkHeld looks for hives that are held back for longer than the contract says.
func (w *world) checkHeld(q *queen) {
	if q.paused() {
		return
	}
	for _, s := range q.known {
		bound := lostAfter(w.plan.HiveEvery.D(), 0) + w.slack(&q.proc, arrival{at: s.since})
		if s.live == hivebeat.Unverified && w.now-s.since > bound {
			w.breaks(BrakeEnds, "%s holds its verdict on %s back for %v", q.name, s.id, w.now-s.since)
		}
	}
}

// checkEnd is what holds when nothing has gone wrong for a while.
func (w *world) checkEnd() {
	for _, s := range w.slots {
		if s.cur != nil && (s.cur.base().cuts > 0 || s.cur.base().paused()) {
			w.breaks(Sound, "%s is in trouble at the end", s.name)
		}
	}
	for _, q := range w.queens {
		if on := q.view.Brakes(); len(on) > 0 {
			w.breaks(BrakeEnds, "%s still brakes in zone %q", q.name, on[0].Name())
		}
		w.checkTruth(q)
		if q != w.queens[0] && !w.plan.NoJetStream {
			w.checkSame(w.queens[0], q)
		}
		if !q.core.Idle() {
			w.breaks(EventsOnce, "%s has events that nobody was told", q.name)
		}
	}
	if len(w.queens) > 0 && !w.plan.NoJetStream { // without, readers hear what they hear
		w.checkEvents()
	}
}

// checkTruth holds the answer of a queen against what is so.
func (w *world) checkTruth(q *queen) {
	for _, s := range w.slots {
		h, ok := s.cur.(*hive)
		if !ok || s.rival.cur != nil || w.truth.usurped(life{h.id, h.inc}) {
			continue
		}
		v := q.view.Hive(h.id)
		if v == nil || v.Live() != hivebeat.Alive || v.Inc() != h.inc {
			w.breaks(Convergence, "%s lives as %d, and %s says %s", h.name, h.inc, q.name, describe(q, h.id))
			continue
		}
		for _, k := range v.Workers() {
			r := k.Record()
			live := r.Live
			p := w.truth.procs[life{h.id + "/" + r.Worker, r.Inc}]
			gone := live == hivebeat.Lost || live == hivebeat.Left
			if w.mayWait(h.born, life{h.id + "/" + r.Worker, r.Inc}, r.Every) {
				continue
			}
			if own, ok := h.core.Record(w.time(), r.Worker); ok && own.Inc == r.Inc && own.Stalled != r.Stalled {
				w.breaks(Convergence, "%s/%s is stalled: %t, and %s says %t", h.id, r.Worker, own.Stalled, q.name, r.Stalled)
			}
			if p == nil || p.alive() == gone && !w.truth.usurped(life{p.ident, p.inc}) {
				w.breaks(Convergence, "%s/%s incarnation %d: alive is %t, and %s says %s", h.id, r.Worker, r.Inc, !gone, q.name, live)
			}
		}
	}
	for _, v := range q.view.Hives() {
		w.checkOrphans(q, v)
		p := w.truth.procs[life{v.ID(), v.Inc()}]
		if p == nil {
			w.breaks(Sound, "%s knows %s as incarnation %d, which there never was", q.name, v.ID(), v.Inc())
		} else if !p.alive() && v.Live() != hivebeat.Lost && v.Live() != hivebeat.Left {
			w.breaks(Convergence, "%s is dead as %d, and %s says %s", v.ID(), v.Inc(), q.name, v.Live())
		}
	}
	for _, k := range w.workers {
		l := life{k.ident, k.inc}
		v := q.view.Hive(k.hive)
		if v == nil || w.truth.usurped(l) || w.truth.usurped(life{v.ID(), v.Inc()}) {
			continue
		}
		if v.Live() == hivebeat.Left { // and nobody looks after them
			continue
		}
		if !v.Up() { // it answers for itself
			if x := v.Worker(k.id); x != nil && x.Record().Inc == k.inc && (x.Record().Live != hivebeat.Alive || x.Via() != hivebeat.ViaQueen) {
				w.breaks(Convergence, "%s lives, its hive is %s, and %s says %s via %s", k.name, v.Live(), q.name, x.Record().Live, x.Via())
			}
			continue
		}
		if x := v.Worker(k.id); x == nil || x.Record().Inc != k.inc {
			w.breaks(Convergence, "%s lives as %d, and %s does not know it", k.name, k.inc, q.name)
		}
	}
}

// mayWait reports whether a worker that is dead may not have been given up yet: for
// the silence that it announced, counted from when its hive began where that does
// not list it; or where an entry of the roster that was put by a queen of before does
// not say its promise. For other promises the time to settle is long enough.
func (w *world) mayWait(since time.Duration, l life, every hivebeat.Millis) bool {
	if every == 0 && w.plan.Before > 0 && w.now-since < hivebeat.KeepGone+time.Minute {
		return true
	}
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		if f.Kind == Quiet && f.Who == l.ident && w.now < max(f.At.D(), since)+lostAfter(w.plan.WorkerEvery.D(), f.By.D())+time.Minute {
			return true
		}
	}
	return false
}

func describe(q *queen, id string) string {
	v := q.view.Hive(id)
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s as %d", v.Live(), v.Inc())
}

// checkSame compares the answers of two queens.
func (w *world) checkSame(a, b *queen) {
	for _, s := range w.slots {
		if s.on != nil || a.view.Hive(s.ident) == nil && b.view.Hive(s.ident) == nil {
			continue
		}
		x, y := a.view.Hive(s.ident), b.view.Hive(s.ident)
		if x == nil || y == nil || x.Live() != y.Live() || x.Inc() != y.Inc() {
			w.breaks(Convergence, "of %s %s says %s, and %s %s", s.ident, a.name, describe(a, s.ident), b.name, describe(b, s.ident))
			return
		}
		if !x.Up() {
			continue
		}
		list := func(q *queen) (texts []string) {
			v := q.view.Hive(s.ident)
			for _, k := range v.Workers() {
				r := k.Record()
				if h, ok := s.cur.(*hive); ok && !h.lists(r.Worker) && w.mayWait(h.born, life{h.id + "/" + r.Worker, r.Inc}, r.Every) {
					continue // which a queen that began since does not know
				}
				texts = append(texts, fmt.Sprintf("%s %s %s %d n%d", r.Worker, r.Live, r.State, r.Inc, r.N))
			}
			return texts
		}
		if l, m := list(a), list(b); !slices.Equal(l, m) {
			w.breaks(Convergence, "of the workers of %s %s says %v, and %s %v", s.ident, a.name, l, b.name, m)
		}
	}
}
