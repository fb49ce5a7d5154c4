package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// Each verb has its method, which sends just that request, below the prefix.
func TestEachVerb(t *testing.T) {
	srv := server(t)
	f := serveFake(t, srv, "q1", "acme.", func(asked) *api.Answer { return &api.Answer{} })
	c := newClient(t, srv, Config{Prefix: "acme"})
	ctx := t.Context()
	one := func(a *api.Answer, err error) error {
		if err == nil && a.Status.Queen != "q1" {
			err = fmt.Errorf("answered by %q", a.Status.Queen)
		}
		return err
	}
	first := func(all func(func(*api.Answer, error) bool)) (err error) {
		for a, e := range all {
			err = one(a, e)
		}
		return err
	}
	asking := map[string]func() error{
		api.VerbSummary: func() error { return one(c.Summary(ctx)) },
		api.VerbHive:    func() error { return one(c.Hive(ctx, "a")) },
		api.VerbWorker:  func() error { return one(c.Worker(ctx, "a", "w")) },
		api.VerbHives:   func() error { return first(c.Hives(ctx, api.Request{Sort: "-age"})) },
		api.VerbWorkers: func() error { return first(c.Workers(ctx, api.Request{Hive: "a", Limit: 7})) },
		api.VerbEvents:  func() error { return first(c.Events(ctx, api.Request{Kinds: []hivebeat.Kind{"lost"}})) },
		api.VerbHolds:   func() error { return first(c.Holds(ctx)) },
		api.VerbHistory: func() error { return one(c.History(ctx, "a", time.Minute)) },
		api.VerbPick:    func() error { return one(c.Pick(ctx, api.Request{N: 2})) },
		api.VerbHold:    func() error { return one(c.Hold(ctx, api.Request{N: 2, Hold: "job"})) },
		api.VerbRelease: func() error { return one(c.Release(ctx, "job")) },
		api.VerbWatch: func() error {
			for a, err := range c.Watch(ctx, api.Request{Only: []string{"hives"}}) {
				return one(a, err)
			}
			return errors.New("nothing came")
		},
	}
	want := map[string]api.Request{
		api.VerbSummary: {}, api.VerbHive: {Hive: "a"}, api.VerbWorker: {Hive: "a", Worker: "w"}, api.VerbHives: {Sort: "-age", Limit: 500},
		api.VerbWorkers: {Hive: "a", Limit: 7}, api.VerbEvents: {Kinds: []hivebeat.Kind{"lost"}, Limit: 500}, api.VerbHolds: {Limit: 500},
		api.VerbHistory: {Hive: "a", Since: 60000}, api.VerbPick: {N: 2}, api.VerbHold: {N: 2, Hold: "job"}, api.VerbRelease: {Hold: "job"},
		api.VerbWatch: {Only: []string{"hives"}, Wait: 5000},
	}
	for _, verb := range api.Verbs() {
		if asking[verb] == nil {
			t.Errorf("no method asks %s", verb)
			continue
		}
		if err := asking[verb](); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		got := f.questions()
		if d := cmp.Diff(asked{verb, want[verb]}, got[len(got)-1], cmp.AllowUnexported(asked{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", verb, d)
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
		a, err := c.Summary(t.Context())
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
	if _, err := c.Summary(t.Context()); !errors.Is(err, ErrNoQueen) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 100ms") {
		t.Errorf("%v", err)
	}
	// If the caller's context ends, the error is its cause.
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := c.Summary(ctx); !errors.Is(err, why) || errors.Is(err, ErrNoQueen) {
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

// Pages come until the last one, including empty ones, from any start. The sequence may
// be iterated again, and left at any time.
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
	walk := func(all func(func(*api.Answer, error) bool)) (n, pages int) {
		for a, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			n, pages = n+len(a.Workers), pages+1
		}
		return n, pages
	}
	all := c.Workers(t.Context(), api.Request{Limit: size})
	for range 2 {
		if n, pages := walk(all); n != workers-1 || pages != 4 {
			t.Errorf("%d workers on %d pages", n, pages)
		}
	}
	if n, _ := walk(c.Workers(t.Context(), api.Request{Limit: size, After: "w20"})); n != 5 {
		t.Errorf("after a cursor: %d workers", n)
	}
	if n, _ := walk(c.Workers(t.Context(), api.Request{Limit: size, Offset: 3})); n != workers-3 {
		t.Errorf("with an offset: %d workers", n)
	}
	before := len(f.questions())
	for range all {
		break
	}
	if n := len(f.questions()) - before; n != 1 {
		t.Errorf("%d questions for the first page", n)
	}

	stuck := serveFake(t, srv, "q2", "stuck.", func(asked) *api.Answer { return &api.Answer{Next: "w1"} })
	c = newClient(t, srv, Config{Prefix: "stuck"})
	var last error
	for _, err := range c.Workers(t.Context(), api.Request{}) {
		last = err
	}
	if n := len(stuck.questions()); !errors.Is(last, ErrUnreadable) || n != 2 {
		t.Errorf("pages that do not go on: %v after %d questions", last, n)
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
			if rest != "" && rest != "/queen/api" && rest != "/queen/client" {
				t.Errorf("it links %s", dep)
			}
			continue
		}
		if !slices.ContainsFunc(allowed, func(a string) bool { return dep == a || strings.HasPrefix(dep, a+"/") }) {
			t.Errorf("it links %s", dep)
		}
	}
}
