package top

import (
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Question is one request of a round.
type Question struct {
	slot slot
	Verb string
	Req  api.Request
}

// Effect is what Update asks its caller to do.
type Effect struct {
	Round   uint64     // of Ask
	Ask     []Question // in this order; answers to earlier rounds are no longer needed
	Quit    bool
	Suspend bool
}

// ask starts a round. The answers to an earlier one are no longer needed.
func (m *Model) ask(do *Effect, now time.Time) {
	m.layout(now)
	m.round++
	m.asking, m.again, m.askedAt = true, false, now
	do.Round, do.Ask = m.round, m.questions(now)
}

// moved reports whether an answer revealed the last row, which the user asked for, and its
// rows are not loaded.
func (m *Model) moved() (yes bool) {
	for _, l := range []*bool{&m.hives.moved, &m.workers.moved, &m.mine.moved} {
		yes, *l = yes || *l, false
	}
	return yes
}

// covered reports whether all rows on the screen are loaded.
func (m *Model) covered() bool {
	switch p, ok := m.at(); {
	case ok && p.worker != "":
		return true
	case !ok && m.tab == tabEvents:
		return !m.older()
	}
	return m.current().covered()
}

// older reports whether older events are needed.
func (m *Model) older() bool {
	return len(m.open) == 0 && m.tab == tabEvents && m.more && len(m.log.events) < eventsKept && m.events.top+2*m.events.height >= m.events.total
}

func (m *Model) questions(now time.Time) []Question {
	qs := []Question{{slotSummary, api.VerbSummary, api.Request{}}}
	events := api.Request{Limit: eventPage}
	if p, ok := m.at(); ok {
		events = api.Request{Hive: p.hive, Worker: p.worker, Limit: 50}
		if p.worker != "" {
			qs = append(qs, Question{slotWorker, api.VerbWorker, api.Request{Hive: p.hive, Worker: p.worker}})
		} else {
			offset, limit := m.mine.want()
			qs = append(qs, Question{slotHive, api.VerbHive, api.Request{Hive: p.hive}},
				Question{slotMine, api.VerbWorkers, api.Request{
					Hive: p.hive, Sort: m.mine.sortKey(), Offset: offset, Limit: limit,
				}})
		}
	} else {
		f := m.parsed[m.tab]
		switch m.tab {
		case tabHives:
			offset, limit := m.hives.want()
			qs = append(qs, Question{slotHives, api.VerbHives, api.Request{
				Filter: f.Filter, Sort: m.hives.sortKey(), Offset: offset, Limit: limit,
			}})
			return qs
		case tabWorkers:
			offset, limit := m.workers.want()
			qs = append(qs, Question{slotWorkers, api.VerbWorkers, api.Request{
				Hive: f.Hive, Filter: f.Filter, Sort: m.workers.sortKey(), Offset: offset, Limit: limit,
			}})
			return qs
		}
		events.Hive, events.Worker, events.Kinds = f.Hive, f.Worker, f.Kinds
	}
	if m.asked.IsZero() || now.Sub(m.asked) >= eventsDue {
		m.asked = now
		qs = append(qs, Question{slotEvents, api.VerbEvents, events})
	} else if m.older() {
		events.After = m.next
		qs = append(qs, Question{slotOlder, api.VerbEvents, events})
	}
	return qs
}
