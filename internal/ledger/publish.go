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

// Publish stores an event in the stream. It returns nil when the event is stored, or was
// stored before by any queen. ErrTooOld: its Time is over 50 minutes ago, and the stream
// could no longer detect a duplicate. ErrAway: no answer came, and the event may be stored
// all the same; publish it again.
func (l *Ledger) Publish(ctx context.Context, ev hivebeat.Event) error {
	body, err := ev.Encode()
	if err != nil {
		return fmt.Errorf("ledger: event %s: %w", ev.ID, err)
	}
	letter := NewLetter(&ev, body, time.Now())
	return l.publishLetter(ctx, &letter)
}

// Republish publishes the events inside a roster entry again, byte for byte, so that event
// n is out before n + 1. ErrTooOld: the entry was put over 50 minutes ago, so its event was
// published or is lost. An entry without an event is not an error.
func (l *Ledger) Republish(ctx context.Context, item RosterItem) error {
	letters, err := item.Letters()
	if err != nil {
		return err
	}
	for i := range letters {
		if err := l.publishLetter(ctx, &letters[i]); err != nil {
			return err
		}
	}
	return nil
}

// Letters returns the events inside an entry, in order, to be published again.
func (item *RosterItem) Letters() ([]Letter, error) {
	if len(item.Event) == 0 {
		return nil, nil
	}
	letters := make([]Letter, 0, len(item.Events)+1)
	for _, body := range append(item.Events[:len(item.Events):len(item.Events)], item.Event) {
		var ev hivebeat.Event
		if err := json.Unmarshal(body, &ev); err != nil {
			return nil, fmt.Errorf("ledger: event %d of the roster: %w", item.N, err)
		}
		letters = append(letters, Letter{ID: ev.ID, Hive: ev.Data.Hive, Worker: ev.Data.Worker, Kind: ev.Data.Kind, Body: body, Age: item.Stored})
	}
	return letters, nil
}

func (l *Ledger) publishLetter(ctx context.Context, letter *Letter) error {
	if err := l.checkLetter(letter); err != nil {
		return err
	}
	tctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	for pause := inProcessFirst; ; pause = min(2*pause, inProcessMost) {
		// Each try needs a new message: publishing fills its headers in.
		_, err := l.publish(tctx, l.letterMsg(letter), jetstream.WithRetryAttempts(0))
		if codeOf(err) != codeDuplicateInProgress {
			return l.letterError(ctx, letter, err)
		}
		select {
		case <-time.After(pause):
		case <-tctx.Done():
			return wrap(ctx, "event "+letter.ID, fmt.Errorf("%w: %w", err, tctx.Err()))
		}
	}
}

// checkLetter refuses an event that is invalid, too old, or cannot be sent now.
func (l *Ledger) checkLetter(letter *Letter) error {
	if err := letter.check(); err != nil {
		return fmt.Errorf("ledger: event %s: %w", letter.ID, err)
	}
	if letter.Age > tooOldEvent {
		return fmt.Errorf("ledger: event %s: %w: %v ago", letter.ID, ErrTooOld, letter.Age.Round(time.Second))
	}
	if !l.nc.IsConnected() {
		return fmt.Errorf("ledger: event %s: %w: not connected to NATS", letter.ID, ErrAway)
	}
	return nil
}

func (l *Ledger) letterMsg(letter *Letter) *nats.Msg {
	return &nats.Msg{
		Subject: l.cfg.Subjects.EventLog(letter.Hive, letter.Worker, letter.Kind),
		Header: nats.Header{
			jetstream.MsgIDHeader:          {letter.ID},
			jetstream.ExpectedStreamHeader: {l.cfg.Subjects.Stream(hivebeat.StreamEvents)},
		},
		Data: letter.Body,
	}
}

// letterError records the outcome of publishing an event, and wraps its error.
func (l *Ledger) letterError(ctx context.Context, letter *Letter, err error) error {
	if err != nil {
		err = wrap(ctx, "event "+letter.ID, err)
	}
	l.outcome(atEvents, err)
	return err
}

// check refuses an event whose ids would yield a wrong subject.
func (letter *Letter) check() error {
	if letter.ID == "" {
		return fmt.Errorf("%w: the id is empty", hivebeat.ErrID)
	}
	if err := hivebeat.CheckID("kind", string(letter.Kind)); err != nil {
		return err
	}
	if letter.Hive == "" && letter.Worker == "" {
		return nil
	}
	if err := hivebeat.CheckID("hive", letter.Hive); err != nil {
		return err
	}
	if letter.Worker == "" {
		return nil
	}
	return hivebeat.CheckID("worker", letter.Worker)
}
