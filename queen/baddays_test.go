package queen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestNATSGoneAndBack(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	proxy := bustest.NewProxy(t, srv.URL())
	q := startQueen(t, bustest.Dial(t, proxy.URL(), reconnecting()...), Config{ID: "q1"})
	q.warm()
	w := workerOf("w")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	startHive(t, nc, "lives", time.Second)
	told := startHive(t, nc, "told", time.Minute, w)
	dies := startHive(t, nc, "dies", time.Second)
	for _, id := range []string{"lives", "told", "dies"} {
		waitStored(t, nc, hivebeat.KindJoined, id, "")
	}
	waitStored(t, nc, hivebeat.KindJoined, "told", "w")

	proxy.Cut()
	q.logged("NATS is away")
	dies.kill()
	told.send(func(s *hivebeat.Snapshot) { transition(&s.Workers[0], hivebeat.KindState, "draining") })
	if a := q.ask(api.VerbSummary, api.Request{}); a.Status.Unsure == nil || a.Error != nil {
		t.Errorf("cut off, and sure: %+v", a)
	}
	// Past their deadline of 3 s no hive is judged, because it is this queen that hears
	// nothing.
	bustest.Never(t, 3500*time.Millisecond, func() (bool, string) {
		lives, dies := q.live("lives"), q.live("dies")
		return lives == hivebeat.Lost || dies == hivebeat.Lost, fmt.Sprintf("lives is %s, dies is %s", lives, dies)
	})
	proxy.Restore()
	q.logged("NATS is back")
	ev := waitStored(t, nc, hivebeat.KindLost, "dies", "")
	if !strings.Contains(ev.Data.Reason, "this queen was blind, which does not count") {
		t.Errorf("%+v", ev.Data)
	}
	told.send(nil)
	waitStored(t, nc, hivebeat.KindState, "told", "w")
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Kind == hivebeat.KindLost && ev.Data.Hive != "dies" {
			t.Errorf("%+v", ev.Data)
		}
	}
	q.eventually("sure again", func() bool { return len(q.ask(api.VerbSummary, api.Request{}).Status.Unsure) == 0 })
}

func TestNATSNotThereAtTheStart(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	proxy := bustest.NewProxy(t, srv.URL())
	proxy.Cut()
	q := startQueen(t, bustest.Dial(t, proxy.URL(), append(reconnecting(), retryOnFailedConnect())...), Config{ID: "q1"})
	q.logged("NATS is not there yet")
	if a := q.ask(api.VerbSummary, api.Request{}); a.Status.Warm || len(a.Status.Unsure) == 0 {
		t.Errorf("%+v", a.Status)
	}
	proxy.Restore()
	startHive(t, bustest.Conn(t, srv), "h", short)
	q.warm()
	q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
	q.logged("NATS is there")
}

func TestJetStreamWiped(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	lives := startHive(t, nc, "lives", time.Second)
	dies := startHive(t, nc, "dies", time.Second)
	dead := startHive(t, nc, "dead", short)
	waitStored(t, nc, hivebeat.KindJoined, "lives", "")
	waitStored(t, nc, hivebeat.KindJoined, "dies", "")
	waitStored(t, nc, hivebeat.KindJoined, "dead", "")
	dead.kill()
	waitStored(t, nc, hivebeat.KindLost, "dead", "")

	bustest.RestartEmpty(t, srv)
	q.logged("NATS is back")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	// The queen stores its memory again, and the numbers continue.
	bustest.Eventually(t, patience, func() (bool, string) {
		for bucket, keys := range map[string][]string{hivebeat.BucketRoster: {"lives", "dies", "dead"}, hivebeat.BucketHives: {"lives", "dies"}} {
			kv, err := js.KeyValue(t.Context(), bucket)
			if err != nil {
				return false, err.Error()
			}
			for _, key := range keys {
				if _, err := kv.Get(t.Context(), key); err != nil {
					return false, fmt.Sprint(bucket, " ", key, ": ", err)
				}
			}
		}
		return true, ""
	})
	dies.kill()
	if ev := waitStored(t, nc, hivebeat.KindLost, "dies", ""); ev.Data.N < 2 {
		t.Errorf("the numbers began anew: %+v", ev.Data)
	}
	for id, ev := range storedEvents(t, nc) {
		if ev.Data.Kind == hivebeat.KindJoined || ev.Data.Hive == "dead" {
			t.Errorf("told again: %s %+v", id, ev.Data)
		}
	}
	lives.kill()
}

// restartWith restarts the server of a test, on the same port and store, with or
// without JetStream.
func restartWith(t *testing.T, srv *embedded.Server, jetStream bool) *embedded.Server {
	t.Helper()
	cfg := srv.Config()
	bustest.Stop(t, srv)
	cfg.JetStream = jetStream
	var again *embedded.Server
	bustest.Eventually(t, patience, func() (bool, string) {
		var err error
		again, err = embedded.Start(t.Context(), cfg)
		return err == nil, fmt.Sprint(err)
	})
	t.Cleanup(func() { bustest.Stop(t, again) })
	return again
}

func TestJetStreamAwayAndBack(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.Configure(func(o *embedded.Options) { o.ServerName = "n1" }))
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	w := workerOf("w")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	h := startHive(t, nc, "h", time.Minute, w)
	dies := startHive(t, nc, "dies", time.Second)
	waitStored(t, nc, hivebeat.KindJoined, "h", "w")
	waitStored(t, nc, hivebeat.KindJoined, "dies", "")

	srv = restartWith(t, srv, false)
	q.logged("JetStream is away")
	q.eventually("says so", func() bool {
		s := q.ask(api.VerbSummary, api.Request{}).Status
		return !s.JetStream && len(s.Unsure) > 0
	})
	bustest.Flush(t, nc)
	h.send(func(s *hivebeat.Snapshot) { transition(&s.Workers[0], hivebeat.KindState, "draining") })
	h.send(func(s *hivebeat.Snapshot) { transition(&s.Workers[0], hivebeat.KindState, "ready") })
	dies.kill()
	q.eventually("judged all the same", func() bool { return q.live("dies") == hivebeat.Lost && q.live("h") == hivebeat.Alive })
	q.eventually("the worker's steps wait", func() bool { return q.Stats().EventsWaiting == 2 })
	q.logged("make room, and restart it")
	q.eventually("the server is named", func() bool {
		return strings.Contains(fmt.Sprint(q.ask(api.VerbSummary, api.Request{}).Status.Unsure), "JetStream is off at n1") && q.Stats().StoreTrouble == "needs_restart"
	})

	restartWith(t, srv, true)
	q.logged("JetStream is back")
	q.eventually("no server is named", func() bool { return q.Stats().StoreTrouble == "" })
	waitStored(t, nc, hivebeat.KindLost, "dies", "")
	bustest.Eventually(t, patience, func() (bool, string) {
		n := 0
		for _, ev := range storedEvents(t, nc) {
			if ev.Data.Kind == hivebeat.KindState {
				n++
			}
		}
		return n == 2, fmt.Sprint(n, " states stored")
	})
	for id, ev := range storedEvents(t, nc) {
		if ev.Data.Hive == "dies" && ev.Data.Kind == hivebeat.KindLate { // it was late, but JetStream was away
			t.Errorf("%s: hive verdicts do not wait, the difference goes out: %+v", id, ev.Data)
		}
	}
}

// While JetStream is away, a plain subscriber hears of a death within 2 s, once by id,
// and the stream stores it later under the id that the subscriber knows.
func TestADeathIsToldWhileJetStreamIsAway(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	w := workerOf("w")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	h := startHive(t, nc, "h", time.Minute, w)
	dies := startHive(t, nc, "dies", time.Second)
	waitStored(t, nc, hivebeat.KindJoined, "h", "w")
	waitStored(t, nc, hivebeat.KindJoined, "dies", "")

	srv = restartWith(t, srv, false)
	q.logged("JetStream is away")
	q.eventually("connected and sure of itself", func() bool {
		ok := false
		_ = q.do(t.Context(), func(time.Time) { ok = q.core.Hearing().Connected() && q.core.Hearing().Trusts() })
		return ok
	})
	var mu sync.Mutex
	heard, subjects := make(map[string]int), make(map[string]string)
	ids := make(map[string]string) // by subject of the event
	if _, err := nc.Subscribe("queen.events.>", func(m *nats.Msg) {
		var ev hivebeat.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			t.Errorf("%s: %v", m.Subject, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if ev.IsLive() {
			heard[ev.ID]++
			subjects[ev.ID] = m.Subject
			ids[string(ev.Data.Kind)+" "+ev.Subject] = ev.ID
		}
	}); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	told := func(what string) (id string) {
		mu.Lock()
		defer mu.Unlock()
		return ids[what]
	}
	h.send(func(s *hivebeat.Snapshot) { transition(&s.Workers[0], hivebeat.KindLost, "lost") })
	began := time.Now()
	q.eventually("the worker's death is told", func() bool { return told("lost h/w") != "" })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	dies.kill()
	q.eventually("the hive is lost", func() bool { return q.live("dies") == hivebeat.Lost })
	began = time.Now()
	q.eventually("the hive's death is told", func() bool { return told("lost dies") != "" })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}

	restartWith(t, srv, true)
	q.logged("JetStream is back")
	if ev := waitStored(t, nc, hivebeat.KindLost, "h", "w"); ev.ID != told("lost h/w") || ev.Stored != nil {
		t.Errorf("stored %+v, told %s", ev, told("lost h/w"))
	}
	if ev := waitStored(t, nc, hivebeat.KindLost, "dies", ""); ev.Provisional != told("lost dies") || ev.Stored != nil {
		t.Errorf("stored %+v, told %s", ev, told("lost dies"))
	}
	if n := countStored(t, nc, hivebeat.KindLost, "dies"); n != 1 {
		t.Errorf("stored %d times", n)
	}
	mu.Lock()
	defer mu.Unlock()
	for id, n := range heard {
		if n != 1 || !strings.HasPrefix(subjects[id], "queen.events.!live.") {
			t.Errorf("%s was told %d times, at %s", id, n, subjects[id])
		}
	}
	if len(heard) != 2 {
		t.Errorf("told: %v", ids)
	}
	if s := q.Stats(); s.EventsUnstored != 2 {
		t.Errorf("counted %d", s.EventsUnstored)
	}
}

// A full disk is named in every answer, in the log and in the counts. A death is
// announced all the same.
func TestTheDiskIsFull(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, func(c *embedded.Config) { c.JetStreamMaxStore = 2 << 20 })
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1", EventsMax: 1 << 20})
	q.warm()
	w := workerOf("w")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	h := startHive(t, nc, "h", time.Minute, w)
	waitStored(t, nc, hivebeat.KindJoined, "h", "w")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "FILL", Subjects: []string{"fill"}}); err != nil {
		t.Fatal(err)
	}
	for i := 0; err == nil; i++ {
		if _, err = js.Publish(t.Context(), "fill", make([]byte, 200<<10)); i > 20 {
			t.Fatal("it takes all")
		}
	}
	sub, err := nc.SubscribeSync("queen.events.!live.worker.h.w.lost")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	h.send(func(s *hivebeat.Snapshot) { transition(&s.Workers[0], hivebeat.KindLost, "lost") })
	if _, err := sub.NextMsg(patience); err != nil {
		t.Error(err)
	}
	q.logged("JetStream has no space")
	q.eventually("named in answers", func() bool {
		return strings.Contains(fmt.Sprint(q.ask(api.VerbSummary, api.Request{}).Status.Unsure), "no space") && q.Stats().StoreTrouble == "no_space"
	})
	if err := js.DeleteStream(t.Context(), "FILL"); err != nil {
		t.Fatal(err)
	}
	waitStored(t, nc, hivebeat.KindLost, "h", "w")
	q.eventually("over", func() bool {
		return len(q.ask(api.VerbSummary, api.Request{}).Status.Unsure) == 0 && q.Stats().StoreTrouble == ""
	})
}

func TestJetStreamDisabled(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	h := startHive(t, nc, "h", short, workerOf("w"))
	q.eventually("it goes on in memory", func() bool { return q.live("h") == hivebeat.Alive })
	q.logged("JetStream is away")
	q.logged("no JetStream")
	q.eventually("warm all the same", func() bool {
		s := q.ask(api.VerbSummary, api.Request{}).Status
		return s.Warm && !s.JetStream && len(s.Unsure) > 0
	})
	if a := request(t, nc, api.VerbWorker, api.Request{Hive: "h", Worker: "w"}); len(a.Workers) != 1 || a.Status.JetStream {
		t.Errorf("%+v", a)
	}
	h.kill()
	q.eventually("lost", func() bool { return q.live("h") == hivebeat.Lost })
}

func TestNoJetStream(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	rolls, err := nc.SubscribeSync("queen.rollcall")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1", NoJetStream: true})
	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2", NoJetStream: true})
	for range 2 {
		if m, err := rolls.NextMsg(patience); err != nil || string(m.Data) != "1000" {
			t.Errorf("roll call: %v %v", m, err)
		}
	}
	q1.eventually("warm", func() bool { return q1.ask(api.VerbSummary, api.Request{}).Status.Warm })
	w := workerOf("w")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	h := startHive(t, nc, "h", short, w)
	for _, q := range []*runningQueen{q1, q2} {
		q.eventually("alive", func() bool { return q.live("h") == hivebeat.Alive })
	}
	h.kill()
	for _, c := range []struct {
		kind   hivebeat.Kind
		worker string
	}{{hivebeat.KindJoined, ""}, {hivebeat.KindJoined, "w"}, {hivebeat.KindLate, ""}, {hivebeat.KindLost, ""}} {
		bustest.Eventually(t, patience, func() (bool, string) { // readers deduplicate by id
			ids := make(map[string]int)
			for _, ev := range events.of(c.kind, "h", c.worker) {
				ids[ev.ID]++
				if ids[ev.ID] == 2 {
					return true, ""
				}
			}
			return false, fmt.Sprintf("no %s from both queens: %v", c.kind, ids)
		})
	}
}

func TestBucketWithOtherSettings(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: hivebeat.BucketHives, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	log := &bustest.Log{}
	q, err := New(nc, Config{ID: "q1", Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = q.Run(ctx)
	if !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), "queen_hives") || !strings.Contains(err.Error(), "TTL is 1h0m0s, not 24h0m0s") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("not in the log: %s", log)
	}
	kv, err := js.KeyValue(t.Context(), hivebeat.BucketHives)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := kv.Status(t.Context()); err != nil || s.TTL() != time.Hour {
		t.Errorf("it was changed: %v %v", s.TTL(), err)
	}
}

func TestBucketRemovedUnderTheQueen(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	h := startHive(t, nc, "h", time.Second)
	waitStored(t, nc, hivebeat.KindJoined, "h", "")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{hivebeat.BucketHives, hivebeat.BucketRoster} {
		if err := js.DeleteKeyValue(t.Context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		for _, bucket := range []string{hivebeat.BucketHives, hivebeat.BucketRoster} {
			kv, err := js.KeyValue(t.Context(), bucket)
			if err != nil {
				return false, err.Error()
			}
			if _, err := kv.Get(t.Context(), "h"); err != nil {
				return false, fmt.Sprint(bucket, ": ", err)
			}
		}
		return true, ""
	})
	h.kill()
	if ev := waitStored(t, nc, hivebeat.KindLost, "h", ""); ev.Data.N < 2 {
		t.Errorf("%+v", ev)
	}
	if n := countStored(t, nc, hivebeat.KindJoined, "h"); n != 1 {
		t.Errorf("joined %d times", n)
	}
}

func TestConnectionClosedUnderTheQueen(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	q, err := New(nc, Config{NoJetStream: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- q.Run(context.Background()) }()
	bustest.Eventually(t, patience, func() (bool, string) { return q.looping.Load(), "does not run" })
	nc.Close()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%v", err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on without a connection")
	}
}

func TestBucketDiffersOnceTheQueenIsWarm(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	q, err := New(bustest.Conn(t, srv), Config{ID: "q1"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- q.Run(t.Context()) }()
	if a := request(t, nc, api.VerbSummary, api.Request{}); !a.Status.Warm || a.Status.JetStream {
		t.Errorf("%+v", a.Status)
	}
	// JetStream comes back with a bucket that another program created first.
	proxyless := srv.Config()
	proxyless.StoreDir = t.TempDir()
	bustest.Stop(t, srv)
	prepared := proxyless
	prepared.Port, prepared.JetStream = 0, true
	first, err := embedded.Start(t.Context(), prepared)
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(bustest.Conn(t, first))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: hivebeat.BucketRoster, History: 5}); err != nil {
		t.Fatal(err)
	}
	bustest.Stop(t, first)
	proxyless.JetStream = true
	bustest.Eventually(t, patience, func() (bool, string) {
		again, err := embedded.Start(t.Context(), proxyless)
		if err == nil {
			t.Cleanup(func() { bustest.Stop(t, again) })
		}
		return err == nil, fmt.Sprint(err)
	})
	select {
	case err := <-done:
		if !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), "history is 5, not 1") {
			t.Errorf("%v", err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	if n := q.nc.NumSubscriptions(); n > 2 {
		t.Errorf("%d subscriptions are left", n)
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1", Prefix: "acme"})
	q.warm()
	other := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	other.warm()
	sub, err := nc.SubscribeSync("acme.queen.events.>")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	if err := nc.Publish("acme.queen.hives", encode(t, snapshotOf("h", 100, 1))); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(patience)
	if err != nil || m.Subject != "acme.queen.events.h.joined" || !strings.Contains(string(m.Data), `"source":"/hivebeat/acme"`) {
		t.Errorf("%+v %v", m, err)
	}
	if r, err := nc.Request("acme.queen.api.hive", []byte(`{"hive":"h"}`), patience); err != nil || !strings.Contains(string(r.Data), `"live":"alive"`) {
		t.Errorf("%+v %v", r, err)
	}
	if s := other.Stats(); s.Hives != 0 {
		t.Errorf("the fabric without a prefix heard it: %+v", s)
	}
}
