package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Pauses between tries of an event that another queen publishes at this moment.
const (
	inProcessFirst = 5 * time.Millisecond
	inProcessMost  = 200 * time.Millisecond
)

// Publish hands an event to the stream, and returns when it is stored or was
// stored before, by whichever queen. ErrTooOld: its Time is over 50 minutes ago;
// whether it was published before could not be told any more. ErrAway: nobody
// answered; it may be stored all the same: publish it again.
func (l *Ledger) Publish(ctx context.Context, ev hivebeat.Event) error {
	body, err := ev.Encode()
	if err != nil {
		return fmt.Errorf("ledger: event %s: %w", ev.ID, err)
	}
	return l.publishEvent(ctx, ev, body, time.Since(ev.Time))
}

// Republish publishes the event inside a roster entry again, word by word: it
// makes sure of event n before n + 1 goes out. ErrTooOld: the entry was put over
// 50 minutes ago, so that its event was published, or is lost. An entry without
// an event is no error.
func (l *Ledger) Republish(ctx context.Context, item RosterItem) error {
	if len(item.Event) == 0 {
		return nil
	}
	var ev hivebeat.Event
	if err := json.Unmarshal(item.Event, &ev); err != nil {
		return fmt.Errorf("ledger: event %d of the roster: %w", item.N, err)
	}
	return l.publishEvent(ctx, ev, item.Event, item.Stored)
}

func (l *Ledger) publishEvent(ctx context.Context, ev hivebeat.Event, body []byte, age time.Duration) error {
	what := "event " + ev.ID
	if err := checkEvent(ev); err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	if age > tooOldEvent {
		return fmt.Errorf("ledger: %s: %w: %v ago", what, ErrTooOld, age.Round(time.Second))
	}
	if !l.nc.IsConnected() {
		return fmt.Errorf("ledger: %s: %w: not connected to NATS", what, ErrAway)
	}
	subject := l.cfg.Subjects.EventLog(ev.Data.Hive, ev.Data.Worker, ev.Data.Kind)
	tctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	for pause := inProcessFirst; ; pause = min(2*pause, inProcessMost) {
		// A message of its own for each try: publishing fills its headers in.
		_, err := l.publish(tctx, &nats.Msg{Subject: subject, Data: body},
			jetstream.WithMsgID(ev.ID),
			jetstream.WithExpectStream(l.cfg.Subjects.Stream(hivebeat.StreamEvents)),
			jetstream.WithRetryAttempts(0))
		if codeOf(err) != codeDuplicateInProgress {
			if err = wrap(ctx, what, err); errors.Is(err, ErrAway) {
				l.doubt()
			}
			return err
		}
		select {
		case <-time.After(pause):
		case <-tctx.Done():
			return wrap(ctx, what, fmt.Errorf("%w: %w", err, tctx.Err()))
		}
	}
}

// checkEvent refuses what would not get the subject it should have.
func checkEvent(ev hivebeat.Event) error {
	if ev.ID == "" {
		return fmt.Errorf("%w: the id is empty", hivebeat.ErrID)
	}
	if err := hivebeat.CheckID("kind", string(ev.Data.Kind)); err != nil {
		return err
	}
	if ev.Data.Hive == "" && ev.Data.Worker == "" {
		return nil
	}
	if err := hivebeat.CheckID("hive", ev.Data.Hive); err != nil {
		return err
	}
	if ev.Data.Worker == "" {
		return nil
	}
	return hivebeat.CheckID("worker", ev.Data.Worker)
}
