package sim

import (
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
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
	proved uint64        // the last of those that was heard to go on

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
			if slices.Contains(s.before, inc) && t.outlived(by, s.id, inc, s.inc) {
				s.proved = inc
			}
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
		if &q.proc == by || p == nil || s.inc != inc {
			continue
		}
		if s.proved == inc { // it has heard that this one went on, which may have ended since
			return true
		}
		if slices.Contains(s.before, inc) {
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

// checkSnapshot holds what a hive is about to say against the truth.
func (t *truth) checkSnapshot(h *hive, s *hivebeat.Snapshot) {
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
