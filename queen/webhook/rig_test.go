package webhook

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

const soon = 30 * time.Second

// receiver accepts webhooks; answer provides its answers.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []request
	answer func(n int, w http.ResponseWriter, r *http.Request) // n counts from 1; nil: 204
}

type request struct {
	header http.Header
	body   []byte
	status int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	r.got = append(r.got, request{header: req.Header.Clone(), body: body})
	n, answer := len(r.got), r.answer
	r.mu.Unlock()
	s := &status{ResponseWriter: w, code: http.StatusNoContent}
	if answer != nil {
		answer(n, s, req)
	} else {
		w.WriteHeader(s.code)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got[n-1].status = s.code
}

type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (r *receiver) set(answer func(n int, w http.ResponseWriter, r *http.Request)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) all() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// taken returns the ids that were answered with 2xx, in order.
func (r *receiver) taken() (ids []string) {
	for _, g := range r.all() {
		if g.status/100 == 2 {
			ids = append(ids, g.header.Get("Webhook-Id"))
		}
	}
	return ids
}

// await waits until exactly these were taken, in any order.
func (r *receiver) await(t testing.TB, want ...string) {
	t.Helper()
	slices.Sort(want)
	bustest.Eventually(t, soon, func() (bool, string) {
		got := r.taken()
		slices.Sort(got)
		return slices.Equal(got, want), fmt.Sprintf("taken: %v, want %v", got, want)
	})
}

func receive(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// hurry is a backoff that retries almost at once.
func hurry(int) time.Duration { return 5 * time.Millisecond }

// stored creates the stream of events, as a queen does.
func stored(t testing.TB, nc *nats.Conn) {
	t.Helper()
	subjects, err := hivebeat.NewSubjects("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(t.Context(), nc, ledger.Config{Subjects: subjects, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
}

// tell publishes events of that kind as a queen does, with ids made of name and number.
func tell(t testing.TB, nc *nats.Conn, kind hivebeat.Kind, ids ...string) {
	t.Helper()
	tellData(t, nc, hivebeat.EventData{Hive: "gpu-01", Worker: "llama", Kind: kind, To: "lost"}, ids...)
}

func tellData(t testing.TB, nc *nats.Conn, d hivebeat.EventData, ids ...string) {
	t.Helper()
	kind := d.Kind
	subjects, err := hivebeat.NewSubjects("")
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		b, err := subjects.NewEvent(id, time.Now(), d).Encode()
		if err != nil {
			t.Fatal(err)
		}
		m := &nats.Msg{Subject: subjects.EventLog("gpu-01", "llama", kind), Data: b}
		bustest.Eventually(t, soon, func() (bool, string) {
			_, err := js.PublishMsg(t.Context(), m, jetstream.WithMsgID(id))
			return err == nil, fmt.Sprint(err)
		})
	}
}

// start runs webhooks until the returned function, or the test, ends them.
func start(t testing.TB, nc *nats.Conn, cfg Config) (w *Webhooks, stop func()) {
	t.Helper()
	if cfg.backoff == nil {
		cfg.backoff = hurry
	}
	w, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := w.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return w, stop
}

// listening waits until the durable consumer of each URL exists.
func listening(t testing.TB, nc *nats.Conn, w *Webhooks) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range w.Stats() {
		bustest.Eventually(t, soon, func() (bool, string) {
			_, err := js.Consumer(t.Context(), hivebeat.StreamEvents, s.Name)
			return err == nil, fmt.Sprint(err)
		})
	}
}
