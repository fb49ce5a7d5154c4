package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/doctor"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

type watchCmd struct {
	AskFlags
}

// Help is shown below the usage.
func (watchCmd) Help() string {
	return `In a terminal it shows the fleet and redraws in place. Otherwise, and with -o json, it prints
events as they come, one per line: with -o json as the CloudEvents that were published.`
}

const (
	redrawEvery = time.Second           // and promptly on an event
	gatherFor   = 50 * time.Millisecond // events that arrive within this are drawn together
	eventsKept  = 200                   // as many as the tallest terminal shows
	eventsAhead = 1024                  // that may wait to be shown; more are counted as dropped
)

// Run watches until a signal comes.
func (cmd *watchCmd) Run(ctx context.Context, c *console) error {
	ctx, stop := c.untilSignal(ctx)
	defer stop()
	w := &watch{console: c, paint: c.paint(cmd.Color), deaf: make(chan error, 1)}
	connecting, cancel := context.WithTimeout(ctx, cmd.Timeout)
	defer cancel()
	a, err := cmd.open(connecting, "watch", min(cmd.Timeout, 2*time.Second))
	if err != nil {
		return err
	}
	defer a.nc.Close()
	w.asker = a.view()
	defer w.denials.listen(w.refused)()
	if w.feed, err = a.listen(connecting); err != nil {
		return err
	}
	switch {
	case cmd.json():
		return w.lines(ctx, eventJSON)
	case c.outTerm < 0:
		return w.lines(ctx, w.printText)
	}
	return w.redraw(ctx)
}

// watch shows the fleet and its events.
type watch struct {
	*asker
	*feed
	console *console
	paint   show.Paint
	deaf    chan error // receives the error that ends the events

	mu     sync.Mutex
	denied string // the last permission error
}

func (w *watch) refused(err error) {
	// The $SRV subjects only show whether a queen is starting, so they may be denied.
	if !strings.Contains(err.Error(), `"$SRV.`) {
		w.mu.Lock()
		w.denied = err.Error()
		w.mu.Unlock()
		if strings.Contains(err.Error(), fmt.Sprintf("Subscription to %q", w.subjects.Events())) {
			select {
			case w.deaf <- denied(err, doctor.Viewer):
			default: // one error is enough
			}
		}
	}
}

// lines prints events as they arrive.
func (w *watch) lines(ctx context.Context, line func([]byte) ([]byte, error)) error {
	told := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.deaf:
			return err
		case m := <-w.messages:
			if notStored(m.Data) {
				continue
			}
			b, err := line(m.Data)
			if err != nil {
				fmt.Fprintf(w.console.err, "hivebeat: warning: a message on %s is not an event: %s\n", oneLine(m.Subject), oneLine(err.Error()))
				continue
			}
			if _, err := w.console.out.Write(append(b, '\n')); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		if dropped, _ := w.sub.Dropped(); dropped > told {
			told = dropped
			fmt.Fprintf(w.console.err, "hivebeat: warning: %d events arrived too fast and are not shown\n", dropped)
		}
	}
}

// notStored reports whether b is the live copy of an event, which is published again when
// it is stored.
func notStored(b []byte) bool {
	var e hivebeat.Event
	return json.Unmarshal(b, &e) == nil && e.IsLive()
}

// eventJSON returns the event as it was published, on one line.
func eventJSON(b []byte) ([]byte, error) {
	var out bytes.Buffer
	err := json.Compact(&out, b)
	return plaintext.JSON(out.Bytes()), err
}

func (w *watch) printText(b []byte) ([]byte, error) {
	var e hivebeat.Event
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	return []byte(show.Event(&e, time.Local, w.paint)), nil
}

// result is the result of one round of requests.
type result struct {
	fleet *show.Fleet
	err   error
}

// redraw shows the fleet in place until ctx ends. Requests run in the background, so that a
// queen that does not answer does not stop the clock.
func (w *watch) redraw(ctx context.Context) error {
	c := w.console
	c.takeTerminal(func() { fmt.Fprint(c.out, show.CloseScreen) })
	defer c.leaveTerminal()
	fmt.Fprint(c.out, show.OpenScreen)

	ctx, cancel := context.WithCancel(ctx)
	answers, asks := make(chan result), make(chan int, 1)
	var asking sync.WaitGroup
	asking.Go(func() { w.keepAsking(ctx, asks, answers) })
	defer asking.Wait()
	defer cancel()

	s := &screen{where: w.where(), began: time.Now(), paint: w.paint}
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	gather := time.NewTimer(0)
	defer gather.Stop()
	gathering := true
	for {
		ask := false
		select {
		case <-ctx.Done():
			return nil
		case m := <-w.messages:
			if s.event(m.Data) && !gathering {
				gathering = true
				gather.Reset(gatherFor)
			}
			continue
		case <-gather.C:
			gathering, ask = false, true
		case <-tick.C:
			ask = true
		case n := <-answers:
			s.answer(n, time.Now())
		}
		width, height := c.size()
		if ask {
			select {
			case asks <- height:
			default: // a round is running already
			}
		}
		s.dropped, _ = w.sub.Dropped()
		s.denied = w.lastDenied()
		if _, err := fmt.Fprint(c.out, show.Screen(s.frame(time.Now()).Lines(width, height), height)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}

func (w *watch) lastDenied() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.denied
}

// keepAsking runs a round of requests for each number of rows that it receives from asks.
func (w *watch) keepAsking(ctx context.Context, asks <-chan int, answers chan<- result) {
	for {
		var rows int
		select {
		case rows = <-asks:
		case <-ctx.Done():
			return
		}
		fleet, err := w.fleet(ctx, rows)
		select {
		case answers <- result{fleet, err}:
		case <-ctx.Done():
			return
		}
	}
}

func (w *watch) fleet(ctx context.Context, rows int) (*show.Fleet, error) {
	limit := max(1, min(rows, 1000))
	var sure show.Certainty
	var f show.Fleet
	for _, q := range []struct {
		verb string
		take func(*api.Answer)
	}{
		{api.VerbSummary, func(a *api.Answer) {
			if a.Summary != nil {
				f.Summary = *a.Summary
			}
		}},
		{api.VerbHives, func(a *api.Answer) { f.Hives, f.MoreHives = a.Hives, a.Next != "" }},
		{api.VerbWorkers, func(a *api.Answer) { f.Workers, f.MoreWorkers = a.Workers, a.Next != "" }},
	} {
		ans, err := w.ask(ctx, q.verb, api.Request{Limit: limit})
		if err != nil {
			return nil, err
		}
		q.take(ans)
		sure.Add(ans.Status)
	}
	f.Status = *sure.Sum()
	return &f, nil
}

// screen is the state that a frame is drawn from.
type screen struct {
	where    string
	paint    show.Paint
	began    time.Time
	answered time.Time // when fleet arrived
	fleet    *show.Fleet
	trouble  string
	denied   string
	events   []hivebeat.Event
	dropped  int
}

// stale is how old an answer may be before the next one is overdue.
const stale = redrawEvery + 2*time.Second

func (s *screen) answer(n result, now time.Time) {
	if n.err != nil {
		s.trouble = plain(n.err.Error())
		return
	}
	s.fleet, s.answered, s.trouble = n.fleet, now, ""
}

// event stores an event. It reports false for one that is known, or not an event at all.
func (s *screen) event(b []byte) bool {
	var e hivebeat.Event
	if json.Unmarshal(b, &e) != nil || e.IsLive() {
		return false
	}
	for i := range s.events {
		if s.events[i].ID == e.ID {
			return false
		}
	}
	if s.events = append(s.events, e); len(s.events) > eventsKept {
		s.events = append(s.events[:0], s.events[len(s.events)-eventsKept:]...)
	}
	return true
}

func (s *screen) frame(now time.Time) *show.Frame {
	f := &show.Frame{
		Where: s.where, Fleet: s.fleet, Trouble: s.trouble, Events: s.events, Dropped: uint64(max(0, s.dropped)),
		Zone: time.Local, Paint: s.paint, Now: now,
	}
	since := s.began
	if s.fleet != nil {
		since = s.answered
	}
	f.Age = now.Sub(since)
	if f.Trouble == "" && s.fleet != nil && f.Age > stale {
		f.Trouble = "the queen's answer is overdue"
	}
	if f.Trouble != "" && s.denied != "" {
		f.Trouble = s.denied + "; \"hivebeat doctor --role viewer\" shows which permissions are missing"
	}
	return f
}
