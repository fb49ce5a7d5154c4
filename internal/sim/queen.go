package sim

import (
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/queencore"
)

var subjects, _ = hivebeat.NewSubjects("")

// queen simulates the surroundings of a real queencore.Core: its clock, the bus, and package
// ledger (ledger.go).
type queen struct {
	observer
	core *queencore.Core
	view *fleet.View // of the core

	before  bool            // it puts less into the roster, like an earlier version
	untold  bool            // it never sees connections close
	listens map[string]bool // hives whose workers' beats it receives
	doubted bool
	kept    keeper

	score index.Score
	gap   uint64 // of the current snapshot: how much higher its seq is than the last one
}

func (q *queen) start() {
	w := q.w
	q.listens = make(map[string]bool)
	if q.untold {
		q.deaf = 1
	}
	w.queens = append(w.queens, q)
	q.core = queencore.New(queencore.Config{
		ID: q.ident, Subjects: subjects, Fresh: hivebeat.Fresh, NoJetStream: w.plan.NoJetStream, Replicas: w.plan.Replicas, Random: q.rng.Float64, Debug: w.tracing,
	}, w.time())
	q.view = q.core.View()
	q.observe(q.core, func() {
		q.forgetIfDoubted()
		for q.act() {
		}
	})
	q.doubt = q.view.Doubts
	q.knows = func(l life) uint64 {
		if v := q.view.Hive(l.ident); v != nil && v.Inc() == l.inc {
			return v.Seq()
		}
		return 0
	}
	q.asking, q.braking = askWithin, 10*time.Second+time.Duration(w.plan.Hives)*time.Second/5
	q.observer.linkChanged()
	if !w.plan.NoJetStream {
		q.kept = keeper{retry: retryFirst, wrote: make(map[string]uint64), putting: make(map[string]*putting)}
		q.lookNow() // for the ledger
	}
}

// forgetIfDoubted records that a queen forgets closed connections when it starts to doubt
// its input.
func (q *queen) forgetIfDoubted() {
	if q.view.Doubts() && !q.doubted {
		q.forget()
	}
	q.doubted = q.view.Doubts()
}

// act carries out what the core asks for. It reports whether an answer has been handed back
// already.
func (q *queen) act() (again bool) {
	r := q.core.Ready(q.w.time())
	q.w.traceLogs(q.name, r.Logs)
	for i := range r.Steps {
		q.judged(&r.Steps[i])
	}
	for i := range r.Transitions {
		q.judgedAdopted(&r.Transitions[i])
	}
	q.forgetIfDoubted()
	for _, id := range r.Unlisten {
		delete(q.listens, id)
	}
	for _, id := range r.Listen {
		q.listens[id] = true
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
	q.carry(r.Signals)
	for i := range r.Puts {
		q.offer(&r.Puts[i])
	}
	if r.Read {
		q.readLedger()
	}
	if at := since(r.Wake); q.alarm < 0 || at < q.alarm {
		q.wake(at)
	}
	for _, op := range slices.Clone(r.Ops) { // an answer may change r.Ops
		if op.Kind == queencore.OpPublishPlain {
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
		q.adoptedLostByClosing(&op.Events[i].Data)
		q.w.store.hear(&op.Events[i])
	}
	q.core.Done(q.w.time(), op)
}

func (q *queen) handle(m *message) {
	switch m.topic {
	case topicToken:
		m.back()
	case topicSnapshot:
		q.gap = 0
		if known := q.knows(m.from.life); known > 0 && m.seq > known {
			q.gap = m.seq - known
		}
		q.drive(func(now time.Time) { q.core.Snapshot(now, "", m.payload) })
	case topicBeat:
		q.drive(func(now time.Time) { q.core.Beat(now, m.hive, "", m.payload) })
	}
}

func (q *queen) linkChanged() {
	q.observer.linkChanged()
	if q.up() {
		q.ledgerConnected()
	}
}

func (q *queen) sayBye() bool { return false }

// learning passes the core an input that informs it about these hives. If the core knows more
// of a hive afterwards, the hive counts as heard from now.
func (q *queen) learning(ids []string, in func(now time.Time)) {
	of := func(id string) (s [2]uint64) { // incarnation and seq
		if h := q.view.Hive(id); h != nil {
			s = [2]uint64{h.Inc(), h.Seq()}
		}
		return s
	}
	was := make([][2]uint64, len(ids))
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
