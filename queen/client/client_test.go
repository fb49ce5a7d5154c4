package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }

const patience = 30 * time.Second

type asked struct {
	verb string
	req  api.Request
}

// fake is a queen whose answers the test provides.
type fake struct {
	id     string
	nc     *nats.Conn
	prefix string
	subs   []*nats.Subscription
	answer func(asked) *api.Answer // nil: it does not answer

	mu    sync.Mutex
	asked []asked
	at    []string // subjects of these requests
	gone  bool
}

// serveFake runs a fake on a separate connection. It answers each request in a separate
// goroutine, so that one that waits does not delay others.
func serveFake(t *testing.T, srv *embedded.Server, id, prefix string, answer func(asked) *api.Answer) *fake {
	t.Helper()
	f := &fake{id: id, nc: bustest.Conn(t, srv), prefix: prefix, answer: answer}
	subjects, err := hivebeat.NewSubjects(strings.TrimSuffix(prefix, "."))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	hear := func(m *nats.Msg) {
		all.Go(func() {
			_, verb, _, err := subjects.ParseAPI(m.Subject)
			if err != nil {
				t.Error(err)
			}
			var r api.Request
			if err := json.Unmarshal(m.Data, &r); err != nil {
				t.Errorf("%s: %v", m.Data, err)
			}
			f.mu.Lock()
			f.asked, f.at = append(f.asked, asked{verb, r}), append(f.at, m.Subject)
			f.mu.Unlock()
			if a := answer(asked{verb, r}); a != nil && !f.isGone() {
				a.Status.Queen = id
				b, _ := json.Marshal(a)
				_ = m.Respond(b)
			}
		})
	}
	for _, of := range [][2]string{
		{subjects.Ask("", "*", id), id}, {subjects.Ask("*", "*", id), id}, {subjects.API("*"), "q"}, {subjects.Ask("*", "*", ""), "q"},
	} {
		sub, err := f.nc.QueueSubscribe(of[0], of[1], hear)
		if err != nil {
			t.Fatal(err)
		}
		f.subs = append(f.subs, sub)
	}
	bustest.Flush(t, f.nc)
	return f
}

// pong makes the fake answer pings, as a micro service does.
func (f *fake) pong(t *testing.T) {
	t.Helper()
	_, err := f.nc.Subscribe("$SRV.PING.queen", func(m *nats.Msg) {
		b, _ := json.Marshal(micro.Ping{ServiceIdentity: micro.ServiceIdentity{Name: "queen", ID: f.id, Metadata: map[string]string{"prefix": strings.TrimSuffix(f.prefix, ".")}}})
		_ = m.Respond(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, f.nc)
}

// forget clears the recorded requests.
func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.at = nil, nil
}

// leave makes the fake stop answering, and ends its subscriptions.
func (f *fake) leave(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	f.gone = true
	f.mu.Unlock()
	for _, sub := range f.subs {
		_ = sub.Unsubscribe()
	}
	bustest.Flush(t, f.nc)
}

func (f *fake) isGone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone
}

func (f *fake) questions() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// subjects returns the subjects that it was asked on, in order.
func (f *fake) subjects() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.at)
}

// newClient returns a client that never repeats a request by itself, so that the
// requests a fake gets do not depend on the speed of the machine.
func newClient(t *testing.T, srv *embedded.Server, cfg Config) *Client {
	t.Helper()
	c, err := New(bustest.Conn(t, srv), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.again = time.Hour
	return c
}

func server(t *testing.T) *embedded.Server { return bustest.Server(t, bustest.NoJetStream()) }

// full is an answer that has data for every verb.
func full(asked) *api.Answer {
	return &api.Answer{
		Summary: &api.Summary{GPUs: 3},
		Hives:   []api.HiveInfo{{Hive: "a"}},
		Workers: []api.WorkerInfo{{Hive: "a", Record: hivebeat.Record{Worker: "w"}}},
		Events:  []api.Happened{{StreamSeq: 7}},
		History: &api.History{End: 8},
		Picks:   []api.Pick{{Rank: 1, Worker: "w"}},
		Passed:  map[string]int{"late": 2},
		Holds:   []api.Hold{{ID: "job"}},
		Forgot:  &api.GPUFault{GPU: "GPU-3", State: hivebeat.GPUGone},
		Models:  []api.ModelInfo{{Model: "llama"}},

		Directive: &api.Directive{What: "drain", Hive: "a"},
		GPUs:      []api.GPUInfo{{Hive: "a"}},
	}
}

// sole returns the only value of a sequence.
func sole[T any](all iter.Seq2[T, error]) (v T, err error) {
	n := 0
	for v, err = range all {
		n++
	}
	if err == nil && n != 1 {
		err = fmt.Errorf("%d values and not one", n)
	}
	return v, err
}

// Each verb has its method, which sends just that request, below the prefix, and returns
// the data of the answer with its status.
func TestEachVerb(t *testing.T) {
	srv := server(t)
	f := serveFake(t, srv, "q1", "acme.", full)
	c := newClient(t, srv, Config{Prefix: "acme"})
	ctx := t.Context()
	st := api.Status{Queen: "q1"}
	check := func(got any, err error, want any) error {
		if d := cmp.Diff(want, got); err == nil && d != "" {
			err = fmt.Errorf("(-want +got):\n%s", d)
		}
		return err
	}
	data := full(asked{})
	work := PickRequest{
		For: api.ForWorker, Model: "m", N: 2, Slots: 3, FreeSlots: 4, FreeVRAM: 5, Hive: "a", Zone: "z", Selector: "k=v", MaxAge: 6 * time.Second, MinUptime: 7 * time.Second, Spread: api.SpreadHive,
	}
	sent := api.Request{
		For: api.ForWorker, N: 2, Slots: 3, Hive: "a", MinUptime: 7000, Spread: api.SpreadHive,
		Filter: api.Filter{Model: "m", FreeSlots: 4, FreeVRAM: 5, Zone: "z", Selector: "k=v", MaxAge: 6000},
	}
	held := sent
	held.Hold, held.HoldMS = "job", 60_000
	eu := api.Filter{Zone: "eu", Stalled: true}
	for _, c := range []struct {
		name string
		verb string
		ask  func() error
		want api.Request
	}{
		{"Summary", api.VerbSummary, func() error {
			got, err := c.Summary(ctx)
			return check(got, err, Summary{*data.Summary, st})
		}, api.Request{}},
		{"Hive", api.VerbHive, func() error {
			got, err := c.Hive(ctx, "a")
			return check(got, err, Hive{data.Hives[0], st})
		}, api.Request{Hive: "a"}},
		{"Worker", api.VerbWorker, func() error {
			got, err := c.Worker(ctx, "a", "w")
			return check(got, err, Worker{data.Workers[0], st})
		}, api.Request{Hive: "a", Worker: "w"}},
		{"Hives", api.VerbHives, func() error {
			got, err := sole(c.Hives(ctx, Query{Sort: "-age", Filter: eu, Offset: 5}))
			return check(got, err, Hive{data.Hives[0], st})
		}, api.Request{Sort: "-age", Filter: eu, Offset: 5, Limit: 500}},
		{"HivePages", api.VerbHives, func() error {
			got, err := sole(c.HivePages(ctx, Query{}))
			return check(got, err, Page[api.HiveInfo]{Rows: data.Hives, Status: st})
		}, api.Request{Limit: 500}},
		{"Workers", api.VerbWorkers, func() error {
			got, err := sole(c.Workers(ctx, Query{Hive: "a", PageSize: 7, After: "x"}))
			return check(got, err, Worker{data.Workers[0], st})
		}, api.Request{Hive: "a", Limit: 7, After: "x"}},
		{"WorkerPages", api.VerbWorkers, func() error {
			got, err := sole(c.WorkerPages(ctx, Query{}))
			return check(got, err, Page[api.WorkerInfo]{Rows: data.Workers, Status: st})
		}, api.Request{Limit: 500}},
		{"Events", api.VerbEvents, func() error {
			got, err := sole(c.Events(ctx, EventQuery{Hive: "a", Worker: "w", Kinds: []hivebeat.Kind{"lost"}, Since: time.Minute, After: "x"}))
			return check(got, err, Event{data.Events[0], st})
		}, api.Request{Hive: "a", Worker: "w", Kinds: []hivebeat.Kind{"lost"}, Since: 60_000, After: "x", Limit: 500}},
		{"EventPages", api.VerbEvents, func() error {
			got, err := sole(c.EventPages(ctx, EventQuery{Limit: 3}))
			return check(got, err, Page[api.Happened]{Rows: data.Events, Status: st})
		}, api.Request{Limit: 3}},
		{"Holds", api.VerbHolds, func() error {
			got, err := sole(c.Holds(ctx))
			return check(got, err, HeldPlace{data.Holds[0], st})
		}, api.Request{Limit: 500}},
		{"HoldPages", api.VerbHolds, func() error {
			got, err := sole(c.HoldPages(ctx))
			return check(got, err, Page[api.Hold]{Rows: data.Holds, Status: st})
		}, api.Request{Limit: 500}},
		{"History", api.VerbHistory, func() error {
			got, err := c.History(ctx, "a", 1500*time.Microsecond)
			return check(got, err, History{*data.History, st})
		}, api.Request{Hive: "a", Since: 2}},
		{"Pick", api.VerbPick, func() error {
			got, err := c.Pick(ctx, work)
			return check(got, err, Pick{data.Picks, data.Passed, st})
		}, sent},
		{"Hold", api.VerbHold, func() error {
			got, err := c.Hold(ctx, HoldRequest{PickRequest: work, ID: "job", Duration: time.Minute})
			return check(got, err, Pick{data.Picks, data.Passed, st})
		}, held},
		{"Release", api.VerbRelease, func() error {
			got, err := c.Release(ctx, "job")
			return check(got, err, Released{data.Holds, st})
		}, api.Request{Hold: "job"}},
		{"Drain", api.VerbDrain, func() error {
			got, err := c.Drain(ctx, DrainRequest{Place: Place{Hive: "a", Worker: "w"}, Reason: "why", During: time.Hour})
			return check(got, err, Drained{*data.Directive, st})
		}, api.Request{Hive: "a", Worker: "w", Reason: "why", During: 3_600_000}},
		{"Undrain", api.VerbUndrain, func() error {
			got, err := c.Undrain(ctx, Place{Hive: "a", GPU: "GPU-3"})
			return check(got, err, Drained{*data.Directive, st})
		}, api.Request{Hive: "a", GPU: "GPU-3"}},
		{"ForgetHive", api.VerbForget, func() error {
			got, err := c.ForgetHive(ctx, "a")
			return check(got, err, Hive{data.Hives[0], st})
		}, api.Request{Hive: "a"}},
		{"Silence", api.VerbSilence, func() error {
			got, err := c.Silence(ctx, SilenceRequest{Place: Place{Hive: "a", Worker: "w"}, Reason: "why", During: time.Hour})
			return check(got, err, Silenced{*data.Directive, st})
		}, api.Request{Hive: "a", Worker: "w", Reason: "why", During: 3_600_000}},
		{"Unsilence", api.VerbUnsilence, func() error {
			got, err := c.Unsilence(ctx, Place{Hive: "a"})
			return check(got, err, Silenced{*data.Directive, st})
		}, api.Request{Hive: "a"}},
		{"Forget", api.VerbForget, func() error {
			got, err := c.Forget(ctx, "a", "GPU-3")
			return check(got, err, Forgot{*data.Forgot, st})
		}, api.Request{Hive: "a", GPU: "GPU-3"}},
		{"Models", api.VerbModels, func() error {
			for got, err := range c.Models(ctx, "l*") {
				return check(got, err, Model{data.Models[0], st})
			}
			return errors.New("nothing came")
		}, api.Request{Filter: api.Filter{Model: "l*"}, Limit: 500}},
		{"GPUs", api.VerbGPUs, func() error {
			for got, err := range c.GPUs(ctx, Query{Hive: "a", Filter: eu}) {
				return check(got, err, GPU{data.GPUs[0], st})
			}
			return errors.New("nothing came")
		}, api.Request{Hive: "a", Filter: eu, Limit: 500}},
		{"Watch", api.VerbWatch, func() error {
			for got, err := range c.Watch(ctx, WatchQuery{Hive: "a", Filter: eu, Kinds: []hivebeat.Kind{"lost"}, Only: []string{"hives"}, After: "x", Limit: 9}) {
				return check(got, err, Changes{Hives: data.Hives, Workers: data.Workers, Events: data.Events, Summary: data.Summary, Status: st})
			}
			return errors.New("nothing came")
		}, api.Request{Hive: "a", Filter: eu, Kinds: []hivebeat.Kind{"lost"}, Only: []string{"hives"}, After: "x", Wait: 5000, Limit: 9}},
	} {
		if err := c.ask(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		all := f.questions()
		if d := cmp.Diff(asked{c.verb, c.want}, all[len(all)-1], cmp.AllowUnexported(asked{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	for _, verb := range api.Verbs() {
		if !slices.ContainsFunc(f.questions(), func(q asked) bool { return q.verb == verb }) {
			t.Errorf("no method asks %s", verb)
		}
	}
}

// Where nothing fits, that is an error, and why is in the result.
func TestNothingFits(t *testing.T) {
	srv := server(t)
	serveFake(t, srv, "q1", "", func(asked) *api.Answer {
		return &api.Answer{Picks: []api.Pick{}, Passed: map[string]int{"late": 2, "busy": 1}}
	})
	c := newClient(t, srv, Config{})
	want := Pick{Places: []api.Pick{}, Passed: map[string]int{"late": 2, "busy": 1}, Status: api.Status{Queen: "q1"}}
	for verb, ask := range map[string]func() (Pick, error){
		api.VerbPick: func() (Pick, error) { return c.Pick(t.Context(), PickRequest{}) },
		api.VerbHold: func() (Pick, error) { return c.Hold(t.Context(), HoldRequest{ID: "job"}) },
	} {
		p, err := ask()
		if text := "client: " + verb + ": nothing fits (passed over: 1 busy, 2 late)"; !errors.Is(err, ErrNothingFits) || err.Error() != text {
			t.Errorf("%v, not %s", err, text)
		}
		if d := cmp.Diff(want, p); d != "" {
			t.Errorf("%s (-want +got):\n%s", verb, d)
		}
	}
}

// A refused request has no data, but the status of the answer, whatever the method.
func TestARefusalHasItsStatus(t *testing.T) {
	srv := server(t)
	serveFake(t, srv, "q1", "", func(q asked) *api.Answer {
		a := full(q)
		a.Status.Unsure, a.Error = []string{"young"}, &api.Error{Code: api.CodeNotFound, Message: "because"}
		return a
	})
	c := newClient(t, srv, Config{})
	ctx := t.Context()
	for name, ask := range map[string]func() (api.Status, error){
		"Summary":     func() (api.Status, error) { v, err := c.Summary(ctx); return v.Status, err },
		"Hive":        func() (api.Status, error) { v, err := c.Hive(ctx, "a"); return v.Status, err },
		"Worker":      func() (api.Status, error) { v, err := c.Worker(ctx, "a", "w"); return v.Status, err },
		"History":     func() (api.Status, error) { v, err := c.History(ctx, "a", 0); return v.Status, err },
		"Hives":       func() (api.Status, error) { v, err := sole(c.Hives(ctx, Query{})); return v.Status, err },
		"HivePages":   func() (api.Status, error) { v, err := sole(c.HivePages(ctx, Query{})); return v.Status, err },
		"WorkerPages": func() (api.Status, error) { v, err := sole(c.WorkerPages(ctx, Query{})); return v.Status, err },
		"Pick":        func() (api.Status, error) { v, err := c.Pick(ctx, PickRequest{}); return v.Status, err },
		"Release":     func() (api.Status, error) { v, err := c.Release(ctx, "job"); return v.Status, err },
		"Watch":       func() (api.Status, error) { v, err := sole(c.Watch(ctx, WatchQuery{})); return v.Status, err },
	} {
		st, err := ask()
		if !errors.Is(err, ErrNotFound) || errors.Is(err, ErrNothingFits) {
			t.Errorf("%s: %v", name, err)
		}
		if st.Queen != "q1" || st.Sure() {
			t.Errorf("%s: its status is %+v", name, st)
		}
	}
}

// An answer without the data of its verb is not taken for an empty one.
func TestAnswersWithoutData(t *testing.T) {
	srv := server(t)
	serveFake(t, srv, "q1", "", func(asked) *api.Answer { return &api.Answer{} })
	c := newClient(t, srv, Config{})
	for name, ask := range map[string]func() error{
		"Summary": func() error { _, err := c.Summary(t.Context()); return err },
		"Hive":    func() error { _, err := c.Hive(t.Context(), "a"); return err },
		"Worker":  func() error { _, err := c.Worker(t.Context(), "a", "w"); return err },
		"History": func() error { _, err := c.History(t.Context(), "", 0); return err },
	} {
		if err := ask(); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A short duration does not become the default, and a negative one is refused.
func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]hivebeat.Millis{
		0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Minute: 60_000, math.MaxInt64: 9_223_372_036_855, -1: math.MaxUint64,
	} {
		if got := millis(d); got != want {
			t.Errorf("%v: %d, not %d", d, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	srv := server(t)
	var answer *api.Answer
	serveFake(t, srv, "q1", "", func(asked) *api.Answer { return answer })
	c := newClient(t, srv, Config{Timeout: 100 * time.Millisecond})
	for code, want := range map[string]error{
		api.CodeBadRequest: ErrBadRequest, api.CodeNotFound: ErrNotFound, api.CodeTooLarge: ErrTooLarge, api.CodeUnavailable: ErrUnavailable,
	} {
		answer = &api.Answer{Error: &api.Error{Code: code, Message: "because"}}
		a, err := c.Ask(t.Context(), api.VerbSummary, api.Request{})
		e, ok := errors.AsType[*Error](err)
		if !errors.Is(err, want) || !ok || e.Code != code || e.Verb != api.VerbSummary || !strings.HasSuffix(err.Error(), ": because") {
			t.Errorf("%s: %v", code, err)
		}
		if a == nil || a.Status.Queen != "q1" {
			t.Errorf("%s: the answer is lost: %+v", code, a)
		}
	}
	answer = &api.Answer{Error: &api.Error{Code: "of another version", Message: "because"}}
	if _, err := c.Summary(t.Context()); err == nil || !strings.Contains(err.Error(), "of another version: because") {
		t.Errorf("%v", err)
	}

	// A queen that is present but silent.
	answer = nil
	if _, err := c.Summary(t.Context()); !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrNoQueen) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 100ms") {
		t.Errorf("%v", err)
	}
	// If the caller's context ends, the error is its cause.
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := c.Summary(ctx); !errors.Is(err, why) || silent(err) {
		t.Errorf("%v", err)
	}
}

func TestNobodyAndNonsense(t *testing.T) {
	srv := server(t)
	c := newClient(t, srv, Config{})
	if _, err := c.Summary(t.Context()); !errors.Is(err, ErrNoQueen) || !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("%v", err)
	}
	nc := bustest.Conn(t, srv)
	if _, err := nc.Subscribe("queen.api.summary", func(m *nats.Msg) { _ = m.Respond([]byte("hello")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe("queen.api.holds", func(m *nats.Msg) {
		r := nats.NewMsg(m.Reply)
		r.Header.Set("Nats-Service-Error", "busy")
		_ = m.RespondMsg(r)
	}); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	if _, err := c.Summary(t.Context()); !errors.Is(err, ErrUnreadable) {
		t.Errorf("%v", err)
	}
	for _, err := range c.Holds(t.Context()) {
		if !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), "busy") {
			t.Errorf("%v", err)
		}
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	srv := server(t)
	nc := bustest.Conn(t, srv)
	for field, cfg := range map[string]Config{"Prefix": {Prefix: "a.b"}, "Timeout": {Timeout: -1}, "Asker": {Asker: "a.b"}} {
		if _, err := New(nc, cfg); err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("no connection is no error")
	}
}

// Rows and pages come until the last one, including empty pages, from any start, and no
// more than asked for. A sequence may be iterated again, and left at any time.
func TestPages(t *testing.T) {
	srv := server(t)
	const workers, size = 25, 10
	f := serveFake(t, srv, "q1", "", func(q asked) *api.Answer {
		from := q.req.Offset
		_, _ = fmt.Sscanf(q.req.After, "w%d", &from)
		a := &api.Answer{}
		if from == 10 && q.req.After == "w10" { // its budget was used up before anything matched
			a.Next = "w11"
			return a
		}
		for i := from; i < min(workers, from+q.req.Limit); i++ {
			a.Workers = append(a.Workers, api.WorkerInfo{Record: hivebeat.Record{Worker: fmt.Sprint("w", i)}})
		}
		if n := from + len(a.Workers); n < workers {
			a.Next = fmt.Sprint("w", n)
		}
		return a
	})
	c := newClient(t, srv, Config{})
	walk := func(all iter.Seq2[Page[api.WorkerInfo], error]) (n, pages int) {
		t.Helper()
		for p, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			n, pages = n+len(p.Rows), pages+1
		}
		return n, pages
	}
	all := c.WorkerPages(t.Context(), Query{PageSize: size})
	for range 2 {
		if n, pages := walk(all); n != workers-1 || pages != 4 {
			t.Errorf("%d workers on %d pages", n, pages)
		}
	}
	if n, _ := walk(c.WorkerPages(t.Context(), Query{PageSize: size, After: "w20"})); n != 5 {
		t.Errorf("after a cursor: %d workers", n)
	}
	if n, _ := walk(c.WorkerPages(t.Context(), Query{PageSize: size, Offset: 3})); n != workers-3 {
		t.Errorf("with an offset: %d workers", n)
	}
	for limit, want := range map[int][]int{1: {1}, 9: {9}, 10: {10}, 12: {10, 2, 2}, 24: {10, 10, 10, 4}, 99: {10, 10, 10, 10}} {
		before := len(f.questions())
		var got, sizes []int
		n := 0
		for p, err := range c.WorkerPages(t.Context(), Query{PageSize: size, Limit: limit}) {
			if err != nil {
				t.Fatal(err)
			}
			n, got = n+len(p.Rows), append(got, len(p.Rows))
		}
		for _, q := range f.questions()[before:] {
			sizes = append(sizes, q.req.Limit)
		}
		if n != min(limit, workers-1) || !slices.Equal(sizes, want) {
			t.Errorf("at most %d: %v workers, asked for %v, not %v", limit, got, sizes, want)
		}
	}
	rows := c.Workers(t.Context(), Query{PageSize: size})
	for range 2 {
		n := 0
		for w, err := range rows {
			if err != nil || w.Status.Queen != "q1" {
				t.Fatalf("%+v, %v", w, err)
			}
			n++
		}
		if n != workers-1 {
			t.Errorf("%d workers one by one", n)
		}
	}
	before := len(f.questions())
	for range all {
		break
	}
	for range rows {
		break
	}
	if n := len(f.questions()) - before; n != 2 {
		t.Errorf("%d questions for two first pages", n)
	}

	stuck := serveFake(t, srv, "q2", "stuck.", func(asked) *api.Answer { return &api.Answer{Next: "w1"} })
	c = newClient(t, srv, Config{Prefix: "stuck"})
	var last error
	for _, err := range c.Workers(t.Context(), Query{}) {
		last = err
	}
	if n := len(stuck.questions()); !errors.Is(last, ErrUnreadable) || n != 2 {
		t.Errorf("pages that do not advance: %v after %d questions", last, n)
	}
}

// A program that uses the client links nats.go, the root package and queen/api, and
// nothing heavier.
func TestClientsLinkLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	const module = "github.com/beatfabric/hivebeat"
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/queen/client").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	allowed := []string{
		"github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/nats-io/nuid",
		"github.com/klauspost/compress", "golang.org/x/crypto", "golang.org/x/sys/cpu", // of nats.go
		"github.com/vmihailenco/msgpack/v5", "github.com/vmihailenco/tagparser/v2", // of the root package
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"/queen/client") {
		t.Fatalf("listed are %v", deps)
	}
	for _, dep := range deps {
		if rest, ours := strings.CutPrefix(dep, module); ours {
			if rest != "" && rest != "/internal/plaintext" && rest != "/queen/api" && rest != "/queen/client" {
				t.Errorf("it links %s", dep)
			}
			continue
		}
		if !slices.ContainsFunc(allowed, func(a string) bool { return dep == a || strings.HasPrefix(dep, a+"/") }) {
			t.Errorf("it links %s", dep)
		}
	}
}
