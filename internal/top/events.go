package top

import (
	"slices"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// eventsKept is the number of events that are held, from the subscription and from answers.
const eventsKept = 5000

// log holds events, newest first, each once.
type log struct {
	events []hivebeat.Event
	have   map[string]bool // by id
}

// add adds events and returns how many are new.
func (l *log) add(events ...hivebeat.Event) (news int) {
	if l.have == nil {
		l.have = map[string]bool{}
	}
	for i := range events {
		if e := events[i]; !l.have[e.ID] {
			l.have[e.ID] = true
			l.events = append(l.events, e)
			news++
		}
	}
	if news == 0 {
		return 0
	}
	slices.SortStableFunc(l.events, func(a, b hivebeat.Event) int { return b.Time.Compare(a.Time) })
	for len(l.events) > eventsKept {
		last := len(l.events) - 1
		delete(l.have, l.events[last].ID)
		l.events[last] = hivebeat.Event{}
		l.events = l.events[:last]
	}
	return news
}

// of returns the events that match f, newest first.
func (l *log) of(f *filter) (out []hivebeat.Event) {
	for i := range l.events {
		if f.fits(&l.events[i]) {
			out = append(out, l.events[i])
		}
	}
	return out
}

// addAll adds the events of an answer.
func (l *log) addAll(happened []api.Happened) int {
	events := make([]hivebeat.Event, len(happened))
	for i := range happened {
		events[i] = happened[i].Event
	}
	return l.add(events...)
}
