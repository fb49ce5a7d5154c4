package sim

import (
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

const (
	callAllEvery  = 10 * time.Second
	openAtMost    = 10 * time.Second
	coldStart     = 2 * time.Second
	announceLimit = 16
	queenTick     = 250 * time.Millisecond
)

// queen judges as package queen does: the real fleet.View and fleet.Outbox, and a
// loop like the ones in queen/loop.go and queen/store.go.
type queen struct {
	proc
	view *fleet.View
	out  fleet.Outbox

	sight    liveness.Observer
	roll     bool // is to be called once the doubt is over
	upAt     time.Time
	timer    time.Duration // negative: none
	timerN   uint64
	checks   []fleet.Check
	pumping  bool
	opened   bool // JetStream was there once
	opErr    error
	probeAt  time.Duration
	backoff  time.Duration
	probing  bool
	rosterOK bool // was read
	epoch    int64
	watched  uint64 // the last revision that the watch brought
	rewatch  bool   // it is to be looked once more
	reading  bool
	queue    []fleet.Teller
	working  int
	unsure   liveness.Deadlines[fleet.Teller]
	putting  map[string]*putting
	coldRead time.Time
	warm     bool
	missing  map[*fleet.Hive]struct{}
	calledAt time.Duration

	heard    heardClosings
	settling bool

	known sightings                // of hives, for the checks
	told  map[string]time.Duration // when this queen was told more of a hive than it had heard
	score fleet.Score
	gap   uint64 // of the snapshot at hand: how much higher its seq is than the last
}

// putting is what is put of one hive into the bucket.
type putting struct {
	inc, seq uint64
	pages    map[uint64][]byte
	received time.Duration
	every    time.Duration
	last     time.Duration
	armed    bool
}

func (q *queen) start() {
	q.view = fleet.New(hivebeat.Fresh)
	q.timer, q.calledAt = -1, -callAllEvery
	q.putting, q.told = make(map[string]*putting), make(map[string]time.Duration)
	q.upAt = q.w.time()
	q.heard.deaf = q.untold()
	q.w.queens = append(q.w.queens, q)
	q.inc = uint64(q.wall().UnixMicro())
	q.w.truth.began(&q.proc)
	q.w.trace(q.name, "begins")
	q.look()
	if q.up() {
		q.sight.Connect(q.upAt)
	}
	q.open(true)
	q.tick()
}

// listens reports whether this queen hears the beats of a hive's workers.
func (q *queen) listens(hive string) bool { return q.view.Adopted(hive) }

// look is the first thing in every turn: was this queen stopped?
func (q *queen) look() {
	if paused := q.sight.Look(q.w.time()); paused > 0 {
		q.w.trace(q.name, "sees that it was stopped for %v", paused)
		q.roll = true
		q.doubt()
	}
}

func (q *queen) doubt() {
	if at, ok := q.sight.Doubts(); ok {
		if !q.view.Doubts() {
			q.heard.forget()
		}
		q.view.Doubt(at)
	}
}

func (q *queen) countDrops() {
	if q.sight.Dropped(q.w.time(), q.drops) > 0 {
		q.doubt()
	}
}

func (q *queen) sendToken() {
	if token, ok := q.sight.Token(q.w.time()); ok {
		q.publish(&message{topic: topicToken, token: token})
	}
}

func (q *queen) tokenBack(token uint64) {
	q.countDrops()
	blind, ok := q.sight.Back(q.w.time(), token)
	if !ok {
		return
	}
	q.w.trace(q.name, "hears again, and knows it: credits %v", blind)
	q.view.BlindFor(blind)
	q.timer = -1
	if q.roll {
		q.roll = false
		q.callAll()
	}
}

// open waits for JetStream, and reads what is kept there.
func (q *queen) open(first bool) {
	q.ask(func(*store) {}, func(err error) {
		if err != nil {
			if first {
				q.callAll()
			}
			q.after(time.Second, func() { q.open(false) })
			return
		}
		q.opened = true
		q.read()
	})
}

func (q *queen) there() bool { return q.opened && q.opErr == nil }

// tick looks after what has no deadline of its own.
func (q *queen) tick() {
	q.after(queenTick, func() {
		q.look()
		q.countDrops()
		q.probe()
		q.confirm()
		if q.opened && q.there() && q.epoch != q.w.store.epoch && q.up() && q.w.store.away == 0 {
			q.read() // ledger.Keep saw that it is another store than before
		}
		_, doubts := q.sight.Doubts()
		next, due := q.view.Next()
		if due = due && !next.After(q.w.time()); due || doubts || q.opErr != nil || q.unsure.Len() > 0 {
			q.settle()
		}
		q.tick()
	})
}

func (q *queen) receive(m *message) {
	q.look()
	switch m.topic {
	case topicSnapshot:
		q.take(m)
	case topicBeat:
		q.sight.Prove(q.w.time())
		if err := q.view.Beat(m.hive, "", m.payload, q.w.time()); err != nil {
			q.w.trace(q.name, "refuses a beat of %s %d/%d: %v", m.ident(), m.inc, m.seq, err)
		}
	case topicToken:
		q.tokenBack(m.token)
	}
	q.settle()
}

// take takes one snapshot.
func (q *queen) take(m *message) {
	now := q.w.time()
	q.sight.Prove(now)
	s, err := q.view.Parse(m.payload)
	if err != nil {
		q.w.breaks(Sound, "%s can not read a snapshot: %v", q.name, err)
		return
	}
	q.gap = 0
	if v := q.view.Hive(m.hive); v != nil && v.Inc() == m.inc && m.seq > v.Seq() {
		q.gap = m.seq - v.Seq()
	}
	if err := q.view.Apply(s, now); err != nil {
		q.w.trace(q.name, "refuses a snapshot of %s %d/%d: %v", m.hive, m.inc, m.seq, err)
		return
	}
	h := q.view.Hive(string(s.Hive))
	q.view.Keep(m.payload, s)
	delete(q.missing, h)
	if q.opened && q.sight.Trusts() {
		q.offer(h, s, m.payload)
	}
}

// settle sends on what followed from the inputs.
func (q *queen) settle() {
	now := q.w.time()
	if next, due := q.view.Next(); !due || next.After(now) || q.sight.Hears(now) {
		q.view.Tick(now)
	}
	q.sendToken()
	q.view.TakeAdoptions() // who listens to whom is asked anew for each beat
	for _, c := range q.view.TakeRollCalls() {
		q.publish(&message{topic: topicCall, hive: c.Hive, spread: c.Spread})
	}
	q.askClosing()
	for _, h := range q.view.TakeCalls() {
		q.publish(&message{topic: topicHiveCall, hive: h.ID(), spread: q.view.Spread()})
	}
	q.checks = append(q.checks, q.view.TakeChecks()...)
	q.startChecks()
	for _, s := range q.view.TakeSteps() {
		q.w.trace(q.name, "%s is %s, inc %d: %s to %s %s, %s", s.Hive, s.Kind, s.Inc, s.From, s.To, s.Cause, s.Reason)
		q.w.truth.judgedHive(q, &s)
	}
	if list := q.view.TakeEvents(); len(list) > 0 {
		for i := range list {
			q.w.truth.told(q, &list[i])
		}
		q.out.Push(list)
	}
	q.pump()
	for _, h := range q.view.TakeDirty() {
		q.tell(h)
	}
	for _, z := range q.view.TakeZones() {
		q.tell(z)
	}
	q.announce()
	q.warmUp()
	if next, ok := q.view.Next(); ok && next.After(now) && (q.timer < 0 || since(next) < q.timer) {
		q.timerN++
		n := q.timerN
		q.timer = max(since(next), q.w.now)
		q.when(q.timer, func() {
			if q.timerN == n {
				q.timer = -1
				q.look()
				q.settle()
			}
		})
	}
}

// startChecks reads the keys of hives that are about to be late or lost.
func (q *queen) startChecks() {
	for len(q.checks) > 0 {
		c := q.checks[0]
		q.checks = q.checks[1:]
		if !q.there() {
			q.view.Checked(c, 0, 0, q.w.time())
			continue
		}
		var found kept
		id := c.Hive.ID()
		q.ask(func(s *store) {
			if k, ok := s.get(id); ok {
				found = k
			}
		}, func(err error) {
			if err != nil {
				found = kept{}
			}
			q.hearsay(id, func() { q.view.Checked(c, found.inc, found.seq, q.w.time()) })
			q.trouble(err)
		})
	}
}

func (q *queen) disconnected() {
	q.look()
	q.sight.Cut(q.w.time(), pingLimit)
	q.roll = true
	q.doubt()
	q.settle()
}

func (q *queen) connected() {
	q.look()
	q.upAt = q.w.time()
	q.sight.Connect(q.upAt)
	if q.opened {
		q.read()
	}
	q.after(between(q.rng, 50*time.Millisecond, time.Second), q.watch)
	q.settle()
}

// trouble notes that something failed in JetStream: it is away until a probe goes
// well.
func (q *queen) trouble(err error) {
	if err == nil || q.opErr != nil {
		return
	}
	if q.backoff == 0 || q.w.now-q.probeAt > 30*time.Second {
		q.backoff = time.Second / 2
	}
	q.backoff = min(2*q.backoff, 10*time.Second)
	q.opErr, q.probeAt = err, q.w.now+q.backoff
}

func (q *queen) probe() {
	if q.opErr == nil || q.probing || q.w.now < q.probeAt {
		return
	}
	q.probing = true
	q.ask(func(*store) {}, func(err error) {
		q.probing, q.probeAt = false, q.w.now
		if err == nil {
			q.opErr = nil
			q.after(between(q.rng, 0, time.Second), q.watch)
			return
		}
		q.backoff = min(2*q.backoff, 10*time.Second)
		q.probeAt = q.w.now + q.backoff
	})
}

func (q *queen) leave() { q.kill() }

// brakeSlack is how long the brake may hold a verdict back.
func (q *queen) brakeSlack() time.Duration {
	return 10*time.Second + time.Duration(q.w.plan.Hives)*time.Second/5
}
