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
	"github.com/beatfabric/hivebeat/internal/directive"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// RosterEntry is the JSON value of a key of queen_roster: the last verdict of the queens on
// a hive, and the state of the hive when they reached it. Under brake.<zone> it is the
// state of the zone's brake: unverified while the brake is on.
type RosterEntry struct {
	V       uint64                  `json:"v"` // 1; Advance sets it
	N       uint64                  `json:"n"` // number of the event inside
	Live    hivebeat.Live           `json:"live"`
	Cause   hivebeat.Cause          `json:"cause,omitempty"`
	Inc     uint64                  `json:"inc"`
	Prior   uint64                  `json:"prior,omitempty"` // the incarnation in the roster that Inc replaced; 0: none
	Seq     uint64                  `json:"seq"`
	Every   hivebeat.Millis         `json:"every"`
	Age     hivebeat.Millis         `json:"age,omitempty"` // age of the last message that the author knew, when it put this; 0: unknown
	Zone    string                  `json:"zone,omitempty"`
	HoldMS  hivebeat.Millis         `json:"hold_ms,omitempty"`
	Workers map[string]RosterWorker `json:"workers,omitempty"` // see packed for the wire form
	Event   json.RawMessage         `json:"event,omitempty"`   // the body of event N
	// Events are the bodies of the events before Event that were announced in the same
	// step: the first has number N − len(Events).
	Events []json.RawMessage `json:"events,omitempty"`
}

// RosterWorker is the state of a worker whose hive the queens judged.
type RosterWorker struct {
	Inc   uint64         `json:"inc"`
	Live  hivebeat.Live  `json:"live"`
	Cause hivebeat.Cause `json:"cause,omitempty"`
	State hivebeat.State `json:"state,omitempty"`
	Model string         `json:"model,omitempty"`
	Seq   uint64         `json:"seq,omitempty"` // of the last message heard from it
	Via   string         `json:"via,omitempty"` // "queen" if a queen reached the verdict
	// Every is its promise, and Quiet the silence that its last message announced. Every is
	// 0 if unknown: older entries lack it.
	Every hivebeat.Millis `json:"every,omitempty"`
	Quiet hivebeat.Millis `json:"quiet,omitempty"`
	// Since is how long before the entry was put the worker was lost or left; 0 if it is
	// neither, or if that is unknown.
	Since hivebeat.Millis `json:"since,omitempty"`
	// Age is the age of its last message when the entry was put, if that is more than the
	// promise implies: its hive could not hear for a while. 0 if it is not.
	Age hivebeat.Millis `json:"age,omitempty"`
}

// RosterItem is an entry as it was read.
type RosterItem struct {
	RosterEntry
	// Revision is the revision to pass to Advance. It only grows within one Epoch.
	Revision uint64
	// Epoch is when the bucket was created, in Unix ns by the server's clock. Revisions of
	// different epochs cannot be compared.
	Epoch int64
	// Stored is how long ago Advance put it, by the server's clock alone: the age of its
	// event. A later Refresh does not change it.
	Stored time.Duration
	// Own means that a Publisher of this ledger put it and WatchRoster has not decoded it
	// again: RosterEntry is zero.
	Own bool
	// Gone means that the key was removed by hand. RosterEntry is zero, as it is for a
	// value that cannot be decoded.
	Gone bool
}

// Constants of Refresh.
const (
	refreshAfter = 20 * time.Hour
	// headerSince records when Advance put an entry that was put again since.
	headerSince = "Hivebeat-Since"
)

// Roster returns all entries by hive. It leaves out entries that were removed by hand:
// Advance takes revision 0 for them. It calls directives, unless that is nil, with what operators have said about
// hives.
func (l *Ledger) Roster(ctx context.Context, directives func(hive string, item directive.Item)) (map[string]RosterItem, error) {
	all := make(map[string]RosterItem)
	r := new(reader)
	err := r.read(ctx, l, atRoster, true, func(f found) {
		if checkKey(f.key) != nil { // of the GPUs of a hive, or of a later version
			if hive, ok := directive.HiveOf(f.key); ok && directives != nil {
				directives(hive, l.directives(f.message, hive, f.age, r.epoch))
			}
			return
		}
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

// RosterRead is one result of RostersOf. OK is false if there is no entry.
type RosterRead struct {
	Item RosterItem
	OK   bool
	Err  error
}

// RostersOf reads the entries of some hives, for use after ErrConflict.
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
	// From the leader: a replica that is behind could return the entry that just lost.
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

// brakeKeys is the prefix of the keys for the brakes of zones. It cannot start the id of a
// hive, since ids have no dot.
const brakeKeys = "brake."

// checkKey refuses a string that is not a key of the roster.
func checkKey(key string) error {
	zone, ok := strings.CutPrefix(key, brakeKeys)
	if !ok {
		return hivebeat.CheckID("hive", key)
	}
	if zone = strings.TrimPrefix(zone, "="); zone != "" && strings.Trim(zone, keyChars) != "" {
		return fmt.Errorf("%w: %q is not the key of a zone", hivebeat.ErrID, key)
	}
	return nil
}

const keyChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

// item decodes an entry. An entry that cannot be decoded is zero: the queen judges again
// and overwrites it.
func (l *Ledger) item(m message, hive string, age time.Duration, epoch int64) RosterItem {
	item := RosterItem{Revision: m.seq, Epoch: epoch, Stored: age, Gone: isMarker(m.header)}
	if item.Gone {
		return item
	}
	if err := item.decode(m.data); err != nil {
		l.cfg.Logger.Warn("cannot decode roster entry", slog.String("hive", hive), slog.Any("err", err))
		item.RosterEntry = RosterEntry{}
	}
	if since, err := time.Parse(time.RFC3339Nano, m.header.Get(headerSince)); err == nil {
		item.Stored += max(0, m.stored.Sub(since))
	}
	return item
}

// encode returns the JSON of e, with v = 1. The event bodies are JSON already and are
// inserted unchanged: compacting them again costs more than everything else.
func (e RosterEntry) encode() ([]byte, error) {
	event, events := e.Event, e.Events
	e.V, e.Event, e.Events = 1, nil, nil
	body, err := plaintext.Marshal(e.pack())
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

// overMarker puts an entry where none was expected, after that put failed with lost: the
// marker of a removed key is not an entry, but its sequence counts.
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

// putError records the outcome of a put at a revision, and wraps its error.
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

// Refresh puts every entry that was put over 20 h ago again, unchanged, so that it does not
// expire. Every queen calls it about every hour; the queens share the work. Refresh leaves
// entries that are lost or left alone: they expire after their 7 days. It returns the
// number of entries that it put.
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
		case !errors.Is(err, ErrConflict): // conflict: another queen put it
			return n, err
		}
	}
	return n, nil
}
