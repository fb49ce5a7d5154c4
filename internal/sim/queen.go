package sim

import (
	"slices"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/queencore"
)

var subjects, _ = hivebeat.NewSubjects("")

// queen is the outside of a real queencore.Core: its clock, the bus, and package
// ledger (ledger.go).
type queen struct {
	proc
	core *queencore.Core
	view *fleet.View // the core's

	timer   time.Duration // when Tick is called; negative: never
	timerN  uint64
	wards   map[string]bool // hives whose workers' beats it receives
	doubted bool
	warm    bool
	kept    keeper

	heard heardClosings
	known sightings                // of hives, for the checks
	told  map[string]time.Duration // when this queen was told more of a hive than it had heard
	score fleet.Score
	gap   uint64 // of the snapshot at hand: how much higher its seq is than the last
}

func (q *queen) start() {
	w := q.w
	q.timer = -1
	q.wards, q.told = make(map[string]bool), make(map[string]time.Duration)
	q.heard.deaf = q.untold()
	w.queens = append(w.queens, q)
	q.inc = uint64(q.wall().UnixMicro())
	w.truth.began(&q.proc)
	w.trace(q.name, "begins")
	q.core = queencore.New(queencore.Config{
		ID: q.ident, Subjects: subjects, Fresh: hivebeat.Fresh, NoJetStream: w.plan.NoJetStream, Random: q.rng.Float64, Debug: w.tracing,
	}, w.time())
	q.view = q.core.View()
	linked(q)
	if !w.plan.NoJetStream {
		q.openLedger()
	}
}

// listens reports whether this queen receives the beats of a hive's workers.
func (q *queen) listens(hive string) bool { return q.wards[hive] }

func (q *queen) ears() *heardClosings { return &q.heard }

func (q *queen) input(f func(now time.Time, c link.Core)) {
	q.drive(func(now time.Time) { f(now, q.core) })
}

// drive gives the core one input, and does what it asks for.
func (q *queen) drive(in func(now time.Time)) {
	in(q.w.time())
	q.forgetIfDoubted()
	for q.obey() {
	}
}

// forgetIfDoubted notes that a queen which begins to doubt itself forgets which
// connections closed.
func (q *queen) forgetIfDoubted() {
	if doubts := q.view.Doubts(); doubts != q.doubted {
		if q.doubted = doubts; doubts {
			q.heard.forget()
		}
	}
}

// obey does what the core asks for, and reports whether something was handed back
// already.
func (q *queen) obey() (again bool) {
	r := q.core.Ready(q.w.time())
	q.w.traceLogs(q.name, r.Logs)
	for i := range r.Steps {
		q.w.truth.judgedHive(q, &r.Steps[i])
	}
	for i := range r.Transitions {
		q.w.truth.told(q, &r.Transitions[i])
	}
	q.forgetIfDoubted()
	for _, id := range r.Unlisten {
		delete(q.wards, id)
	}
	for _, id := range r.Listen {
		q.wards[id] = true
	}
	for _, c := range r.Calls {
		m := message{topic: topicHivesCall, hive: c.Hive, spread: c.Spread}
		switch {
		case c.Workers:
			m.topic = topicCall
		case c.Hive != "":
			m.topic = topicHiveCall
		}
		q.emit(&m)
	}
	carry(q, r.Signals)
	for i := range r.Puts {
		q.offer(&r.Puts[i])
	}
	q.warm = q.warm || r.Serve
	if r.Read {
		q.readLedger()
	}
	ops := slices.Clone(r.Ops)
	if q.timer < 0 || since(r.Wake) < q.timer {
		q.timerN++
		n := q.timerN
		q.timer = max(since(r.Wake), q.w.now)
		q.when(q.timer, func() {
			if q.timerN == n {
				q.timer = -1
				q.drive(func(now time.Time) { q.core.Tick(now, q.drops) })
			}
		})
	}
	for _, op := range ops {
		if op.Kind == queencore.OpTell {
			q.tellOut(op)
			again = true
		} else {
			q.fulfil(op)
		}
	}
	return again
}

// tellOut publishes events without JetStream.
func (q *queen) tellOut(op *queencore.Op) {
	op.Errs = make([]error, len(op.Events))
	for i := range op.Events {
		q.w.truth.wardLostByClosing(q, &op.Events[i].Data)
		q.w.store.hear(&op.Events[i])
	}
	q.core.Done(q.w.time(), op)
}

func (q *queen) handle(m *message) {
	switch m.topic {
	case topicSnapshot:
		q.gap = 0
		if v := q.view.Hive(m.hive); v != nil && v.Inc() == m.inc && m.seq > v.Seq() {
			q.gap = m.seq - v.Seq()
		}
		q.drive(func(now time.Time) { q.core.Snapshot(now, "", m.payload) })
	case topicBeat:
		q.drive(func(now time.Time) { q.core.Beat(now, m.hive, "", m.payload) })
	case topicToken, topicSettle:
		carried(q, m)
	}
}

func (q *queen) offline() { linked(q) }

func (q *queen) online() {
	linked(q)
	q.ledgerConnected()
}

func (q *queen) goodbye() { q.kill() }

// brakeSlack is how long the brake may hold a verdict back.
func (q *queen) brakeSlack() time.Duration {
	return 10*time.Second + time.Duration(q.w.plan.Hives)*time.Second/5
}

// before reports whether this queen is one that puts less into the roster.
func (q *queen) before() bool {
	for i := range q.w.plan.Before {
		if q.ident == "q"+strconv.Itoa(i+1) {
			return true
		}
	}
	return false
}

// learning notes whether an input told this queen more of a hive than it knew: that
// counts as heard now.
func (q *queen) learning(ids []string, in func(now time.Time)) {
	type seen struct{ inc, seq uint64 }
	of := func(id string) (s seen) {
		if h := q.view.Hive(id); h != nil {
			s = seen{h.Inc(), h.Seq()}
		}
		return s
	}
	was := make([]seen, len(ids))
	for i, id := range ids {
		was[i] = of(id)
	}
	in(q.w.time())
	for i, id := range ids {
		if of(id) != was[i] {
			q.told[id] = q.w.now
		}
	}
}
