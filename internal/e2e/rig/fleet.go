//go:build e2e

package rig

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Connect connects to NATS until the test ends. The connection reconnects after a cut.
func Connect(tb testing.TB, url string) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.Timeout(5*time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { tb.Logf("test connection: %v", err) }))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// Ask sends a request to any queen. It is fast enough to be called in a loop; CLI is what
// people use.
func Ask(nc *nats.Conn, verb string, req api.Request) (api.Answer, error) {
	var s hivebeat.Subjects
	b, err := json.Marshal(req)
	if err != nil {
		return api.Answer{}, err
	}
	m, err := nc.Request(s.API(verb), b, 2*time.Second)
	if err != nil {
		return api.Answer{}, err
	}
	var a api.Answer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return api.Answer{}, fmt.Errorf("%w in %q", err, m.Data)
	}
	if a.Error != nil {
		return a, fmt.Errorf("%s: %s", a.Error.Code, a.Error.Message)
	}
	return a, nil
}

// Fleet is the verdicts of a queen: hive or hive/worker → verdict.
type Fleet map[string]hivebeat.Live

// Look asks any queen for all verdicts.
func Look(nc *nats.Conn) (Fleet, error) { return look(nc, "") }

// LookAt asks one queen for all verdicts.
func LookAt(nc *nats.Conn, queen string) (Fleet, error) { return look(nc, "."+queen) }

func look(nc *nats.Conn, queen string) (Fleet, error) {
	hives, err := Ask(nc, api.VerbHives+queen, api.Request{Limit: 1000})
	if err != nil {
		return nil, err
	}
	fleet := Fleet{}
	for _, h := range hives.Hives {
		fleet[h.Hive] = h.Live
	}
	for after := ""; ; {
		page, err := Ask(nc, api.VerbWorkers+queen, api.Request{Limit: 1000, After: after})
		if err != nil {
			return nil, err
		}
		for _, w := range page.Workers {
			fleet[w.Hive+"/"+w.Worker] = w.Live
		}
		if after = page.Next; after == "" {
			return fleet, nil
		}
	}
}

func (f Fleet) String() string {
	var all []string
	for id, live := range f {
		all = append(all, id+"="+string(live))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Sees waits until a queen reports the verdicts in want. Other hives and workers are
// ignored.
func Sees(tb testing.TB, nc *nats.Conn, most time.Duration, want Fleet) {
	tb.Helper()
	Until(tb, most, "the queen to say "+want.String(), func() (bool, string) {
		fleet, err := Look(nc)
		if err != nil {
			return false, err.Error()
		}
		for id, live := range want {
			if fleet[id] != live {
				return false, fleet.String()
			}
		}
		return true, ""
	})
}

// Events collects the events on queen.events.>.
type Events struct {
	mu  sync.Mutex
	all []hivebeat.Event
}

// Listen collects events until the test ends.
func Listen(tb testing.TB, nc *nats.Conn) *Events {
	tb.Helper()
	var s hivebeat.Subjects
	e := new(Events)
	_, err := nc.Subscribe(s.Events(), func(m *nats.Msg) {
		var ev hivebeat.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			tb.Errorf("%s: %v in %q", m.Subject, err, m.Data)
			return
		}
		if ev.IsLive() { // it is published again when it is stored
			return
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, ev)
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("--- events heard:\n%s", e)
		}
	})
	return e
}

// Of returns the events of one kind about one subject, <hive> or <hive>/<worker>.
func (e *Events) Of(kind hivebeat.Kind, subject string) []hivebeat.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var of []hivebeat.Event
	for _, ev := range e.all {
		if ev.Data.Kind == kind && (subject == "" || ev.Subject == subject) {
			of = append(of, ev)
		}
	}
	return of
}

// Wait waits for an event and returns the first of its kind.
func (e *Events) Wait(tb testing.TB, most time.Duration, kind hivebeat.Kind, subject string) hivebeat.Event {
	tb.Helper()
	var first hivebeat.Event
	Until(tb, most, fmt.Sprintf("event %s of %s", kind, subject), func() (bool, string) {
		of := e.Of(kind, subject)
		if len(of) == 0 {
			return false, "heard:\n" + e.String()
		}
		first = of[0]
		return true, ""
	})
	return first
}

// Once fails the test unless exactly one event of that kind was received.
func (e *Events) Once(tb testing.TB, kind hivebeat.Kind, subject string) {
	tb.Helper()
	if of := e.Of(kind, subject); len(of) != 1 {
		tb.Errorf("event %s of %s was heard %d times, want once: %v", kind, subject, len(of), of)
	}
}

// Doubled returns the ids that were received more than once.
func (e *Events) Doubled() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := map[string]int{}
	var doubled []string
	for _, ev := range e.all {
		if seen[ev.ID]++; seen[ev.ID] == 2 {
			doubled = append(doubled, ev.ID)
		}
	}
	return doubled
}

func (e *Events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	for _, ev := range e.all {
		fmt.Fprintf(&b, "%-10s %-24s cause=%s via=%s age=%d id=%s %s\n", ev.Data.Kind, ev.Subject,
			cmp.Or(string(ev.Data.Cause), "-"), cmp.Or(ev.Data.Via, "-"), ev.Data.AgeMS, ev.ID, ev.Data.Reason)
	}
	return b.String()
}

// CLI runs a hivebeat command that ends by itself, and returns its output and its exit code.
func CLI(tb testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	tb.Helper()
	return Run(tb, env, append([]string{Hivebeat(tb)}, args...)...)
}

// Run is CLI for any program.
func Run(tb testing.TB, env []string, argv ...string) (stdout, stderr string, code int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(Env(tb), env...)
	var out, err strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &err
	runErr := cmd.Run()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		tb.Fatalf("%s: %v\n%s", strings.Join(argv, " "), runErr, err.String())
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}
