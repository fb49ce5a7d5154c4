package top

import (
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
)

// What goes into Update.
type (
	// Tick comes once a second.
	Tick struct{}
	// Size is that of the terminal.
	Size struct{ Width, Height int }
	// Key is a key that was pressed: its name, such as "down" or "ctrl+c", and the
	// text it types, if any.
	Key struct{ Name, Text string }
	// Answer is that to one question. Ans is set if the queen answered, also where
	// she refused.
	Answer struct {
		Round uint64
		Question
		Ans *api.Answer
		Err error
	}
	// Done says that a round of questions is over.
	Done struct{ Round uint64 }
	// News are events that came by themselves, and how many came too fast so far.
	News struct {
		Events  []hivebeat.Event
		Dropped int
	}
)

// What is asked for.
type slot int

const (
	slotSummary slot = iota
	slotHives
	slotWorkers
	slotEvents // the newest
	slotOlder  // those before the oldest that is known
	slotHive   // the one that is open
	slotMine   // its workers
	slotWorker // the one that is open
)

type tab int

const (
	tabHives tab = iota
	tabWorkers
	tabEvents
	tabs
)

var tabNames = [tabs]string{"Hives", "Workers", "Events"}

// place is a hive, or a worker, that is open.
type place struct{ hive, worker string }

const (
	stale     = 3 * time.Second        // an answer that is older than this is overdue
	atMost    = 250 * time.Millisecond // events make it ask no more often than this
	eventsDue = 10 * time.Second       // events are asked for as often, though they come by themselves
	eventPage = 200
)

// Model is what is known and what is shown. It is not safe for use by several
// goroutines at once.
type Model struct {
	where string
	paint show.Paint
	zone  *time.Location
	began time.Time

	width, height int
	tab           tab
	open          []place // what was opened, deepest last
	help, facts   bool
	scroll        int // of a page of text: help, facts, a worker

	filters [tabs]string
	parsed  [tabs]filter
	typing  bool
	typed   []rune
	wrong   string // what is wrong with what was typed

	summary  *api.Summary
	status   map[slot]api.Status
	answered time.Time // when a queen answered last; zero = never
	trouble  string    // why none answers
	cutOff   bool      // it was seen to be, and there is something to catch up with

	hives   list[api.HiveInfo]
	workers list[api.WorkerInfo]
	events  list[hivebeat.Event]
	mine    list[api.WorkerInfo]

	hive     *api.HiveInfo
	worker   *api.WorkerInfo
	openAt   time.Time // when that came
	openErr  string    // why it did not
	log      log
	asked    time.Time // when events were asked for; zero = at once
	next     string    // cursor of older events
	more     bool      // there are some
	paged    bool      // next is further back than the newest page
	eventErr string
	dropped  int

	round   uint64
	asking  bool
	again   bool
	askedAt time.Time
}

// Config says what a Model begins with.
type Config struct {
	Where  string // which NATS
	Paint  show.Paint
	Zone   *time.Location
	Tab    string // hives, workers or events
	Filter string // of that tab
}

// New returns a model, or an error that says what is wrong with the filter.
func New(cfg Config, now time.Time) (*Model, error) {
	m := &Model{
		where: cfg.Where, paint: cfg.Paint, zone: cfg.Zone, began: now, width: 80, height: 24, status: map[slot]api.Status{},
		hives:   list[api.HiveInfo]{id: func(h *api.HiveInfo) string { return h.Hive }},
		workers: list[api.WorkerInfo]{id: (*api.WorkerInfo).Cursor},
		mine:    list[api.WorkerInfo]{id: (*api.WorkerInfo).Cursor},
		events:  list[hivebeat.Event]{id: func(e *hivebeat.Event) string { return e.ID }},
	}
	if m.zone == nil {
		m.zone = time.UTC
	}
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
		m.hives.anew()
	case tabWorkers:
		m.workers.anew()
	case tabEvents:
		m.events.anew()
		m.eventsAnew()
	}
	return nil
}

// eventsAnew has events asked for at once: the question is another one.
func (m *Model) eventsAnew() {
	m.asked, m.next, m.more, m.paged, m.eventErr = time.Time{}, "", false, false, ""
}

// at returns what is open, if anything is.
func (m *Model) at() (p place, ok bool) {
	if len(m.open) == 0 {
		return place{}, false
	}
	return m.open[len(m.open)-1], true
}

// Update takes a message over.
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
	case Key, Size: // what is shown is another part: ask for it as soon as the round that is out is over
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

// take takes an answer over.
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
	// Whether a queen is there tells the summary, with which each round begins. One
	// that answers it and not this may look at too much: it is told beside the rows.
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
			l.taken, l.exact = now, true // there is nothing to wait for
		}
		return
	}
	l.take(rows, offset, limit, total, more, now)
}

// all returns how many rows there are, if anybody knows: without a filter the
// summary does.
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
	m.log.told(a.Ans.Events)
	if a.slot == slotOlder || !m.paged {
		m.next, m.more = a.Ans.Next, a.Ans.Next != ""
		m.paged = m.paged || a.slot == slotOlder
	}
}

// why says why there is no answer, or none that was hoped for.
func why(a *Answer) string {
	if a.Err == nil {
		return "the queen did not say why"
	}
	return a.Err.Error()
}

// cut says whether no queen answers, since when, and why.
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

// sure adds up how sure the answers are that are shown. Rows of another queen than the
// summary, as a round of questions may have been answered by two, are a reason too.
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

// parts are what is shown beside the summary.
func (m *Model) parts() []slot {
	if p, ok := m.at(); ok {
		if p.worker != "" {
			return []slot{slotWorker}
		}
		return []slot{slotHive, slotMine}
	}
	return [][]slot{{slotHives}, {slotWorkers}, {slotEvents}}[m.tab]
}
