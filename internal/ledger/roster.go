package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// RosterEntry is the value of a key of queen_roster, as JSON: the queens' last
// verdict on a hive, and what it was when it was reached. Under brake.<zone> it is
// what they say of the zone's brake: unverified while that is on.
type RosterEntry struct {
	V       uint64                  `json:"v"` // 1; Advance sets it
	N       uint64                  `json:"n"` // number of the event inside
	Live    hivebeat.Live           `json:"live"`
	Cause   hivebeat.Cause          `json:"cause,omitempty"`
	Inc     uint64                  `json:"inc"`
	Seq     uint64                  `json:"seq"`
	Every   hivebeat.Millis         `json:"every"`
	Age     hivebeat.Millis         `json:"age,omitempty"` // of its last message that the author knew, when this was put; 0: not known
	Zone    string                  `json:"zone,omitempty"`
	HoldMS  hivebeat.Millis         `json:"hold_ms,omitempty"`
	Workers map[string]RosterWorker `json:"workers,omitempty"` // on the wire see packed
	Event   json.RawMessage         `json:"event,omitempty"`   // the body of event N
	// Events are the bodies of those before Event that were told in the same step:
	// N − len(Events) is the number of the first.
	Events []json.RawMessage `json:"events,omitempty"`
}

// RosterWorker is what the queens know of a worker whose hive they judged.
type RosterWorker struct {
	Inc   uint64         `json:"inc"`
	Live  hivebeat.Live  `json:"live"`
	Cause hivebeat.Cause `json:"cause,omitempty"`
	State hivebeat.State `json:"state,omitempty"`
	Model string         `json:"model,omitempty"`
	Seq   uint64         `json:"seq,omitempty"` // the last that was heard of it
	Via   string         `json:"via,omitempty"` // queen: the verdict is one of the queens
	// Every is its promise, and Quiet the silence that its last message announced. Every is 0
	// where that is not known: there were entries without.
	Every hivebeat.Millis `json:"every,omitempty"`
	Quiet hivebeat.Millis `json:"quiet,omitempty"`
	// Since is how long ago it was lost or left when the entry was put; 0 where it was
	// not, or that is not known.
	Since hivebeat.Millis `json:"since,omitempty"`
}

// RosterItem is an entry as it was read.
type RosterItem struct {
	RosterEntry
	// Revision is what Advance has to be given. It only grows within one Epoch.
	Revision uint64
	// Epoch is when the bucket was made, in Unix ns by the server's clock.
	// Revisions of two epochs can not be compared.
	Epoch int64
	// Stored is how long ago Advance put it, by the server's clock alone: the age
	// of its event. That Refresh put it again since does not count.
	Stored time.Duration
	// Own: a Publisher of this ledger put it, and WatchRoster has not read it again:
	// RosterEntry is zero.
	Own bool
	// Gone: the key was removed by hand. RosterEntry is zero, as it is where the
	// value can not be read.
	Gone bool
}

// Of putting entries again.
const (
	refreshAfter = 20 * time.Hour
	// headerSince keeps, in an entry that was put again, when Advance put it.
	headerSince = "Hivebeat-Since"
)

// Roster returns all entries, by hive. Those that were removed by hand are not
// among them: Advance takes revision 0 for them.
func (l *Ledger) Roster(ctx context.Context) (map[string]RosterItem, error) {
	all := make(map[string]RosterItem)
	r := new(reader)
	err := r.read(ctx, l, atRoster, true, func(f found) {
		item := l.item(f.message, f.key, f.age, r.epoch)
		if item.Gone {
			delete(all, f.key)
			return
		}
		all[f.key] = item
	})
	if err != nil {
		return nil, wrap(ctx, "read "+human(bucketStream(l.bucketOf(atRoster))), err)
	}
	return all, nil
}

// RosterOf reads one entry, after ErrConflict. ok is false where there is none.
func (l *Ledger) RosterOf(ctx context.Context, hive string) (item RosterItem, ok bool, err error) {
	r := l.RostersOf(ctx, []string{hive})[0]
	return r.Item, r.OK, r.Err
}

// RosterRead is an entry as RostersOf has read it. OK is false where there is none.
type RosterRead struct {
	Item RosterItem
	OK   bool
	Err  error
}

// RostersOf is RosterOf for many.
func (l *Ledger) RostersOf(ctx context.Context, hives []string) []RosterRead {
	out := make([]RosterRead, len(hives))
	asked := time.Now()
	info, err := l.info(ctx, bucketStream(l.bucketOf(atRoster)))
	if err != nil {
		for i, hive := range hives {
			out[i].Err = wrap(ctx, "roster of "+hive, err)
		}
		return out
	}
	var wg sync.WaitGroup
	for first := range min(rosterReads, len(hives)) {
		wg.Go(func() {
			for i := first; i < len(hives); i += rosterReads {
				out[i] = l.rosterOf(ctx, hives[i], info, asked)
			}
		})
	}
	wg.Wait()
	return out
}

// rosterReads is how many entries are read at once.
const rosterReads = 32

func (l *Ledger) rosterOf(ctx context.Context, hive string, info *jetstream.StreamInfo, asked time.Time) (r RosterRead) {
	if r.Err = checkKey(hive); r.Err != nil {
		return r
	}
	// From the leader: a replica that is behind would show again what just lost.
	m, err := l.last(ctx, atRoster, hive, true)
	if err != nil {
		r.Err = wrap(ctx, "roster of "+hive, err)
		return r
	}
	if m.seq == 0 {
		return r
	}
	age := max(0, info.TimeStamp.Add(time.Since(asked)).Sub(m.stored))
	r.Item = l.item(m, hive, age, info.Created.UnixNano())
	r.OK = !r.Item.Gone
	return r
}

// brakeKeys begin the keys of what queens say of a zone: they are no ids of hives,
// as those have no dot.
const brakeKeys = "brake."

// checkKey refuses what is no key of the roster.
func checkKey(key string) error {
	zone, ok := strings.CutPrefix(key, brakeKeys)
	if !ok {
		return hivebeat.CheckID("hive", key)
	}
	if zone = strings.TrimPrefix(zone, "="); zone != "" && strings.Trim(zone, keyChars) != "" {
		return fmt.Errorf("%w: %q is no key of a zone", hivebeat.ErrID, key)
	}
	return nil
}

const keyChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

// item reads an entry. One that can not be read is zero: the queen judges anew,
// and puts over it.
func (l *Ledger) item(m message, hive string, age time.Duration, epoch int64) RosterItem {
	item := RosterItem{Revision: m.seq, Epoch: epoch, Stored: age, Gone: isMarker(m.header)}
	if item.Gone {
		return item
	}
	if err := item.decode(m.data); err != nil {
		l.cfg.Logger.Warn("roster entry can not be read", slog.String("hive", hive), slog.Any("cause", err))
		item.RosterEntry = RosterEntry{}
	}
	if since, err := time.Parse(time.RFC3339Nano, m.header.Get(headerSince)); err == nil {
		item.Stored += max(0, m.stored.Sub(since))
	}
	return item
}

// Advance replaces the entry that was read at revision, and returns the new
// revision. Revision 0 means that there is none. ErrConflict: it is another one
// by now, and this one was not written. ErrAway: it may have been written all the
// same; read before judging again.
func (l *Ledger) Advance(ctx context.Context, hive string, revision uint64, next RosterEntry) (uint64, error) {
	if err := checkKey(hive); err != nil {
		return 0, err
	}
	body, err := next.encode()
	if err != nil {
		return 0, fmt.Errorf("ledger: roster of %s: %w", hive, err)
	}
	seq, err := l.put(ctx, hive, revision, body, nil)
	if revision == 0 && errors.Is(err, ErrConflict) {
		return l.overMarker(ctx, hive, body, err)
	}
	return seq, err
}

// encode returns the JSON of e, with v = 1. The events inside are JSON already, and
// are put in as they are: to have them compacted again costs more than all the
// rest.
func (e RosterEntry) encode() ([]byte, error) {
	event, events := e.Event, e.Events
	e.V, e.Event, e.Events = 1, nil, nil
	body, err := json.Marshal(e.pack())
	if err != nil || len(event) == 0 {
		return body, err
	}
	size := len(body) + len(event) + 32
	for _, b := range events {
		size += len(b) + 1
	}
	all := append(append(make([]byte, 0, size), body[:len(body)-1]...), `,"event":`...)
	all = append(all, event...)
	for i, b := range events {
		if i == 0 {
			all = append(all, `,"events":[`...)
		} else {
			all = append(all, ',')
		}
		all = append(all, b...)
	}
	if len(events) > 0 {
		all = append(all, ']')
	}
	return append(all, '}'), nil
}

// overMarker puts an entry where none was expected, after that failed with lost:
// the marker of a removed key is no entry, but its sequence counts.
func (l *Ledger) overMarker(ctx context.Context, hive string, body []byte, lost error) (uint64, error) {
	m, err := l.last(ctx, atRoster, hive, true)
	switch {
	case err != nil:
		return 0, wrap(ctx, "advance roster of "+hive, err)
	case m.seq == 0 || isMarker(m.header):
		return l.put(ctx, hive, m.seq, body, nil)
	}
	return 0, lost
}

func (l *Ledger) put(ctx context.Context, hive string, revision uint64, body []byte, h nats.Header) (uint64, error) {
	if !l.nc.IsConnected() {
		return 0, fmt.Errorf("ledger: advance roster of %s: %w: not connected to NATS", hive, ErrAway)
	}
	if h == nil {
		h = nats.Header{}
	}
	seq, err := l.store(ctx, &nats.Msg{Subject: l.subject(atRoster, hive), Header: h, Data: body}, revision)
	return seq, l.putError(ctx, hive, revision, err)
}

// putError tells how a put at a revision ended.
func (l *Ledger) putError(ctx context.Context, hive string, revision uint64, err error) error {
	switch {
	case conflict(err):
		err = fmt.Errorf("ledger: advance roster of %s at %d: %w", hive, revision, ErrConflict)
	case err != nil:
		err = wrap(ctx, "advance roster of "+hive, err)
	}
	l.outcome(atRoster, err)
	return err
}

// Refresh puts again, unchanged, every entry that was put over 20 h ago, so that
// it does not expire: to be called every hour or so, by every queen; they do each
// other's work. Entries that are lost or left stay as they are, and are forgotten
// when their 7 days are over. It returns how many it put.
func (l *Ledger) Refresh(ctx context.Context) (int, error) { return l.refresh(ctx, refreshAfter) }

func (l *Ledger) refresh(ctx context.Context, after time.Duration) (int, error) {
	type old struct {
		message
		hive string
	}
	var due []old
	r := new(reader)
	err := r.read(ctx, l, atRoster, true, func(f found) {
		item := l.item(f.message, f.key, f.age, r.epoch)
		if item.Live == "" || item.Live == hivebeat.Lost || item.Live == hivebeat.Left {
			return
		}
		if f.age > after && hivebeat.ValidID(f.key) {
			due = append(due, old{f.message, f.key})
		}
	})
	if err != nil {
		return 0, wrap(ctx, "read "+human(bucketStream(l.bucketOf(atRoster))), err)
	}
	n := 0
	for _, o := range due {
		since := o.header.Get(headerSince)
		if since == "" {
			since = o.stored.UTC().Format(time.RFC3339Nano)
		}
		switch _, err := l.put(ctx, o.hive, o.seq, o.data, nats.Header{headerSince: {since}}); {
		case err == nil:
			n++
		case !errors.Is(err, ErrConflict): // a conflict: it was put by another queen
			return n, err
		}
	}
	return n, nil
}
