package webhook

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/beatfabric/hivebeat"
)

// delivery is one event to post to one URL.
type delivery struct {
	id    string
	body  []byte
	tries int       // before this one
	first time.Time // when the event was first available
	// The handler calls exactly one of these at the end. Failures to record the outcome
	// are not reported.
	done  func()
	later func(time.Duration)
	never func(why string)
}

// source hands out deliveries. run lasts until ctx ends. It makes at most
// Config.Parallel calls of tell at once.
type source interface {
	run(ctx context.Context, tell func(*delivery))
}

// target is one URL.
type target struct {
	cfg    *Config
	url    *url.URL
	name   string
	poster poster
	source source
	log    *slog.Logger

	told, failed, givenUp, dropped, waiting atomic.Uint64
	failing                                 atomic.Bool

	mu     sync.Mutex
	turned time.Time // when failing last changed
}

// turn records the outcome of a request that began at the given time, and reports
// whether it differs from the state before. A request that began before the last change
// is ignored: requests run in parallel and end in any order.
func (t *target) turn(failing bool, began time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failing.Load() == failing || began.Before(t.turned) {
		return false
	}
	t.failing.Store(failing)
	t.turned = time.Now()
	return true
}

// run posts the deliveries of the source until ctx ends. Requests end with posts.
func (t *target) run(ctx, posts context.Context) {
	t.source.run(ctx, func(d *delivery) { t.tell(posts, d) })
}

func (t *target) tell(ctx context.Context, d *delivery) {
	if silenced(d.body) {
		d.done()
		return
	}
	now := time.Now()
	f := t.poster.post(ctx, d.id, d.body, now)
	if f == nil {
		t.told.Add(1)
		if t.turn(false, now) {
			t.log.Info("webhook works again")
		}
		d.done()
		return
	}
	if ctx.Err() != nil { // not the receiver's fault: Stop was called
		d.later(0)
		return
	}
	t.failed.Add(1)
	if t.turn(true, now) {
		t.log.Warn("webhook fails: events wait for the next attempt", slog.String("err", f.what))
	}
	age := now.Sub(d.first)
	if f.gone || age >= t.cfg.GiveUp {
		t.givenUp.Add(1)
		t.log.Warn("webhook: gave up an event", slog.String("event", d.id), slog.Int("tries", d.tries+1), slog.Duration("age", age), slog.String("err", f.what))
		d.never(f.what)
		return
	}
	d.later(max(f.after, t.cfg.backoff(d.tries+1)))
}

// silenced reports whether the queen that published the event marked it as silenced by an operator.
func silenced(body []byte) bool {
	var e struct {
		Data struct {
			Silenced bool `json:"silenced"`
		} `json:"data"`
	}
	return json.Unmarshal(body, &e) == nil && e.Data.Silenced
}

// eventID returns the id of an event, from the header if it is there. It is "" if body
// is not an event.
func eventID(header string, body []byte) string {
	if header != "" {
		return header
	}
	return idOf(body)
}

// filters returns the subjects of the wanted kinds; none stands for all kinds.
func filters(s hivebeat.Subjects, kinds []hivebeat.Kind) (list []string) {
	for _, k := range kinds {
		if k == hivebeat.KindBrake {
			list = append(list, s.EventLog("", "", k))
			continue
		}
		list = append(list, s.EventLog("*", "", k), s.EventLog("*", "*", k))
	}
	return list
}
