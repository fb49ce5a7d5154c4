package query

import (
	"cmp"
	"errors"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	// KeepEvents is how many events stay in memory.
	KeepEvents = 10_000
	keepRevs   = 1 << 16 // revisions of dropped events that are kept, to count how many a watcher missed
)

// Arrival is an event and the revision of the view when it came.
type Arrival struct {
	Rev      uint64 // 0: it came before this queen began
	order    uint64 // order of arrival, for events that were never stored
	Happened api.Happened
}

// Events holds the newest events. Pages list them by their place in the stream; watchers
// follow them in the order of arrival.
type Events struct {
	list    []*Arrival // oldest first
	ids     map[string]struct{}
	arrived []*Arrival // by revision
	dropped []uint64   // revisions of earlier arrivals, oldest first
	n       uint64
}

// Add takes an event, and reports whether it is new. A new event gets its revision from
// bump, or 0 if bump is nil.
func (e *Events) Add(h api.Happened, bump func() uint64) bool {
	if e.ids == nil {
		e.ids = make(map[string]struct{})
	}
	if _, ok := e.ids[h.ID]; ok || h.ID == "" {
		return false
	}
	if len(e.list) >= KeepEvents && h.StreamSeq > 0 && h.StreamSeq < e.list[0].Happened.StreamSeq {
		return false // older than every event that is kept
	}
	e.ids[h.ID] = struct{}{}
	e.n++
	a := &Arrival{order: e.n, Happened: h}
	at := len(e.list)
	if h.StreamSeq > 0 {
		for at > 0 && e.list[at-1].Happened.StreamSeq > h.StreamSeq {
			at--
		}
	}
	e.list = slices.Insert(e.list, at, a)
	if len(e.list) > KeepEvents {
		delete(e.ids, e.list[0].Happened.ID)
		e.list[0] = nil
		e.list = e.list[1:]
	}
	if bump == nil {
		return true
	}
	a.Rev = bump()
	e.arrived = append(e.arrived, a)
	if len(e.arrived) > KeepEvents {
		if len(e.dropped) >= keepRevs {
			e.dropped = slices.Delete(e.dropped, 0, keepRevs/4)
		}
		e.dropped = append(e.dropped, e.arrived[0].Rev)
		e.arrived[0] = nil
		e.arrived = e.arrived[1:]
	}
	return true
}

// Last returns the stream sequence of the newest event; 0 if there is none.
func (e *Events) Last() uint64 {
	for i := len(e.list) - 1; i >= 0; i-- {
		if s := e.list[i].Happened.StreamSeq; s > 0 {
			return s
		}
	}
	return 0
}

// First returns the stream sequence of the oldest event that is kept; 0 if there is none.
func (e *Events) First() uint64 {
	for _, a := range e.list {
		if s := a.Happened.StreamSeq; s > 0 {
			return s
		}
	}
	return 0
}

// Since returns the arrivals later than rev, in order, and how many others are no longer
// kept. If rev is very old, there may be more.
func (e *Events) Since(rev uint64) ([]*Arrival, uint64) {
	at := sort.Search(len(e.arrived), func(i int) bool { return e.arrived[i].Rev > rev })
	if at > 0 || len(e.dropped) == 0 {
		return e.arrived[at:], 0
	}
	gone := sort.Search(len(e.dropped), func(i int) bool { return e.dropped[i] > rev })
	return e.arrived, uint64(len(e.dropped) - gone)
}

// EventFilter selects events.
type EventFilter struct {
	Hive, Worker string
	Kinds        []hivebeat.Kind
	NotBefore    time.Time // zero: any time
}

// EventFilterOf reads the filter of a request.
func EventFilterOf(r *api.Request, now time.Time) EventFilter {
	f := EventFilter{Hive: r.Hive, Worker: r.Worker, Kinds: r.Kinds}
	if r.Since > 0 {
		f.NotBefore = now.Add(-min(r.Since, maxAge).Duration())
	}
	return f
}

// Fits reports whether the filter selects an event.
func (f *EventFilter) Fits(ev *hivebeat.Event) bool {
	d := &ev.Data
	return (f.Hive == "" || f.Hive == d.Hive) && (f.Worker == "" || f.Worker == d.Worker) &&
		(len(f.Kinds) == 0 || slices.Contains(f.Kinds, d.Kind)) && !ev.Time.Before(f.NotBefore)
}

// EventCursor is a position in the list of events, newest first: before a place in the
// stream, or among the events that were never stored.
type EventCursor struct {
	Seq   uint64 // 0: at the newest
	order uint64 // for events without a Seq
}

func (c EventCursor) String() string {
	if c.Seq == 0 && c.order > 0 {
		return "-" + strconv.FormatUint(c.order, 10)
	}
	return strconv.FormatUint(c.Seq, 10)
}

// ParseEventCursor reads the after of a request for events.
func ParseEventCursor(after string) (c EventCursor, err error) {
	if after == "" {
		return c, nil
	}
	digits, unstored := strings.CutPrefix(after, "-")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n == 0 {
		return c, errors.New("after must be the next of the previous answer")
	}
	if unstored {
		c.order = n
	} else {
		c.Seq = n
	}
	return c, nil
}

// Page adds to the answer the events that fit and come after the cursor, newest first, up
// to limit. It returns where the list continues, and whether it reached the last event that
// is kept.
func (e *Events) Page(a *api.Answer, f *EventFilter, c EventCursor, limit int) (next EventCursor, end bool) {
	at := len(e.list)
	switch {
	case c.Seq > 0:
		at = sort.Search(len(e.list), func(i int) bool { return e.list[i].Happened.StreamSeq >= c.Seq })
	case c.order > 0:
		at = sort.Search(len(e.list), func(i int) bool { return e.list[i].order >= c.order })
	}
	for i := at - 1; i >= 0; i-- {
		x := e.list[i]
		if len(a.Events) >= limit {
			return c, false
		}
		if f.Fits(&x.Happened.Event) {
			a.Events = append(a.Events, x.Happened)
		}
		c = EventCursor{Seq: x.Happened.StreamSeq, order: cmp.Or(x.order, 1)}
	}
	return c, true
}
