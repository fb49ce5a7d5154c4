package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Pauses between tries of an event that another queen is publishing at the same moment.
const (
	inProcessFirst = 5 * time.Millisecond
	inProcessMost  = 200 * time.Millisecond
)

// eventBytes is the size of a worker event in the stream, with its subject and headers
// (TestWhatAnEventTakes measures it). eventsEach is how many events each worker causes in a
// burst: it joins, loads and is ready.
const (
	eventBytes = 700
	eventsEach = 3
)

// BurstBytes estimates the space in the stream for the events of workers that all join.
func BurstBytes(workers int) int64 { return int64(workers) * eventsEach * eventBytes }

// EventMsgs returns the events inside an entry, in order, to be published again, so that
// event n is out before n + 1. An entry without an event has none.
func (item *RosterItem) EventMsgs() ([]EventMsg, error) {
	if len(item.Event) == 0 {
		return nil, nil
	}
	msgs := make([]EventMsg, 0, len(item.Events)+1)
	for _, body := range append(item.Events[:len(item.Events):len(item.Events)], item.Event) {
		var ev hivebeat.Event
		if err := json.Unmarshal(body, &ev); err != nil {
			return nil, fmt.Errorf("ledger: event %d of the roster: %w", item.N, err)
		}
		msgs = append(msgs, EventMsg{ID: ev.ID, Hive: ev.Data.Hive, Worker: ev.Data.Worker, Kind: ev.Data.Kind, Body: body, Age: item.Stored})
	}
	return msgs, nil
}

// checkEvent refuses an event that is invalid, too old, or cannot be sent now.
func (l *Ledger) checkEvent(msg *EventMsg) error {
	if err := msg.check(); err != nil {
		return fmt.Errorf("ledger: event %s: %w", msg.ID, err)
	}
	if msg.Age > tooOldEvent {
		return fmt.Errorf("ledger: event %s: %w: %v ago", msg.ID, ErrTooOld, msg.Age.Round(time.Second))
	}
	if !l.nc.IsConnected() {
		return fmt.Errorf("ledger: event %s: %w: not connected to NATS", msg.ID, ErrAway)
	}
	return nil
}

func (l *Ledger) natsMsg(msg *EventMsg) *nats.Msg {
	return &nats.Msg{
		Subject: l.cfg.Subjects.EventLog(msg.Hive, msg.Worker, msg.Kind),
		Header: nats.Header{
			jetstream.MsgIDHeader:          {msg.ID},
			jetstream.ExpectedStreamHeader: {l.cfg.Subjects.Stream(hivebeat.StreamEvents)},
		},
		Data: msg.Body,
	}
}

// eventError records the outcome of publishing an event, and wraps its error.
func (l *Ledger) eventError(ctx context.Context, msg *EventMsg, err error) error {
	if err != nil {
		err = wrap(ctx, "event "+msg.ID, err)
	}
	l.outcome(atEvents, err)
	return err
}

// check refuses an event whose ids would yield a wrong subject.
func (msg *EventMsg) check() error {
	if msg.ID == "" {
		return fmt.Errorf("%w: the id is empty", hivebeat.ErrID)
	}
	if err := hivebeat.CheckID("kind", string(msg.Kind)); err != nil {
		return err
	}
	if msg.Hive == "" && msg.Worker == "" {
		return nil
	}
	if err := hivebeat.CheckID("hive", msg.Hive); err != nil {
		return err
	}
	if msg.Worker == "" {
		return nil
	}
	return hivebeat.CheckID("worker", msg.Worker)
}
