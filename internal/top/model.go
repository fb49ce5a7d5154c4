package top

import (
	"cmp"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Messages for Update.
type (
	// Tick comes once a second.
	Tick struct{}
	// Size is the size of the terminal.
	Size struct{ Width, Height int }
	// Key is a key press: the name of the key, such as "down" or "ctrl+c", and the text
	// that it types, if any.
	Key struct{ Name, Text string }
	// Answer is the answer to one question. Ans is set if the queen answered, even if it
	// rejected the request.
	Answer struct {
		Round uint64
		Question
		Ans *api.Answer
		Err error
	}
	// Done reports the end of a round of questions.
	Done struct{ Round uint64 }
	// News are events that arrived since the last News, and the number dropped so far.
	News struct {
		Events  []hivebeat.Event
		Dropped int
	}
)

// slot is a question that a round may contain.
type slot int

const (
	slotSummary slot = iota
	slotHives
	slotWorkers
	slotEvents // the newest
	slotOlder  // those before the oldest known one
	slotHive   // the open hive
	slotMine   // the workers of the open hive
	slotWorker // the open worker
)

type tab int

const (
	tabHives tab = iota
	tabWorkers
	tabEvents
	tabs
)

var tabNames = [tabs]string{"Hives", "Workers", "Events"}

// place is an open hive or worker.
type place struct{ hive, worker string }

const (
	stale     = 3 * time.Second        // an answer older than this is overdue
	atMost    = 250 * time.Millisecond // events cause questions no more often than this
	eventsDue = 10 * time.Second       // events are asked for this often, though they also arrive by themselves
	eventPage = 200
)

// Model is the state of the view. It is not safe for concurrent use.
type Model struct {
	where string
	paint show.Paint
	zone  *time.Location
	began time.Time

	width, height int
	tab           tab
	open          []place // hives and workers that are open, deepest last
	help, facts   bool
	scroll        int // offset in a page of text: help, facts, a worker

	filters [tabs]string
	parsed  [tabs]filter
	typing  bool
	typed   []rune
	wrong   string // what is wrong with the typed filter

	summary  *api.Summary
	status   map[slot]api.Status
	answered time.Time // when a queen answered last; zero: never
	trouble  string    // why no queen answers
	cutOff   bool      // no queen answered; events may have been missed

	hives   list[api.HiveInfo]
	workers list[api.WorkerInfo]
	events  list[hivebeat.Event]
	mine    list[api.WorkerInfo]

	hive     *api.HiveInfo
	worker   *api.WorkerInfo
	openAt   time.Time // when hive or worker arrived
	openErr  string    // why it did not arrive
	log      log
	asked    time.Time // when events were asked for; zero: ask at once
	next     string    // cursor of older events
	more     bool      // there are older events
	paged    bool      // next is further back than the newest page
	eventErr string
	dropped  int

	round   uint64
	asking  bool
	again   bool
	askedAt time.Time
}

// Config is the initial state of a Model.
type Config struct {
	Where  string // the NATS it is connected to
	Paint  show.Paint
	Zone   *time.Location
	Tab    string // hives, workers or events
	Filter string // the filter of Tab
}

// New returns a model, or an error that describes what is wrong with the filter.
func New(cfg Config, now time.Time) (*Model, error) {
	m := &Model{
		where: cfg.Where, paint: cfg.Paint, zone: cfg.Zone, began: now, width: 80, height: 24, status: map[slot]api.Status{},
		hives:   list[api.HiveInfo]{id: func(h *api.HiveInfo) string { return h.Hive }, keys: api.HiveSortKeys},
		workers: list[api.WorkerInfo]{id: (*api.WorkerInfo).Cursor, keys: api.WorkerSortKeys},
		mine:    list[api.WorkerInfo]{id: (*api.WorkerInfo).Cursor, keys: api.WorkerSortKeys},
		events:  list[hivebeat.Event]{id: func(e *hivebeat.Event) string { return e.ID }},
	}
	m.zone = cmp.Or(m.zone, time.UTC)
	switch cfg.Tab {
	case "workers":
		m.tab = tabWorkers
	case "events":
		m.tab = tabEvents
	}
	if err := m.setFilter(cfg.Filter); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Model) setFilter(line string) error {
	f, err := parseFilter(line, m.tab)
	if err != nil {
		return err
	}
	m.filters[m.tab], m.parsed[m.tab] = line, f
	switch m.tab {
	case tabHives:
		m.hives.reset()
	case tabWorkers:
		m.workers.reset()
	case tabEvents:
		m.events.reset()
		m.eventsAnew()
	}
	return nil
}

// eventsAnew makes the model ask for events at once, because the question has changed.
func (m *Model) eventsAnew() {
	m.asked, m.next, m.more, m.paged, m.eventErr = time.Time{}, "", false, false, ""
}

// at returns the hive or worker that is open, if there is one.
func (m *Model) at() (p place, ok bool) {
	if len(m.open) == 0 {
		return place{}, false
	}
	return m.open[len(m.open)-1], true
}

// Update processes a message.
func (m *Model) Update(msg any, now time.Time) (do Effect) {
	switch msg := msg.(type) {
	case Size:
		m.width, m.height = max(1, msg.Width), max(1, msg.Height)
	case Tick:
		if !m.asking {
			m.ask(&do, now)
		}
	case Key:
		m.key(msg, &do, now)
	case Answer:
		if msg.Round == m.round {
			m.take(&msg, now)
			m.again = m.again || m.moved()
		}
	case Done:
		if msg.Round == m.round {
			m.asking = false
			if m.again {
				m.ask(&do, now)
			}
		}
	case News:
		if msg.Dropped > m.dropped {
			m.dropped, m.asked = msg.Dropped, time.Time{}
		}
		if m.log.add(msg.Events...) > 0 && !m.asking && now.Sub(m.askedAt) >= atMost {
			m.ask(&do, now)
		}
	}
	m.layout(now)
	switch msg.(type) {
	case Key, Size: // other rows are shown: ask for them as soon as the current round ends
		switch {
		case do.Ask != nil || m.covered():
		case m.asking:
			m.again = true
		default:
			m.ask(&do, now)
		}
	}
	return do
}

// take stores an answer.
func (m *Model) take(a *Answer, now time.Time) {
	refused := ""
	none := a.Ans == nil || a.Ans.Error != nil && a.Ans.Error.Code == api.CodeUnavailable
	switch {
	case none && a.slot == slotSummary:
		m.trouble, m.cutOff = why(a), true
		return
	case a.Err != nil:
		refused = why(a)
	default:
		m.status[a.slot] = a.Ans.Status
	}
	// The summary, which starts each round, shows whether a queen is there. A queen that
	// answers the summary and not this question may have too much to look at: the error is
	// shown beside the rows.
	if !none {
		m.answered, m.trouble = now, ""
	}
	if m.cutOff && !none { // events may have been missed
		m.cutOff, m.asked = false, time.Time{}
	}
	ans, offset, limit := a.Ans, a.Req.Offset, a.Req.Limit
	if ans == nil {
		ans = &api.Answer{}
	}
	switch a.slot {
	case slotSummary:
		if ans.Summary != nil {
			m.summary = ans.Summary
		}
	case slotHives:
		takeRows(&m.hives, ans.Hives, offset, limit, m.all(ans, a), ans.Next != "", refused, now)
	case slotWorkers:
		takeRows(&m.workers, ans.Workers, offset, limit, m.all(ans, a), ans.Next != "", refused, now)
	case slotMine:
		takeRows(&m.mine, ans.Workers, offset, limit, ans.Total, ans.Next != "", refused, now)
	case slotEvents, slotOlder:
		m.tookEvents(a, refused)
	case slotHive:
		m.openErr = refused
		if len(ans.Hives) == 1 {
			m.hive, m.openAt = &ans.Hives[0], now
		}
	case slotWorker:
		m.openErr = refused
		if len(ans.Workers) == 1 {
			m.worker, m.openAt = &ans.Workers[0], now
		}
	}
}

func takeRows[T any](l *list[T], rows []T, offset, limit int, total *int, more bool, refused string, now time.Time) {
	if refused != "" {
		l.err = refused
		if l.taken.IsZero() {
			l.taken, l.exact = now, true // nothing else to wait for
		}
		return
	}
	l.take(rows, offset, limit, total, more, now)
}

// all returns the total number of rows, if it is known. Without a filter, the summary has it.
func (m *Model) all(ans *api.Answer, a *Answer) *int {
	if ans.Total != nil || m.summary == nil || m.filters[m.tab] != "" || ans.Next == "" {
		return ans.Total
	}
	n := show.Total(m.summary.Hives)
	if a.slot == slotWorkers {
		n = show.Total(m.summary.Workers)
	}
	return &n
}

func (m *Model) tookEvents(a *Answer, refused string) {
	if m.eventErr = refused; refused != "" {
		m.more = false
		return
	}
	m.log.addAll(a.Ans.Events)
	if a.slot == slotOlder || !m.paged {
		m.next, m.more = a.Ans.Next, a.Ans.Next != ""
		m.paged = m.paged || a.slot == slotOlder
	}
}

// why returns the reason for a missing or rejected answer.
func why(a *Answer) string {
	if a.Err == nil {
		return "the queen gave no reason"
	}
	return a.Err.Error()
}

// cut reports whether no queen answers, since when, and why.
func (m *Model) cut(now time.Time) (since time.Duration, text string, cut bool) {
	last := m.answered
	if last.IsZero() {
		last = m.began
	}
	since = now.Sub(last)
	switch {
	case m.trouble != "":
		return since, m.trouble, true
	case since > stale && m.answered.IsZero():
		return since, "no queen has answered yet", true
	case since > stale:
		return since, "the queen's answer is overdue", true
	}
	return since, "", false
}

// sure combines the certainty of the answers that are shown. If the rows come from another
// queen than the summary, which can happen within a round, that is a reason to be unsure.
func (m *Model) sure() api.Status {
	var sure show.Certainty
	summary, told := m.status[slotSummary]
	for _, k := range m.parts() {
		rows, ok := m.status[k]
		if !ok {
			continue
		}
		if told && rows.Queen != summary.Queen {
			rows.Unsure = append(slices.Clip(rows.Unsure), "two queens answered, "+rows.Queen+" and "+summary.Queen)
		}
		sure.Add(rows)
	}
	if told {
		sure.Add(summary)
	}
	return *sure.Sum()
}

// parts are the questions whose answers are shown besides the summary.
func (m *Model) parts() []slot {
	if p, ok := m.at(); ok {
		if p.worker != "" {
			return []slot{slotWorker}
		}
		return []slot{slotHive, slotMine}
	}
	return [][]slot{{slotHives}, {slotWorkers}, {slotEvents}}[m.tab]
}
