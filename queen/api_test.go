package queen

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

func tryRequest(nc *nats.Conn, verb string, req api.Request) (a api.Answer, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return a, err
	}
	m, err := nc.Request("queen.api."+verb, body, patience)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(m.Data, &a)
}

func TestAPI(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	closed, failed := func(*nats.Conn) {}, func(*nats.Conn, *nats.Subscription, error) {}
	nc.SetClosedHandler(closed)
	nc.SetErrorHandler(failed)
	q := startQueen(t, nc, Config{ID: "q1"})
	q.warm()
	startHive(t, nc, "h", 15*time.Second, workerOf("w"))
	q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
	client := bustest.Conn(t, srv)

	for _, verb := range api.Verbs() {
		t.Run(verb, func(t *testing.T) {
			r := map[string]api.Request{
				api.VerbHive: {Hive: "h"}, api.VerbWorker: {Hive: "h", Worker: "w"}, api.VerbHold: {Hold: "job"}, api.VerbRelease: {Hold: "job"},
				api.VerbDrain: {Hive: "h"}, api.VerbUndrain: {Hive: "h"}, api.VerbSilence: {Hive: "h", During: 60_000}, api.VerbUnsilence: {Hive: "h"},
			}[verb]
			if api.Acts(verb) && verb != api.VerbHold {
				return // there is nothing to release, to forget or to undrain
			}
			a := request(t, client, verb, r)
			if a.Error != nil || a.Status.Queen != "q1" || !a.Status.Warm || !a.Status.JetStream || len(a.Status.Unsure) != 0 || a.Status.AsOf.IsZero() {
				t.Errorf("%+v", a)
			}
			b := q.ask(verb, r)
			if (a.Summary == nil) != (b.Summary == nil) || len(a.Hives) != len(b.Hives) || len(a.Workers) != len(b.Workers) {
				t.Errorf("in process it answers otherwise: %+v, %+v", a, b)
			}
		})
	}
	t.Run("an empty payload is the zero request", func(t *testing.T) {
		m, err := client.Request("queen.api.workers", nil, patience)
		if err != nil || !strings.Contains(string(m.Data), `"worker":"w"`) {
			t.Errorf("%s %v", m.Data, err)
		}
	})
	for name, body := range map[string]string{
		"no JSON": "hello", "an unknown key": `{"modle":"llama"}`, "two values": "{} {}", "another type": `{"limit":"many"}`, "a bad id": `{"hive":"a.b"}`,
	} {
		t.Run(name, func(t *testing.T) {
			m, err := client.Request("queen.api.workers", []byte(body), patience)
			if err != nil {
				t.Fatal(err)
			}
			var a api.Answer
			if err := json.Unmarshal(m.Data, &a); err != nil || a.Error == nil || a.Error.Code != api.CodeBadRequest || a.Status.Queen != "q1" {
				t.Errorf("%s", m.Data)
			}
			if m.Header.Get(micro.ErrorCodeHeader) != api.CodeBadRequest || m.Header.Get(micro.ErrorHeader) == "" {
				t.Errorf("headers: %v", m.Header)
			}
		})
	}
	for body, want := range map[string]string{
		`{"modle":"llama"}`: `unknown key "modle"`, `{"limit":"many"}`: `key "limit" cannot be a string`,
	} {
		if _, err := api.DecodeRequest([]byte(body)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	t.Run("as a micro service", func(t *testing.T) {
		for _, subject := range []string{"$SRV.PING", "$SRV.PING.queen", "$SRV.INFO.queen", "$SRV.STATS.queen.q1"} {
			m, err := client.Request(subject, nil, patience)
			if err != nil {
				t.Fatalf("%s: %v", subject, err)
			}
			var id micro.ServiceIdentity
			if err := json.Unmarshal(m.Data, &id); err != nil || id.Name != "queen" || id.ID != "q1" || id.Version == "" {
				t.Errorf("%s: %s", subject, m.Data)
			}
		}
		m, err := client.Request("$SRV.STATS.queen", nil, patience)
		if err != nil {
			t.Fatal(err)
		}
		var stats micro.Stats
		if err := json.Unmarshal(m.Data, &stats); err != nil || len(stats.Endpoints) != len(api.Verbs()) || stats.Endpoints[2].NumRequests < 5 || stats.Endpoints[2].NumErrors != 5 {
			t.Errorf("%s", m.Data)
		}
	})
	t.Run("handlers are left alone", func(t *testing.T) {
		q.stop()
		name := func(handler any) string { return runtime.FuncForPC(reflect.ValueOf(handler).Pointer()).Name() }
		if got, want := name(nc.ClosedHandler()), name(nats.ConnHandler(closed)); got != want {
			t.Errorf("the connection was given %s for its end, and has %s", want, got)
		}
		if got, want := name(nc.ErrorHandler()), name(nats.ErrHandler(failed)); got != want {
			t.Errorf("the connection was given %s for errors, and has %s", want, got)
		}
		if nc.IsClosed() {
			t.Error("a borrowed connection was closed")
		}
		// The subscription for JetStream requests of nats.go stays, and a drained one ends in
		// its own time.
		bustest.Eventually(t, patience, func() (bool, string) {
			n := nc.NumSubscriptions()
			return n <= 2, fmt.Sprintf("%d subscriptions are left", n)
		})
	})
	t.Run("a queen that stopped", func(t *testing.T) {
		if a := q.ask(api.VerbSummary, api.Request{}); a.Error == nil || a.Error.Code != api.CodeUnavailable {
			t.Errorf("%+v", a)
		}
		if s := q.Stats(); s.Snapshots != 1 || s.Hives != 1 {
			t.Errorf("its counts are gone: %+v", s)
		}
	})
}

// TestNotWarmHoldsBack keeps a queen from becoming warm: the key is there, and the hive
// is silent.
func TestNotWarmHoldsBack(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q1.warm()
	startHive(t, bustest.Conn(t, srv), "h", time.Minute).kill()
	bustest.Eventually(t, patience, func() (bool, string) { return q1.Stats().Puts.Put == 1, "not put" })
	began := time.Now()
	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q2.eventually("known from the bucket", func() bool { return q2.live("h") != "" })
	if a := q2.ask(api.VerbSummary, api.Request{}); a.Status.Warm || len(a.Status.Unsure) == 0 {
		if time.Since(began) < 2*time.Second {
			t.Errorf("warm at once: %+v", a.Status)
		}
	} else {
		for range 20 { // the warm queen answers all requests
			if a := request(t, nc, api.VerbSummary, api.Request{}); a.Status.Queen != "q1" && time.Since(began) < 2*time.Second {
				t.Errorf("%s answered", a.Status.Queen)
			}
		}
	}
	q2.warm()
	q1.stop()
	if a := request(t, nc, api.VerbSummary, api.Request{}); a.Status.Queen != "q2" || a.Summary.Hives[hivebeat.Alive] != 1 {
		t.Errorf("%+v", a)
	}
}

func TestAnswersStayBelowMaxPayload(t *testing.T) {
	v := newView(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1, workersOf(100)...), at(0))
	ask := func(r api.Request) api.Answer { return v.answer(api.VerbWorkers, r, at(1)) }
	a, b := fitting(ask, api.VerbWorkers, api.Request{}, headroom+5000)
	if len(b) > 5000 || len(a.Workers) == 0 || a.Next != "h/"+a.Workers[len(a.Workers)-1].Worker {
		t.Errorf("%d bytes, %d workers, next %q", len(b), len(a.Workers), a.Next)
	}
	if a, _ = fitting(ask, api.VerbWorkers, api.Request{}, headroom+100); a.Error == nil || a.Error.Code != api.CodeTooLarge {
		t.Errorf("%+v", a)
	}
}

func TestRunAndStopInAnyOrder(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	ctx, cancel := shutdownContext()
	defer cancel()

	q, err := New(nc, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Stop(ctx); err != nil {
		t.Errorf("stop before run: %v", err)
	}
	if err := q.Run(ctx); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("run after stop: %v", err)
	}

	first := startQueen(t, nc, Config{}) // creates the buckets once, undisturbed
	first.warm()
	first.stop()
	for range 10 {
		q, err := New(nc, Config{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := q.Run(ctx); err != nil && !errors.Is(err, hivebeat.ErrStopped) {
				t.Errorf("run: %v", err)
			}
		})
		for range 3 {
			wg.Go(func() { q.Answer(ctx, api.VerbSummary, api.Request{}) })
			wg.Go(func() { q.Stats() })
			wg.Go(func() {
				if err := q.Stop(ctx); err != nil {
					t.Errorf("stop: %v", err)
				}
			})
		}
		wg.Wait()
	}

	q = startQueen(t, nc, Config{}).Queen
	bustest.Eventually(t, patience, func() (bool, string) { return q.looping.Load(), "does not run" })
	if err := q.Run(ctx); err == nil || errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("run twice: %v", err)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	for field, cfg := range map[string]Config{
		"ID": {ID: "a.b"}, "Prefix": {Prefix: "a b"}, "Fresh": {Fresh: -1}, "Pending": {Pending: -1}, "Replicas": {Replicas: 9}, "EventsMax": {EventsMax: 5},
	} {
		if _, err := New(nc, cfg); err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("no connection")
	}
}
