package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// truth is what is so, and what the observers could know of it.
type truth struct {
	w     *world
	procs map[life]*proc
	// last is the newest message of a life that came to the socket of an observer,
	// and seqs when each of them came there first.
	last map[hearing]arrival
	// first is when the first message of a life came to the socket of an observer.
	first map[hearing]time.Duration
	// linked is the newest of a hive that a queen has not heard of from elsewhere
	// before: it names its connection.
	linked map[hearing]arrival
	seqs   map[heardSeq]time.Duration
	// slow is the longest that a snapshot of a hive was on its way to any queen; built
	// when each was made.
	slow  map[life]time.Duration
	built map[lifeSeq]time.Duration
	// begun is the highest seq of a hive of which a page came to a queen.
	begun map[hearing]uint64
	// moves is when each transition of a worker was numbered by its hive.
	moves map[move]time.Duration
	// closed is when each connection closed, and owner whose it was.
	closed map[string]time.Duration
	owner  map[string]*proc
	// gaveUp are workers that a hive gave up for a connection that closed.
	gaveUp map[life]bool
	// works is what a worker did as it sent a beat.
	works map[lifeSeq]work
	// quiets are the silences that beats announced.
	quiets map[lifeSeq]time.Duration
}

// life is one process, by what it says it is.
type life struct {
	ident string
	inc   uint64
}

type hearing struct {
	observer *proc
	life
}

type heardSeq struct {
	hearing
	seq, page uint64
}

type lifeSeq struct {
	life
	seq uint64
}

type move struct {
	hive   *proc
	worker string
	n      uint64
}

type arrival struct {
	at           time.Duration
	seq          uint64
	every, quiet time.Duration
	sent         time.Duration
	conn         string
	rw           time.Duration
	work         work
	stuckAt      time.Duration // when the first of those came in that say the same of its work
}

func (t *truth) init(w *world) {
	*t = truth{
		w: w, procs: make(map[life]*proc), last: make(map[hearing]arrival), first: make(map[hearing]time.Duration), linked: make(map[hearing]arrival), seqs: make(map[heardSeq]time.Duration),
		slow: make(map[life]time.Duration), built: make(map[lifeSeq]time.Duration),
		begun: make(map[hearing]uint64), moves: make(map[move]time.Duration), closed: make(map[string]time.Duration),
		gaveUp: make(map[life]bool), owner: make(map[string]*proc), works: make(map[lifeSeq]work), quiets: make(map[lifeSeq]time.Duration),
	}
}

func (t *truth) began(p *proc) { t.procs[life{p.ident, p.inc}] = p }

// ended takes the dead from those who are there.
func (t *truth) ended(p *proc) {
	w := t.w
	w.hives = slices.DeleteFunc(w.hives, func(h *hive) bool { return &h.proc == p })
	w.workers = slices.DeleteFunc(w.workers, func(k *worker) bool { return &k.proc == p })
	w.queens = slices.DeleteFunc(w.queens, func(q *queen) bool { return &q.proc == p })
}

// ident is whom a message is from.
func (m *message) ident() string {
	if m.topic == topicBeat {
		return m.hive + "/" + m.worker
	}
	return m.hive
}

// arrived notes that a message is at the socket of p.
func (t *truth) arrived(p *proc, m *message) {
	if m.topic != topicBeat && m.topic != topicSnapshot {
		return
	}
	h := hearing{p, life{m.ident(), m.inc}}
	page := false // one more of the same
	if key := (heardSeq{h, m.seq, m.page}); t.seqs[key] == 0 {
		t.seqs[key] = t.w.now
		if m.topic == topicSnapshot {
			t.slow[h.life] = max(t.slow[h.life], t.w.now-m.sent)
			page = t.begun[h] == m.seq
			t.begun[h] = max(t.begun[h], m.seq)
		}
	}
	if q, ok := p.self.(*queen); ok {
		v := q.view.Hive(m.hive)
		if l := t.linked[h]; m.topic == topicSnapshot && m.conn != "" && m.seq >= l.seq && (v == nil || v.Inc() != m.inc || v.Seq() <= m.seq) {
			t.linked[h] = arrival{at: t.w.now, seq: m.seq, sent: m.sent, conn: m.conn, rw: m.rw}
		}
		if m.topic == topicSnapshot && v != nil && v.Inc() == m.inc && (v.Seq() > m.seq || v.Seq() == m.seq && !page) {
			return // known from elsewhere: it renews nothing
		}
	}
	if a, ok := t.last[h]; !ok || m.seq > a.seq || m.seq == a.seq && page {
		if !ok {
			t.first[h] = t.w.now
		}
		stuck := t.w.now
		if ok && m.work.busy > 0 && a.work.busy > 0 && m.work.done == a.work.done && m.quiet == 0 && stuck-a.at < hivebeat.KeepGone {
			stuck = a.stuckAt
		}
		t.last[h] = arrival{t.w.now, m.seq, m.every, m.quiet, m.sent, m.conn, m.rw, m.work, stuck}
	}
}

// adopted notes that a queen knows of a hive what the bucket has: its connection too.
func (t *truth) adopted(q *queen, s *wire.SnapshotView) {
	h := q.view.Hive(string(s.Hive))
	if h != nil && h.Head().Inc == s.Inc && h.Head().Seq == s.Seq {
		t.linked[hearing{&q.proc, life{h.ID(), s.Inc}}] = arrival{at: t.w.now, seq: s.Seq, conn: string(s.Conn), rw: hivebeat.Millis(s.RW).Duration()}
	}
}

// sightings are those that an observer knows, in the order they came.
type sightings []*sighting

type sighting struct {
	id     string
	live   hivebeat.Live
	inc    uint64
	since  time.Duration
	incAt  time.Duration // when inc was learned
	before []uint64      // incarnations whose place was taken

	stalled bool
}

func (s *sightings) of(id string) *sighting {
	for _, x := range *s {
		if x.id == id {
			return x
		}
	}
	x := &sighting{id: id}
	*s = append(*s, x)
	return x
}

// turns notes what an observer says now.
func (t *truth) turns(by *proc, s *sighting, live hivebeat.Live, inc uint64) {
	if s.inc != inc {
		// One that did not end when its place was taken may: the duplicate is gone.
		if p := t.procs[life{s.id, inc}]; slices.Contains(s.before, inc) && (p == nil || !p.alive()) && live != hivebeat.Lost && live != hivebeat.Left &&
			!t.outlived(by, s.id, inc, s.inc) && !t.believed(by, s.id, inc) {
			t.w.breaks(NoResurrection, "to %s, %s is incarnation %d again, whose place %d had taken", by.name, s.id, inc, s.inc)
		}
		if s.inc != 0 {
			s.before = append(s.before, s.inc)
		}
		s.inc, s.incAt = inc, t.w.now
	}
	if s.live != live {
		s.live, s.since = live, t.w.now
	}
}

// believed reports whether another queen, which could not see that the place of inc
// was taken, as it began since, was cut off, or JetStream was away, says that this is
// the hive: who follows it does not bring it back.
func (t *truth) believed(by *proc, id string, inc uint64) bool {
	if _, ok := by.self.(*queen); !ok || by.reading != nil {
		return false
	}
	for _, q := range t.w.queens {
		s, p := q.known.of(id), t.procs[life{id, inc}]
		if &q.proc == by || p == nil || s.inc != inc || slices.Contains(s.before, inc) {
			continue
		}
		if q.born > p.born || q.bothered(p.born, t.w.now, false) || t.w.store.backAt > p.born {
			return true
		}
	}
	return false
}

// outlived reports whether the message at hand proves that inc ran beside the
// incarnation that took its place: it was sent after that began. That it ended since
// nobody can know yet.
func (t *truth) outlived(by *proc, id string, inc, usurper uint64) bool {
	m, u := by.reading, t.procs[life{id, usurper}]
	return m != nil && u != nil && m.ident() == id && m.inc == inc && m.sent > u.born
}

// judged holds a hive's verdict on a worker against the truth.
func (t *truth) judged(h *hive, s *detector.Step) {
	t.moves[move{&h.proc, s.Worker, s.N}] = t.w.now
	switch s.Kind {
	case hivebeat.KindStalled:
		t.toldStalled(h, s)
		return
	case hivebeat.KindState, hivebeat.KindConflict:
		return
	case hivebeat.KindLost, hivebeat.KindLeft, hivebeat.KindRestarted:
		h.known.of(h.id + "/" + s.Worker).stalled = false // without a word
	}
	id := h.id + "/" + s.Worker
	if s.Kind == hivebeat.KindJoined { // its record was gone, and with it what was known of others
		h.known.of(id).before = nil
	}
	t.turns(&h.proc, h.known.of(id), hivebeat.Live(s.To), s.Inc)
	l := life{id, s.Inc}
	if p := t.procs[l]; p != nil && (s.Kind == hivebeat.KindLost || s.Kind == hivebeat.KindLeft) {
		h.gone[p] = t.w.now
	}
	if s.Kind != hivebeat.KindLost {
		return
	}
	switch s.Cause {
	case hivebeat.CauseMissed:
		t.lost(&h.proc, l, h.born)
	case hivebeat.CauseExit:
		t.lostByExit(h, l)
	case hivebeat.CauseDisconnect:
		t.gaveUp[l] = true
		t.lostByClosing(h, l, s)
	}
}

// judgedHive holds a queen's verdict on a hive against the truth.
func (t *truth) judgedHive(q *queen, s *fleet.Step) {
	if s.Kind == hivebeat.KindConflict {
		return
	}
	t.turns(&q.proc, q.known.of(s.Hive), s.To, s.Inc)
	t.back(q, s)
	if s.Kind != hivebeat.KindLost || strings.HasPrefix(s.Reason, "as another queen") {
		return
	}
	switch s.Cause {
	case hivebeat.CauseMissed:
		t.lost(&q.proc, life{s.Hive, s.Inc}, q.born)
	case hivebeat.CauseDisconnect:
		t.hiveLostByClosing(q, life{s.Hive, s.Inc})
	}
}

// told holds a queen's own verdict on a worker that its hive does not list against
// the truth.
func (t *truth) told(q *queen, e *fleet.Happened) {
	d := &e.Data
	t.w.trace(q.name, "has to tell %s: %s is %s, %s to %s", e.ID, d.Worker, d.Kind, d.From, d.To)
	if d.Kind != hivebeat.KindLost || d.Via != hivebeat.ViaQueen || d.Cause != hivebeat.CauseMissed {
		return
	}
	// Not in a complete snapshot: its hive had to be able to hear it for as long.
	for _, h := range t.w.hives {
		if h.id == d.Hive && h.inc == d.HiveInc {
			t.absent(q, h, d)
		}
	}
}

// absent is about a worker that a snapshot of h does not list.
func (t *truth) absent(q *queen, h *hive, d *hivebeat.EventData) {
	l := life{d.Hive + "/" + d.Worker, d.Inc}
	built := t.built[lifeSeq{life{h.id, h.inc}, q.view.Hive(h.id).Head().Seq}]
	if at, ok := t.first[hearing{&h.proc, l}]; ok && at < built-h.blind(at, built)-unseen {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s for not being listed by its hive, which heard it %v before that", l.ident, l.inc, q.name, built-at)
		return
	}
	// What of it the queen knows last is what it has to wait for.
	r := q.view.Hive(d.Hive).Worker(d.Worker).Record()
	a := arrival{every: t.w.plan.WorkerEvery.D(), quiet: t.quiets[lifeSeq{l, r.Seq}]}
	if r.Seq == 0 { // by the roster
		a.quiet = r.Quiet.Duration()
	}
	if waited := t.w.now - h.born; waited < lostAfter(a.every, a.quiet)-readTime {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s for not being listed by its hive, which began %v ago, want %v",
			l.ident, l.inc, q.name, waited, lostAfter(a.every, a.quiet))
	}
}

// lost holds it against the truth that by gave somebody up for silence.
func (t *truth) lost(by *proc, l life, since time.Duration) {
	a, ok := t.last[hearing{by, l}]
	if !ok { // known from memory alone
		a = arrival{at: since, every: t.w.plan.HiveEvery.D()}
	}
	t.lostBy(by, l, since, a)
}

// lostAfter is how long a silence has to be, in the words of the contract and not
// of the code that is looked at.
func lostAfter(every, quiet time.Duration) time.Duration { return max(every, quiet) + 2*every }

// deafFor is how long a connection may have been dead, and nobody knows, when
// somebody is given up for silence: half a second passes before who judges asks
// whether he hears, and what was on its way may still come in.
const deafFor = 500*time.Millisecond + readTime

// readTime is how long what is in a socket may take to be read.
const readTime = 30 * time.Millisecond

func (t *truth) lostBy(by *proc, l life, began time.Duration, a arrival) {
	now := t.w.now
	if b, ok := t.last[hearing{by, l}]; ok {
		began = max(began, b.at)
	}
	from := max(a.at, began)
	deaf := deafFor
	if _, ok := by.self.(*queen); ok {
		deaf += askWithin // the key is read meanwhile
	}
	if by.deaf() > deaf {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s, whose connection has been dead for %v", l.ident, l.inc, by.name, by.deaf())
		return
	}
	patience := lostAfter(a.every, a.quiet)
	silent := now - from - by.blind(from, now)
	if silent < patience-readTime {
		t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s after a silence of %v that it could have heard, want %v",
			l.ident, l.inc, by.name, silent, patience)
		return
	}
	p := t.procs[l]
	if p == nil || !p.alive() || !t.w.plan.Guaranteed() {
		return
	}
	window := now - patience - 2*time.Second
	if by.born > window || p.born > window || p.bothered(window, now, true) || by.bothered(window, now, false) || t.usurped(l) {
		return
	}
	t.w.breaks(NoFalseDeath, "%s incarnation %d is given up by %s and lives: it had no trouble, and neither had the network", l.ident, l.inc, by.name)
}

// usurped reports whether more than one process uses this id, or the place of this
// one was taken by another: what it sends is refused.
func (t *truth) usurped(l life) bool {
	n := 0
	for k := range t.procs {
		if k.ident == l.ident && k.inc != l.inc && t.procs[k].born >= t.procs[l].born {
			n++
		}
	}
	if n > 0 {
		return true
	}
	for k, p := range t.procs { // one that still lives
		if k.ident == l.ident && k.inc != l.inc && (p.alive() || k.inc > l.inc) {
			return true
		}
	}
	return false
}

// snapshot holds what a hive is about to say against the truth.
func (t *truth) snapshot(h *hive, s *hivebeat.Snapshot) {
	now := t.w.now
	t.built[lifeSeq{life{h.id, h.inc}, s.Seq}] = now
	for i := range s.Workers {
		r := &s.Workers[i]
		at, ok := t.seqs[heardSeq{hearing{&h.proc, life{h.id + "/" + r.Worker, r.Inc}}, r.Seq, 0}]
		if !ok {
			t.w.breaks(Sound, "%s knows %d/%d of %s, which it never heard", h.name, r.Inc, r.Seq, r.Worker)
			return
		}
		if age := now - at; r.Age.Duration() < age-unseen {
			t.w.breaks(NoYoungAge, "%s says that %s was heard %v ago, and that was %v ago", h.name, r.Worker, r.Age.Duration(), age)
		}
	}
}

// unseen is how much younger than it is something may look: an observer that was
// stopped for no longer than liveness.MaxPause does not notice.
const unseen = liveness.MaxPause + 100*time.Millisecond

// couldTell reports whether some queen was there, and able to hear the hive, for as
// long as the hive says that a transition was: one that nobody could hear is not
// told by anybody, and a queen that comes later does not know of it.
func (t *truth) couldTell(h *proc, worker string, n uint64) bool {
	at, ok := t.moves[move{h, worker, n}]
	if !ok {
		return false
	}
	end := min(at+hivebeat.TransitionsCarried, t.w.ending())
	if h.bothered(at, end, true) || !h.alive() && h.died < end || t.usurped(life{h.ident, h.inc}) {
		return false
	}
	for _, q := range t.w.queens {
		if q.born < at && !q.bothered(at-time.Second, end, true) {
			return true
		}
	}
	return false
}
