package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/index/indextest"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Invariant is a property that holds in every run.
type Invariant string

// The invariants.
const (
	// No observer declares a process lost that it heard, or could have heard, within its
	// deadline. Time in which the observer was stopped, or knew that it was cut off, does not
	// count. Nor does it declare a process lost that is alive and had no trouble, on a network
	// that the protocol gives its guarantee for.
	NoFalseDeath Invariant = "no false death"
	// A process that died is declared lost by the deadline that follows from its last message,
	// and all observers that look at it later agree.
	DeathTold Invariant = "each death is reported by its bound"
	// No age is less than the time since the message arrived.
	NoYoungAge Invariant = "no age is younger than it is"
	// An incarnation that was replaced stays away, if it has ended. If its end was seen,
	// nothing that was sent before the end makes it recover.
	NoResurrection Invariant = "no old incarnation comes back"
	// When nothing has gone wrong for a while, all queens agree, and they are right.
	Convergence Invariant = "queens converge to the truth"
	// The brake holds no verdict forever.
	BrakeEnds Invariant = "the brake ends"
	// No event is in the stream twice, or missing.
	EventsOnce Invariant = "events are published once"
	// A worker that is busy and finishes nothing is reported as stalled by the limit, once,
	// until it continues; no other worker is.
	Stalls Invariant = "stalled is reported once, and is so"
	// The simulation itself, and properties that only a plain bug can break.
	Sound Invariant = "nothing is plainly wrong"
)

// Violation is a broken invariant.
type Violation struct {
	Invariant Invariant `json:"invariant"`
	At        Span      `json:"at"`
	Text      string    `json:"text"`
}

func (v *Violation) String() string {
	return fmt.Sprintf("%s, after %v: %s", v.Invariant, v.At.D().Round(time.Millisecond), v.Text)
}

// monitor checks all hives and queens that are not stopped, every 5 s.
func (w *world) monitor() {
	w.at(w.now+5*time.Second, func() {
		for _, h := range w.hives {
			if !h.paused() {
				h.checkDeathsTold()
				h.checkStalls()
			}
		}
		for _, q := range w.queens {
			if !q.paused() {
				q.checkDeathsTold()
				q.checkShown()
				q.checkHeld()
				q.checkBelieved()
			}
		}
		w.monitor()
	})
}

// observers returns all running hives and queens.
func (w *world) observers() (list []*observer) {
	for _, h := range w.hives {
		list = append(list, &h.observer)
	}
	for _, q := range w.queens {
		list = append(list, &q.observer)
	}
	return list
}

// checkDeathsTold looks for dead processes that the observer believes are alive.
func (o *observer) checkDeathsTold() {
	if o.cuts > 0 || o.noticed {
		return
	}
	for _, s := range o.known {
		l := life{s.id, s.inc}
		p := o.w.lives[l]
		if p == nil || p.alive() || gone(s.live) {
			continue
		}
		a, ok := o.last[l]
		if !ok {
			a.at, a.every = s.incAt, o.w.plan.HiveEvery.D()
		}
		a.at = max(a.at, o.born, o.told[s.id])
		if o.w.now > a.at+lostAfter(a.every, a.quiet)+o.slack(a.at) {
			o.w.breaks(DeathTold, "%s incarnation %d died %v ago, %s heard it last %v ago, and reports it as %s", s.id, s.inc, o.w.now-p.died, o.name, o.w.now-a.at, s.live)
		}
	}
}

// slack is how much later than its deadline a death may be reported, of a process that was
// last heard at heard. It covers the time when the observer could not see, the credit that
// it gives for the unknown, and reports of other observers.
func (o *observer) slack(heard time.Duration) time.Duration {
	w, d := o.w, 2500*time.Millisecond+o.braking // the key is read first
	for _, t := range o.troubles {
		if t.end(w.now) >= heard-5*time.Second { // or it was still in doubt
			// Since the last message; a cut may also have gone unnoticed.
			d += max(0, t.end(w.now)-max(t.from, heard)) + max(pingLimit, lostAfter(w.plan.WorkerEvery.D(), 0)) + liveness.BackGrace + 5*time.Second
		}
	}
	// A queen may consider itself cut off until the store acknowledges again.
	away := max(w.store.turned, w.now*time.Duration(min(1, w.store.away))) - heard
	if o.asking > 0 && (w.plan.Replicas > 1 || w.plan.Hives > 3) && away > 0 {
		d += away + lostAfter(w.plan.HiveEvery.D(), 0) + 15*time.Second
	}
	return d
}

// checkShown checks what a queen would answer now.
func (q *queen) checkShown() {
	w, now, x := q.w, q.w.time(), q.view.Index()
	q.view.Settle(now)
	if err := indextest.Verify(x, now); err != nil {
		w.breaks(Sound, "the index of %s differs from its view: %v", q.name, err)
	}
	for _, v := range x.Hives() {
		p := w.lives[life{v.ID(), cmp.Or(v.Head().Inc, v.Inc())}] // no head if it is known only from the roster
		if p == nil {
			continue
		}
		h := p.self.(*hive) // may be dead by now
		for _, k := range v.Workers() {
			r := k.Record()
			kl := life{h.id + "/" + r.Worker, r.Inc}
			beat := numbered{kl, r.Seq, 0}
			q.checkAbsent(v, h, k)
			at, ok := h.seqs[beat]
			if own, heard := q.seqs[beat]; heard && k.Via() == hivebeat.ViaQueen { // it may have heard the worker itself
				at, ok = max(at, own), true
			}
			// The beat is of an earlier incarnation of the hive, or from an entry without ages and promises.
			if !ok || v.Head().Inc == 0 && w.plan.Before > 0 {
				continue
			}
			live, age, _ := x.Shown(k, now)
			if truth := w.now - at; age.Duration() < truth-h.slow-2*unseen {
				w.breaks(NoYoungAge, "%s shows %s as heard %v ago, but its hive heard it %v ago", q.name, kl.ident, age.Duration(), truth)
			}
			// A queen may not know the work in a beat that another queen received.
			if b := w.beats[beat]; b != nil && r.Stalled && b.work.done == r.Done {
				q.checkStalled(kl, b.work.since, at)
			}
			if live == hivebeat.Alive && age.Duration() > x.Fresh() {
				w.breaks(NoYoungAge, "%s shows %s as alive at an age of %v", q.name, kl.ident, age.Duration())
			}
		}
	}
}

// checkAbsent looks for a worker that a queen still shows although its hive, which started
// again, has not listed it for the worker's deadline, and could have.
func (q *queen) checkAbsent(v *index.Hive, h *hive, k *index.Worker) {
	w, r := q.w, k.Record()
	if h.lists(r.Worker) || gone(r.Live) || !v.Up() || v.Head().Inc != h.inc || q.view.Adopted(h.id) {
		return
	}
	l := life{h.id + "/" + r.Worker, r.Inc}
	lossy := w.plan.Paged && w.plan.Net.Loss > 0 // a page may be missing each time
	if w.now <= h.born+lostAfter(w.plan.WorkerEvery.D(), 0)+detector.WarmAfter+4*w.plan.HiveEvery.D() || lossy || h.bothered(0, w.now, true) || q.bothered(h.born, w.now, true) ||
		w.usurped(h.life) || w.mayWait(h.born, l, r.Every) {
		return
	}
	w.breaks(DeathTold, "%s incarnation %d is not listed by %s, which started %v ago, and %s reports it as %s", l.ident, l.inc, h.name, w.now-h.born, q.name, r.Live)
}

// checkHeld looks for hives that are held for longer than the protocol allows.
func (q *queen) checkHeld() {
	if s, from := q.w.store, q.w.now-settled; s.away == 0 && s.turned < from && q.view.Apart() != "" && !q.bothered(from, q.w.now, true) {
		q.w.breaks(BrakeEnds, "%s reports that it may be cut off: %s", q.name, q.view.Apart())
	}
	for _, s := range q.known {
		held := q.w.now - s.since
		if s.live == hivebeat.Unverified && held > lostAfter(q.w.plan.HiveEvery.D(), 0)+q.slack(s.since) {
			q.w.breaks(BrakeEnds, "%s has held back its verdict on %s for %v", q.name, s.id, held)
		}
	}
}

// settled is how long a queen and JetStream must have been without trouble before something
// is expected of the queen: the next read has ended by that time.
const settled = 20 * time.Second

// checkBelieved looks for hives that are lost in the roster, but that the queen reports as
// up although it has received nothing since. Every queen learns of a change in the roster
// within a second.
func (q *queen) checkBelieved() {
	w, s, from := q.w, q.w.store, q.w.now-settled
	if w.plan.NoJetStream || q.born > from || q.bothered(from, w.now, true) || s.away > 0 || s.turned > from || q.kept.epoch != s.epoch {
		return
	}
	for _, id := range s.keysAfter(0) {
		e, h := s.roster[id], q.view.Hive(id)
		if e.Live != hivebeat.Lost || w.now-e.at < time.Second || h == nil || !h.Up() || h.Inc() != e.Inc || h.Seq() > e.Seq {
			continue
		}
		w.breaks(DeathTold, "the roster has %s incarnation %d as lost since %v, at seq %d, and %s, which has heard nothing since, reports it as %s", id, e.Inc, w.now-e.at, e.Seq, q.name, h.Live())
	}
}

// checkEnd checks what must hold when nothing has gone wrong for a while.
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
		q.checkTruth()
		if q != w.queens[0] && !w.plan.NoJetStream {
			w.checkSame(w.queens[0], q)
		}
		if !q.core.Idle() {
			w.breaks(EventsOnce, "%s has events that it has not published", q.name)
		}
	}
	if len(w.queens) > 0 && !w.plan.NoJetStream { // without the stream, readers know only the events they receive live
		w.checkEvents()
	}
}

// checkTruth compares the answers of a queen with the true state.
func (q *queen) checkTruth() {
	w := q.w
	for _, h := range w.hives {
		v := q.view.Hive(h.id)
		if !w.usurped(h.life) && (v == nil || v.Live() != hivebeat.Alive || v.Inc() != h.inc) {
			w.breaks(Convergence, "%s is alive as %d, but %s reports it as %s", h.name, h.inc, q.name, q.describe(h.id))
		}
	}
	for _, v := range q.view.Index().Hives() {
		l := life{v.ID(), v.Inc()}
		p := w.lives[l]
		if p == nil {
			w.breaks(Sound, "%s knows %s as incarnation %d, which never existed", q.name, l.ident, l.inc)
			continue
		}
		if !p.alive() && !gone(v.Live()) {
			w.breaks(Convergence, "%s is dead as %d, but %s reports it as %s", l.ident, l.inc, q.name, v.Live())
		}
		switch {
		case p.alive() && v.Live() == hivebeat.Alive && !w.usurped(l):
			q.checkWorkers(v, p.self.(*hive), p.born)
		case v.Live() == hivebeat.Lost && w.now-q.born >= w.plan.Settle.D(): // the queen judges its workers
			q.checkWorkers(v, nil, q.known.of(l.ident).since)
		}
	}
	for _, k := range w.workers {
		v := q.view.Index().Hive(k.hive)
		if v == nil || v.Live() == hivebeat.Left || w.usurped(k.life) || w.usurped(life{v.ID(), v.Inc()}) {
			continue // or its hive left, and no queen judges its workers
		}
		x := v.Worker(k.id)
		known := x != nil && x.Record().Inc == k.inc
		switch {
		case v.Up() && !known:
			w.breaks(Convergence, "%s is alive as %d, but %s does not know it", k.name, k.inc, q.name)
		case !v.Up() && known && (x.Record().Live != hivebeat.Alive || x.Via() != hivebeat.ViaQueen): // it answers for itself
			w.breaks(Convergence, "%s is alive, its hive is %s, but %s reports it as %s via %s", k.name, v.Live(), q.name, x.Record().Live, x.Via())
		}
	}
}

// checkWorkers compares what a queen reports about the workers of a hive with the true state.
// h is that hive if it is alive. Otherwise checkWorkers looks only for dead workers, which
// the queen must have found by now, counted from since.
func (q *queen) checkWorkers(v *index.Hive, h *hive, since time.Duration) {
	w := q.w
	for _, k := range v.Workers() {
		r := k.Record()
		l := life{v.ID() + "/" + r.Worker, r.Inc}
		p, gone := w.lives[l], gone(r.Live)
		if w.mayWait(since, l, r.Every) {
			continue
		}
		if h != nil {
			if own, ok := h.core.Record(w.time(), r.Worker); ok && own.Inc == r.Inc && own.Stalled != r.Stalled {
				w.breaks(Convergence, "%s is stalled: %t, but %s reports %t", l.ident, own.Stalled, q.name, r.Stalled)
			}
		}
		switch {
		case p != nil && (p.alive() != gone || h == nil && p.alive()): // correct, or checkTruth checks it
		case p != nil && h != nil && w.usurped(l): // the hive may know the duplicate
		default:
			w.breaks(Convergence, "%s incarnation %d: alive is %t, its hive is %s, but %s reports it as %s", l.ident, l.inc, !gone, v.Live(), q.name, r.Live)
		}
	}
}

// mayWait reports whether a dead worker may not have been declared lost yet. It may be within
// the silence that it announced, counted from the start of its hive if the hive does not list
// it. Or its promise may be missing in an entry of the roster that a queen of an earlier
// version put (Plan.Before). For other promises the time to settle is long enough.
func (w *world) mayWait(since time.Duration, l life, every hivebeat.Millis) bool {
	if every == 0 && w.plan.Before > 0 && w.now-since < hivebeat.KeepGone+time.Minute {
		return true
	}
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		// What its hive could not hear meanwhile is credited, though nothing was due: up to then.
		if f.Kind == Quiet && f.Who == l.ident && w.now < max(f.At.D(), since, w.plan.For.D()-w.plan.Settle.D())+lostAfter(w.plan.WorkerEvery.D(), f.By.D())+time.Minute {
			return true
		}
	}
	return false
}

// describe returns the verdict of a queen on a hive.
func (q *queen) describe(id string) string {
	if v := q.view.Hive(id); v != nil {
		return fmt.Sprintf("%s as %d", v.Live(), v.Inc())
	}
	return "nothing"
}

// checkSame compares the answers of two queens.
func (w *world) checkSame(a, b *queen) {
	for _, s := range w.slots {
		if s.on != nil {
			continue
		}
		if x, y := a.describe(s.ident), b.describe(s.ident); x != y {
			w.breaks(Convergence, "about %s, %s reports %s, but %s reports %s", s.ident, a.name, x, b.name, y)
			return
		}
		workers := func(q *queen) (texts []string) {
			for _, k := range q.view.Index().Hive(s.ident).Workers() {
				r := k.Record()
				if h, ok := s.cur.(*hive); ok && !h.lists(r.Worker) && (gone(r.Live) || w.mayWait(h.born, life{h.id + "/" + r.Worker, r.Inc}, r.Every)) {
					continue // a queen that started since does not know it
				}
				texts = append(texts, fmt.Sprintf("%s %s %s %d n%d", r.Worker, r.Live, r.State, r.Inc, r.N))
			}
			return texts
		}
		if v := a.view.Hive(s.ident); v == nil || !v.Up() {
			continue
		}
		if x, y := workers(a), workers(b); !slices.Equal(x, y) {
			w.breaks(Convergence, "about the workers of %s, %s reports %v, but %s reports %v", s.ident, a.name, x, b.name, y)
		}
	}
}
