package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }

// asked is one request to a fake.
type asked struct {
	verb string
	req  api.Request
}

// fake is a queen for tests: hives with the revision of their last change.
type fake struct {
	answer func(verb string, r api.Request) *api.Answer // takes precedence over the rest if it returns an answer

	mu      sync.Mutex
	id      string
	asked   []asked
	rev     int
	hives   map[string]int // revision of the last change
	changed chan struct{}  // closed at the next change
}

func newFake() *fake {
	return &fake{id: "fake", hives: map[string]int{}, changed: make(chan struct{})}
}

// touch changes a hive.
func (f *fake) touch(hive string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	f.hives[hive] = f.rev
	close(f.changed)
	f.changed = make(chan struct{})
}

// become turns the fake into another queen, which does not know the old cursors.
func (f *fake) become(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id = id
}

// forget clears the recorded requests.
func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = nil
}

func (f *fake) last() asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return asked{}
	}
	return f.asked[len(f.asked)-1]
}

func (f *fake) status() api.Status {
	return api.Status{AsOf: time.Unix(1795690000, 0).UTC(), Queen: f.id, Warm: true, JetStream: true}
}

func (f *fake) Answer(ctx context.Context, verb string, r api.Request) api.Answer {
	f.mu.Lock()
	f.asked = append(f.asked, asked{verb, r})
	status := f.status()
	f.mu.Unlock()
	if f.answer != nil {
		if a := f.answer(verb, r); a != nil {
			a.Status = status
			return *a
		}
	}
	if verb == api.VerbWatch {
		return f.watch(ctx, r)
	}
	a := api.Answer{Status: status}
	switch verb {
	case api.VerbSummary:
		a.Summary = &api.Summary{Hives: map[hivebeat.Live]int{hivebeat.Alive: 2}}
	case api.VerbHive, api.VerbWorker:
		a.Error = &api.Error{Code: api.CodeNotFound, Message: "no hive " + r.Hive + " is known"}
	}
	return a
}

func (f *fake) watch(ctx context.Context, r api.Request) api.Answer {
	timer := time.NewTimer(r.Wait.Duration())
	defer timer.Stop()
	over := false
	for {
		f.mu.Lock()
		a, fits := f.since(r)
		changed := f.changed
		f.mu.Unlock()
		if fits || over || r.Wait == 0 {
			return a
		}
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			return api.Answer{Status: f.status(), Error: &api.Error{Code: api.CodeUnavailable, Message: ctx.Err().Error()}}
		}
	}
}

// since returns what changed after the cursor of r, in pages of r.Limit.
func (f *fake) since(r api.Request) (a api.Answer, fits bool) {
	a.Status = f.status()
	queen, text, _ := strings.Cut(r.After, ".")
	after, _ := strconv.Atoi(text)
	if r.After != "" && queen != f.id {
		a.Resync, after, fits = "this is another queen", 0, true
	}
	next := after
	for rev := after + 1; rev <= f.rev; rev++ {
		for id, of := range f.hives {
			if of == rev {
				a.Hives, fits = append(a.Hives, api.HiveInfo{Hive: id, Seq: uint64(rev), Live: hivebeat.Alive}), true
			}
		}
		next = rev
		if len(a.Hives) == cmp.Or(r.Limit, 200) {
			a.More = rev < f.rev
			break
		}
	}
	a.Next = fmt.Sprintf("%s.%d", f.id, next)
	return a, fits
}

// statusOnly is a queen whose answers hold only a status.
type statusOnly func(*api.Status)

func (f statusOnly) Answer(context.Context, string, api.Request) (a api.Answer) {
	f(&a.Status)
	return a
}

// serve runs a server on its own port until the test ends.
func serve(t *testing.T, backend Backend, cfg Config) (*Server, string) {
	t.Helper()
	cfg.Addr = cmp.Or(cfg.Addr, "127.0.0.1:0")
	s, err := New(backend, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, ln)
	return s, "http://" + ln.Addr().String()
}

func run(t *testing.T, s *Server, ln net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// reply is an answer with its whole body.
type reply struct {
	code   int
	header http.Header
	body   string
}

// ask sends one request. Headers have the form "Name: value"; Host is one of them.
func ask(t *testing.T, method, url, body string, headers ...string) reply {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			q.Host = value
		}
		q.Header.Add(name, value)
	}
	c := &http.Client{
		Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	a, err := c.Do(q)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return reply{a.StatusCode, a.Header, string(b)}
}
