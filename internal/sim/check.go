package sim

import (
	"cmp"
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
	// No observer gives up a process that it heard, or could have heard, within its
	// deadline: time in which the observer was stopped, or knew that it was cut off,
	// does not count. Nor does it give up a process that lives and had no trouble, on a
	// network that the contract gives its guarantee for.
	NoFalseDeath Invariant = "no false death"
	// A process that died is given up by the deadline that follows from its last
	// message, and all observers that look at it later say so.
	DeathTold Invariant = "each death is told by its bound"
	// No age is less than the time since the message in question came in.
	NoYoungAge Invariant = "no age is younger than it is"
	// An incarnation whose place was taken stays away, if it has ended; and nothing that
	// was sent before a process ended makes it recover where its end was seen.
	NoResurrection Invariant = "no old incarnation comes back"
	// When nothing has gone wrong for a while all queens say the same, and it is so.
	Convergence Invariant = "queens converge to the truth"
	// The brake holds no verdict back for ever.
	BrakeEnds Invariant = "the brake ends"
	// No event is twice in the stream, or missing.
	EventsOnce Invariant = "events are told once"
	// A worker that is busy and finishes nothing is told as stalled by the limit, once,
	// until it goes on; and no other worker is.
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

// monitor checks all hives and queens now and then, but none that is stopped.
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

// observers are all hives and queens that run.
func (w *world) observers() (list []*observer) {
	for _, h := range w.hives {
		list = append(list, &h.observer)
	}
	for _, q := range w.queens {
		list = append(list, &q.observer)
	}
	return list
}

// checkDeathsTold looks for the dead that the observer takes for living.
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
			o.w.breaks(DeathTold, "%s incarnation %d died %v ago, was heard by %s %v ago at last, and is %s to it", s.id, s.inc, o.w.now-p.died, o.name, o.w.now-a.at, s.live)
		}
	}
}

// slack is how much later than by its deadline a death may be told that was heard of
// last at that time: for the time that the observer could not see, which it credits
// with what it cannot know, and what it learns from others.
func (o *observer) slack(heard time.Duration) time.Duration {
	w, d := o.w, 2500*time.Millisecond+o.braking // the key is read first
	for _, t := range o.troubles {
		if t.end(w.now) >= heard-5*time.Second { // or it still doubted what it heard
			// Since something was heard last, or a cut may have gone unnoticed.
			d += max(0, t.end(w.now)-max(t.from, heard)) + max(pingLimit, lostAfter(w.plan.WorkerEvery.D(), 0)) + liveness.BackGrace + 5*time.Second
		}
	}
	// A queen may take itself for the one that is cut off until the store acknowledges again.
	away := max(w.store.turned, w.now*time.Duration(min(1, w.store.away))) - heard
	if o.asking > 0 && (w.plan.Replicas > 1 || w.plan.Hives > 3) && away > 0 {
		d += away + lostAfter(w.plan.HiveEvery.D(), 0) + 15*time.Second
	}
	return d
}

// checkShown holds what a queen would answer now against the truth.
func (q *queen) checkShown() {
	w, now := q.w, q.w.time()
	if err := q.view.Verify(now); err != nil {
		w.breaks(Sound, "what %s keeps of its view differs from what it is: %v", q.name, err)
	}
	for _, v := range q.view.Hives() {
		p := w.lives[life{v.ID(), cmp.Or(v.Head().Inc, v.Inc())}] // there is no head where it is known from the roster alone
		if p == nil {
			continue
		}
		h := p.self.(*hive) // which may be dead by now
		for _, k := range v.Workers() {
			r := k.Record()
			kl := life{h.id + "/" + r.Worker, r.Inc}
			beat := numbered{kl, r.Seq, 0}
			q.checkAbsent(v, h, k)
			at, ok := h.seqs[beat]
			if own, heard := q.seqs[beat]; heard && k.Via() == hivebeat.ViaQueen { // it may have heard it itself
				at, ok = max(at, own), true
			}
			// It is of an incarnation of the hive before this one, or from an entry without ages and promises.
			if !ok || v.Head().Inc == 0 && w.plan.Before > 0 {
				continue
			}
			live, age, _ := q.view.Shown(v, k, now)
			if truth := w.now - at; age.Duration() < truth-h.slow-2*unseen {
				w.breaks(NoYoungAge, "%s shows %s as heard %v ago, and its hive heard it %v ago", q.name, kl.ident, age.Duration(), truth)
			}
			// What it did a queen may not know of a beat that another one heard.
			if b := w.beats[beat]; b != nil && r.Stalled && b.work.done == r.Done {
				q.checkStalled(kl, b.work.since, at)
			}
			if live == hivebeat.Alive && age.Duration() > q.view.Fresh() {
				w.breaks(NoYoungAge, "%s shows %s as alive at an age of %v", q.name, kl.ident, age.Duration())
			}
		}
	}
}

// checkAbsent looks for a worker that is still there though its hive, which began
// again, has not listed it for its own deadline, and could have.
func (q *queen) checkAbsent(v *fleet.Hive, h *hive, k *fleet.Worker) {
	w, r := q.w, k.Record()
	if h.lists(r.Worker) || gone(r.Live) || !v.Up() || v.Head().Inc != h.inc || q.view.Adopted(h.id) {
		return
	}
	l := life{h.id + "/" + r.Worker, r.Inc}
	lossy := w.plan.Paged && w.plan.Net.Loss > 0 // some page may be missing each time
	if w.now <= h.born+lostAfter(w.plan.WorkerEvery.D(), 0)+detector.WarmAfter+4*w.plan.HiveEvery.D() || lossy || h.bothered(0, w.now, true) || q.bothered(h.born, w.now, true) ||
		w.usurped(h.life) || w.mayWait(h.born, l, r.Every) {
		return
	}
	w.breaks(DeathTold, "%s incarnation %d is not listed by %s, which began %v ago, and %s says %s", l.ident, l.inc, h.name, w.now-h.born, q.name, r.Live)
}

// checkHeld looks for hives that are held back for longer than the contract says.
func (q *queen) checkHeld() {
	if s, from := q.w.store, q.w.now-settled; s.away == 0 && s.turned < from && q.view.Apart() != "" && !q.bothered(from, q.w.now, true) {
		q.w.breaks(BrakeEnds, "%s says that it may be cut off, as %s", q.name, q.view.Apart())
	}
	for _, s := range q.known {
		held := q.w.now - s.since
		if s.live == hivebeat.Unverified && held > lostAfter(q.w.plan.HiveEvery.D(), 0)+q.slack(s.since) {
			q.w.breaks(BrakeEnds, "%s holds its verdict on %s back for %v", q.name, s.id, held)
		}
	}
}

// settled is for how long nothing may have gone wrong between a queen and JetStream before
// anything is asked of it: the next read is over by then.
const settled = 20 * time.Second

// checkBelieved looks for hives that the roster has as lost, and of which the queen,
// though it has heard nothing since, says that they are there. A second is enough for the
// roster's word to come to every queen.
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
		w.breaks(DeathTold, "the roster has %s incarnation %d as lost since %v, at seq %d, and %s, which has heard nothing since, says %s", id, e.Inc, w.now-e.at, e.Seq, q.name, h.Live())
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
		q.checkTruth()
		if q != w.queens[0] && !w.plan.NoJetStream {
			w.checkSame(w.queens[0], q)
		}
		if !q.core.Idle() {
			w.breaks(EventsOnce, "%s has events that it has not told", q.name)
		}
	}
	if len(w.queens) > 0 && !w.plan.NoJetStream { // without, readers hear what they hear
		w.checkEvents()
	}
}

// checkTruth holds the answer of a queen against what is so.
func (q *queen) checkTruth() {
	w := q.w
	for _, h := range w.hives {
		v := q.view.Hive(h.id)
		if !w.usurped(h.life) && (v == nil || v.Live() != hivebeat.Alive || v.Inc() != h.inc) {
			w.breaks(Convergence, "%s lives as %d, and %s says %s", h.name, h.inc, q.name, q.describe(h.id))
		}
	}
	for _, v := range q.view.Hives() {
		l := life{v.ID(), v.Inc()}
		p := w.lives[l]
		if p == nil {
			w.breaks(Sound, "%s knows %s as incarnation %d, which there never was", q.name, l.ident, l.inc)
			continue
		}
		if !p.alive() && !gone(v.Live()) {
			w.breaks(Convergence, "%s is dead as %d, and %s says %s", l.ident, l.inc, q.name, v.Live())
		}
		switch {
		case p.alive() && v.Live() == hivebeat.Alive && !w.usurped(l):
			q.checkWorkers(v, p.self.(*hive), p.born)
		case v.Live() == hivebeat.Lost && w.now-q.born >= w.plan.Settle.D(): // the queen looks after them
			q.checkWorkers(v, nil, q.known.of(l.ident).since)
		}
	}
	for _, k := range w.workers {
		v := q.view.Hive(k.hive)
		if v == nil || v.Live() == hivebeat.Left || w.usurped(k.life) || w.usurped(life{v.ID(), v.Inc()}) {
			continue // or its hive left, and no queen looks after its workers
		}
		x := v.Worker(k.id)
		known := x != nil && x.Record().Inc == k.inc
		switch {
		case v.Up() && !known:
			w.breaks(Convergence, "%s lives as %d, and %s does not know it", k.name, k.inc, q.name)
		case !v.Up() && known && (x.Record().Live != hivebeat.Alive || x.Via() != hivebeat.ViaQueen): // it answers for itself
			w.breaks(Convergence, "%s lives, its hive is %s, and %s says %s via %s", k.name, v.Live(), q.name, x.Record().Live, x.Via())
		}
	}
}

// checkWorkers holds what a queen says of the workers of a hive against what is so. h
// is that hive if it lives. If it does not, checkWorkers looks for dead workers alone,
// which the queen has to find since then.
func (q *queen) checkWorkers(v *fleet.Hive, h *hive, since time.Duration) {
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
				w.breaks(Convergence, "%s is stalled: %t, and %s says %t", l.ident, own.Stalled, q.name, r.Stalled)
			}
		}
		switch {
		case p != nil && (p.alive() != gone || h == nil && p.alive()): // so it is, or checkTruth looks at it
		case p != nil && h != nil && w.usurped(l): // a duplicate may be what the hive knows
		default:
			w.breaks(Convergence, "%s incarnation %d: alive is %t, its hive is %s, and %s says %s", l.ident, l.inc, !gone, v.Live(), q.name, r.Live)
		}
	}
}

// mayWait reports whether a worker that is dead may not have been given up yet: for
// the silence that it announced, counted from when its hive began where that does
// not list it; or where its promise is not in an entry of the roster, which a queen of
// an earlier version put (Plan.Before). For other promises the time to settle is long enough.
func (w *world) mayWait(since time.Duration, l life, every hivebeat.Millis) bool {
	if every == 0 && w.plan.Before > 0 && w.now-since < hivebeat.KeepGone+time.Minute {
		return true
	}
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		// What its hive could not hear meanwhile is credited, though nothing was due: up to then.
		from := max(f.At.D(), since, w.plan.For.D()-w.plan.Settle.D())
		if f.Kind == Quiet && f.Who == l.ident && w.now < from+lostAfter(w.plan.WorkerEvery.D(), f.By.D())+time.Minute {
			return true
		}
	}
	return false
}

// describe says what a queen says of a hive.
func (q *queen) describe(id string) string {
	v := q.view.Hive(id)
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s as %d", v.Live(), v.Inc())
}

// checkSame compares the answers of two queens.
func (w *world) checkSame(a, b *queen) {
	for _, s := range w.slots {
		if s.on != nil {
			continue
		}
		if x, y := a.describe(s.ident), b.describe(s.ident); x != y {
			w.breaks(Convergence, "of %s %s says %s, and %s %s", s.ident, a.name, x, b.name, y)
			return
		}
		workers := func(q *queen) (texts []string) {
			for _, k := range q.view.Hive(s.ident).Workers() {
				r := k.Record()
				if h, ok := s.cur.(*hive); ok && !h.lists(r.Worker) && (gone(r.Live) || w.mayWait(h.born, life{h.id + "/" + r.Worker, r.Inc}, r.Every)) {
					continue // a queen that began since does not know it
				}
				texts = append(texts, fmt.Sprintf("%s %s %s %d n%d", r.Worker, r.Live, r.State, r.Inc, r.N))
			}
			return texts
		}
		if v := a.view.Hive(s.ident); v == nil || !v.Up() {
			continue
		}
		if x, y := workers(a), workers(b); !slices.Equal(x, y) {
			w.breaks(Convergence, "of the workers of %s %s says %v, and %s %v", s.ident, a.name, x, b.name, y)
		}
	}
}
