package hive

import (
	"context"
	"encoding/binary"
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
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const beats = "hive." + thisHive + ".workers"

func TestDefaultID(t *testing.T) {
	for _, c := range []struct{ name, err string }{
		{"gpu-01", ""},
		{"localhost", "as on many machines"},
		{"LocalHost", "as on many machines"},
		{"localhost.localdomain", "as on many machines"},
		{"gpu-01.example.org", "such as gpu-01"},
		{"", "is empty"},
		{"gpu 01", "may hold only"},
		{strings.Repeat("x", 65), "at most 64"},
	} {
		id, err := defaultID(c.name, nil)
		if c.err == "" {
			if err != nil || id != c.name {
				t.Errorf("%q: %q, %v", c.name, id, err)
			}
			continue
		}
		if !errors.Is(err, ErrNoDefaultID) || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "--id") {
			t.Errorf("%q: %v", c.name, err)
		}
	}
	if _, err := defaultID("", errors.New("broken")); !errors.Is(err, ErrNoDefaultID) {
		t.Errorf("got %v", err)
	}
}

func TestConfig(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	for _, c := range []struct {
		name   string
		change func(*Config)
		err    string
	}{
		{"good", func(*Config) {}, ""},
		{"id", func(c *Config) { c.ID = "a.b" }, `Config.ID: invalid id: hive "a.b"`},
		{"prefix", func(c *Config) { c.Prefix = "a.b" }, "Config.Prefix"},
		{"every, too short", func(c *Config) { c.Every = time.Millisecond }, "Config.Every: 1ms"},
		{"every, too long", func(c *Config) { c.Every = 2 * time.Hour }, "Config.Every: 2h"},
		{"stall", func(c *Config) { c.StallAfter = time.Millisecond }, "Config.StallAfter: 1ms"},
		{"push", func(c *Config) { c.PushFacts = time.Millisecond }, "Config.PushFacts: 1ms"},
		{"label key", func(c *Config) { c.Labels = map[string]string{"": "x"} }, "Config.Labels"},
		{"label value", func(c *Config) { c.Labels = map[string]string{"zone": "\xff"} }, "Config.Labels"},
		{"labels", func(c *Config) {
			c.Labels = map[string]string{}
			for i := range 33 {
				c.Labels[fmt.Sprint(i)] = ""
			}
		}, "Config.Labels: 33"},
	} {
		cfg := quickConfig()
		c.change(&cfg)
		_, err := New(nc, cfg)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
	if _, err := New(nil, quickConfig()); err == nil {
		t.Error("no connection is an error")
	}
}

func TestHiveHearsAndTells(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	inbox(t, nc)
	q := listening(t, nc)
	var log text
	cfg := quickConfig()
	cfg.Labels = map[string]string{"zone": "a"}
	cfg.Logger = log.Logger(slog.LevelInfo)
	h, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(t.Context()) }()

	first := q.await(t, "anything", func(said) bool { return true })
	if first.Hive != thisHive || first.Seq == 0 || first.Inc == 0 || first.Every != 15_000 || first.Warm || first.Pages != 1 ||
		first.Labels["zone"] != "a" || first.subject != "queen.hives" || first.Bye != "" || len(first.Workers) != 0 {
		t.Errorf("the first snapshot: %+v", first)
	}
	q.await(t, "facts", func(s said) bool {
		return s.Host.Name == "machine" && s.Host.CPUs == 8 && s.Collect["host"] == "ok" && s.Collect["gpu"] == "none"
	})

	f := newFake("w")
	publish(t, nc, beats, f.Next(t))
	s := q.await(t, "the worker", withWorker("w", hivebeat.Alive))
	w, _ := worker1(s, "w")
	if w.Model != f.Model || w.Host != f.Host || w.Host == "" || w.Labels["tier"] != "gold" || w.N != 1 || len(w.Tr) != 1 || w.Tr[0].Kind != hivebeat.KindJoined || w.Seq != 1 {
		t.Errorf("record %+v", w)
	}
	f.State, f.Reason = hivebeat.Stopped, "done"
	publish(t, nc, beats+".w", f.Next(t)) // the pinned form
	s = q.await(t, "its goodbye", withWorker("w", hivebeat.Left))
	if w, _ := worker1(s, "w"); w.Cause != hivebeat.CauseGoodbye || w.Reason != "done" {
		t.Errorf("record %+v", w)
	}
	if own := h.Snapshot(); len(own.Workers) != 1 || own.Workers[0].Live != hivebeat.Left || own.Seq == 0 {
		t.Errorf("for embedders: %+v", own)
	}
	if st := h.Stats(); st.Beats != 2 || st.Refused != 0 || st.Dropped != 0 || st.Workers != 1 || !st.Connected || st.Snapshots.Sent < 2 {
		t.Errorf("stats %+v", st)
	}

	if err := h.Run(t.Context()); !errors.Is(err, bus.ErrRunning) {
		t.Errorf("a second Run: %v", err)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	q.await(t, "bye", func(s said) bool { return s.Bye != "" && len(s.Workers) == 1 })
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop again: %v", err)
	}
	if err := h.Run(t.Context()); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("Run after Stop: %v", err)
	}
	if !nc.IsConnected() || nc.NumSubscriptions() != 3 {
		t.Errorf("the borrowed connection: %s, %d subscriptions", nc.Status(), nc.NumSubscriptions())
	}
	awaitText(t, &log, "kind=joined")
	awaitText(t, &log, "kind=left")
}

// A reply subject asks for an answer from any responder: a hive sends none.
func TestHiveAnswersNobody(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	q := listening(t, nc)
	own := bustest.Conn(t, srv)
	h := running(t, own, quickConfig())
	subscribed(t, own, h)
	answers, err := nc.SubscribeSync("_INBOX.answers")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake("w")
	send := func(subject string, body []byte) {
		if err := nc.PublishRequest(subject, answers.Subject, body); err != nil {
			t.Fatal(err)
		}
	}
	send(beats, f.Next(t))
	send(beats+".w", f.Next(t))
	send(beats, []byte("no beat"))
	awaitBeats(t, h, 2)
	calls := len(q.all())
	send("queen.rollcall", []byte("1"))
	send("queen.rollcall."+thisHive, []byte("1"))
	bustest.Eventually(t, patience, func() (bool, string) { return len(q.all()) > calls, "the roll call is heard" })
	bustest.Flush(t, own)
	bustest.Flush(t, nc)
	if m, err := answers.NextMsg(time.Millisecond); err == nil {
		t.Errorf("an answer: %q", m.Data)
	}
}

// inbox makes nc subscribe to its inbox, as its first request would.
func inbox(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if _, err := nc.Request("nobody.is.there", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatal(err)
	}
}

func TestStopBeforeRun(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	h, err := New(nc, quickConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if err := h.Run(t.Context()); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("Run: %v", err)
	}
}

func TestEveryOrderOfRunAndStop(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	inbox(t, nc)
	for range 20 {
		h, err := New(nc, quickConfig())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := h.Run(ctx); err != nil && !errors.Is(err, hivebeat.ErrStopped) && !errors.Is(err, bus.ErrRunning) {
					t.Errorf("Run: %v", err)
				}
			})
			wg.Go(func() { _ = h.Stop(t.Context()); h.Stats(); h.Snapshot() })
			wg.Go(cancel)
		}
		wg.Wait()
		cancel()
	}
	if n := nc.NumSubscriptions(); n != 1 {
		t.Errorf("%d subscriptions are left", n)
	}
}

func TestClosedConnectionEndsTheHive(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	h, err := New(nc, quickConfig())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(t.Context()) }()
	subscribed(t, nc, h)
	nc.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Error("Run goes on")
	}
}

// No message can stop a hive, and each refusal is counted by its reason.
func TestBadBeatsOverNATS(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	var log text
	cfg := quickConfig()
	cfg.Logger = log.Logger(slog.LevelInfo)
	h := running(t, nc, cfg)
	subscribed(t, nc, h)

	f := newFake("w")
	f.Seq = 5
	publish(t, nc, beats, f.Next(t))
	good := f.Bytes(t)
	with := func(change func(*fake)) []byte {
		g := *f
		g.Seq++
		change(&g)
		return g.Bytes(t)
	}
	want := map[hivebeat.Reason]uint64{}
	send := func(subject string, reason hivebeat.Reason, b []byte) {
		want[reason]++
		publish(t, nc, subject, b)
	}
	send(beats, hivebeat.RefusedMalformed, []byte("garbage"))
	send(beats, hivebeat.RefusedMalformed, nil)
	send(beats, hivebeat.RefusedMalformed, good[:len(good)-1])
	send(beats, hivebeat.RefusedMalformed, []byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	send(beats, hivebeat.RefusedMalformed, []byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	send(beats, hivebeat.RefusedDepth, []byte{0x81, 0xa1, 'x', 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0xc0})
	send(beats, hivebeat.RefusedSize, make([]byte, 900_000))
	send(beats, hivebeat.RefusedVersion, with(func(f *fake) { f.V = 9 }))
	send(beats, hivebeat.RefusedID, with(func(f *fake) { f.Worker = "not an id" }))
	send(beats, hivebeat.RefusedForeign, with(func(f *fake) { f.Hive = "gpu-02" }))
	send(beats+".other", hivebeat.RefusedForeign, with(func(*fake) {}))
	send(beats, hivebeat.RefusedStale, good)
	send(beats, hivebeat.RefusedStale, with(func(f *fake) { f.Seq = 2 }))
	send(beats, hivebeat.RefusedOlder, with(func(f *fake) { f.Inc -= 1_000_000 }))
	send("queen.rollcall", hivebeat.RefusedMalformed, []byte("soon"))

	publish(t, nc, beats+".w", f.Next(t)) // and the hive keeps working
	awaitBeats(t, h, 2)
	bustest.Eventually(t, patience, func() (bool, string) { // roll calls have a separate channel
		got := h.Stats().Reasons
		return fmt.Sprint(got) == fmt.Sprint(want), fmt.Sprintf("refused %v, want %v", got, want)
	})
	s := h.Stats()
	if s.Stale != want[hivebeat.RefusedStale] || s.Workers != 1 {
		t.Errorf("stats %+v", s)
	}
	if w := h.Snapshot().Workers[0]; w.Live != hivebeat.Alive || w.Seq != f.Seq || w.N != 1 {
		t.Errorf("record %+v", w)
	}
	if n := strings.Count(log.String(), "messages refused"); n != len(want)-1 { // one line per reason except stale
		t.Errorf("%d lines for %d reasons:\n%s", n, len(want)-1, log.String())
	}
}

// A hive notifies a worker that it refuses, and logs the notice of a queen that refuses
// it.
func TestRefusalsAreTold(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, near := bustest.Conn(t, srv), bustest.Conn(t, srv)
	calls, err := near.SubscribeSync("hive." + thisHive + ".rollcall")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, near)
	var log text
	cfg := quickConfig()
	cfg.Logger = log.Logger(slog.LevelInfo)
	h := running(t, nc, cfg)
	subscribed(t, nc, h)

	f := newFake("w")
	f.Every = hivebeat.MillisOf(200 * time.Millisecond)
	publish(t, near, beats, f.Next(t))
	forged := *f
	forged.Seq += 5000
	publish(t, near, beats, forged.Next(t))
	awaitBeats(t, h, 2)
	var n hivebeat.Notice
	bustest.Eventually(t, patience, func() (bool, string) {
		publish(t, near, beats, f.Next(t))
		m, err := calls.NextMsg(150 * time.Millisecond) // longer than half of the worker's promise
		if err != nil {
			return false, err.Error()
		}
		var ok bool
		n, ok = hivebeat.ParseNotice(m.Data)
		return ok, fmt.Sprintf("%q", m.Data)
	})
	if n != (hivebeat.Notice{ID: "w", Inc: f.Inc, Believed: f.Inc}) {
		t.Errorf("told %+v", n)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		r := h.Snapshot().Workers[0]
		return r.Live == hivebeat.Alive && r.Seq == f.Seq && r.Rival == f.Inc, fmt.Sprintf("%+v, want seq %d", r, f.Seq)
	})

	mine := h.Snapshot().Inc
	for _, n := range []hivebeat.Notice{{ID: "other", Inc: mine, Believed: 1}, {ID: thisHive, Inc: 1, Believed: mine}, {ID: thisHive, Inc: mine, Believed: 77}, {ID: thisHive, Inc: mine, Believed: 77}} {
		publish(t, near, "queen.rollcall."+thisHive, n.Append(nil))
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(log.String(), "messages of this hive are refused") && strings.Contains(log.String(), "believed=77"), log.String()
	})
	publish(t, near, "queen.rollcall."+thisHive, []byte("soon"))
	bustest.Eventually(t, patience, func() (bool, string) { // arrives after the notices
		return h.Stats().Reasons[hivebeat.RefusedMalformed] == 1, fmt.Sprint(h.Stats().Reasons)
	})
	if s := log.String(); strings.Count(s, "messages of this hive") != 1 {
		t.Errorf("said twice, logged as\n%s", s)
	}
}

func TestPinnedHive(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	cfg := quickConfig()
	cfg.Pinned, cfg.Prefix = true, "acme"
	q := &queen{}
	if _, err := nc.Subscribe("acme.queen.hives.*", func(m *nats.Msg) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.list = append(q.list, said{subject: m.Subject})
	}); err != nil {
		t.Fatal(err)
	}
	h := running(t, nc, cfg)
	s := q.await(t, "its own subject", func(said) bool { return true })
	if s.subject != "acme.queen.hives."+thisHive {
		t.Errorf("sent to %s", s.subject)
	}
	publish(t, nc, "acme."+beats+".w", newFake("w").Next(t))
	awaitBeats(t, h, 1)
}

func TestNATSNotThereAtStart(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	url := srv.URL()
	bustest.Stop(t, srv)
	var log text
	nc, err := bus.Connect(t.Context(), bus.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	cfg := quickConfig()
	cfg.Logger = log.Logger(slog.LevelInfo)
	h := running(t, nc, cfg)
	awaitText(t, &log, "NATS is not there yet")
	if s := h.Stats(); s.Connected {
		t.Errorf("says that it is connected: %+v", s)
	}
	srv = bustest.Restart(t, srv)
	other := bustest.Conn(t, srv)
	q := listening(t, other)
	q.await(t, "anything", func(said) bool { return true })
	publish(t, other, beats, newFake("w").Next(t))
	q.await(t, "the worker", withWorker("w", hivebeat.Alive))
	awaitText(t, &log, "hears workers")
}

// TestVirtualNATSGoneForTwoMinutes covers the verdicts.
func TestNATSGoneAndBack(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	proxy := bustest.NewProxy(t, srv.URL())
	nc := bustest.Dial(t, proxy.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	near := bustest.Conn(t, srv)
	var log text
	cfg := quickConfig()
	cfg.Logger = log.Logger(slog.LevelInfo)
	h := running(t, nc, cfg)
	subscribed(t, nc, h)
	q := listening(t, near)
	q2, err := near.SubscribeSync("hive." + thisHive + ".rollcall")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, near)

	f := newFake("w")
	publish(t, near, beats, f.Next(t))
	awaitBeats(t, h, 1)

	proxy.Cut()
	awaitText(t, &log, "NATS is away")
	bustest.Eventually(t, patience, func() (bool, string) {
		return h.Stats().Snapshots.Failed > 0 && !h.Stats().Connected, "no attempt to send has failed yet"
	})

	before := h.Snapshot().Seq
	proxy.Restore()
	awaitText(t, &log, "NATS is back")
	q.await(t, "a snapshot after it", func(s said) bool { return s.Seq > before && withWorker("w", hivebeat.Alive)(s) })
	m, err := q2.NextMsg(patience)
	if err != nil || string(m.Data) != "500" {
		t.Errorf("the roll of the workers: %v, %v", m, err)
	}
	publish(t, near, beats, f.Next(t))
	awaitBeats(t, h, 2)
	if s := h.Stats(); s.FalseDead+s.CutOff != 0 || s.Refused != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestFiveThousandWorkersPastMaxPayload(t *testing.T) {
	const n = 5000
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, near := bustest.Conn(t, srv), bustest.Conn(t, srv)
	if err := near.Publish("x", make([]byte, nc.MaxPayload()+1)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Fatalf("no max_payload: %v", err)
	}
	q := listening(t, near)
	h := running(t, nc, quickConfig())
	subscribed(t, nc, h)
	fakes := make([]*fake, n)
	for i := range fakes {
		fakes[i] = newFake(fmt.Sprintf("worker-%04d", i))
		if err := near.Publish(beats, fakes[i].Next(t)); err != nil {
			t.Fatal(err)
		}
		if i%500 == 0 {
			bustest.Flush(t, near)
		}
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		s := h.Stats()
		return s.Workers == n || s.Beats+s.Dropped >= n && resend(t, near, h, fakes), fmt.Sprintf("%d workers, %d dropped", s.Workers, s.Dropped)
	})
	var total int
	bustest.Eventually(t, patience, func() (bool, string) {
		last, ok := q.last()
		if !ok || last.Page != last.Pages-1 {
			return false, "between pages"
		}
		seen := map[string]bool{}
		pages := 0
		total = 0
		for _, s := range q.all() {
			if s.Seq != last.Seq {
				continue
			}
			pages++
			total += s.size
			for _, w := range s.Workers {
				seen[w.Worker] = true
			}
			if int64(s.size) > nc.MaxPayload()/2 {
				t.Errorf("a page of %d bytes", s.size)
			}
		}
		return len(seen) == n && pages == int(last.Pages) && pages > 1, fmt.Sprintf("%d workers on %d of %d pages", len(seen), pages, last.Pages)
	})
	if int64(total) <= nc.MaxPayload() {
		t.Errorf("%d bytes would have fitted one message: the test shows nothing", total)
	}
}

// resend sends a beat of each worker that the hive does not know, as its next interval
// would. It returns false.
func resend(t *testing.T, nc *nats.Conn, h *Hive, fakes []*fake) bool {
	known := map[string]bool{}
	for _, w := range h.Snapshot().Workers {
		known[w.Worker] = true
	}
	for _, f := range fakes {
		if !known[f.Worker] {
			publish(t, nc, beats, f.Next(t))
		}
	}
	return false
}

// A hive that restarts knows no workers. It says so, and calls the roll.
func TestHiveRestarted(t *testing.T) {
	srv := bustest.Server(t)
	near := bustest.Conn(t, srv)
	q := listening(t, near)
	f := newFake("w")
	var mu sync.Mutex
	answer := func() {
		mu.Lock()
		defer mu.Unlock()
		_ = near.Publish(beats, f.Next(t))
	}
	if _, err := near.Subscribe("hive."+thisHive+".rollcall", func(*nats.Msg) { answer() }); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, near)
	kv := bucket(t, near)

	first := running(t, bustest.Conn(t, srv), quickConfig())
	s := q.await(t, "the worker", withWorker("w", hivebeat.Alive)) // by the roll call alone
	s.Warm = true
	keep(t, kv, s.Snapshot)
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	var log text
	cfg := quickConfig()
	cfg.Logger = log.Logger(slog.LevelInfo)
	again := running(t, bustest.Conn(t, srv), cfg)
	s2 := q.await(t, "the worker, warm", func(s said) bool {
		_, ok := worker1(s, "w")
		return ok && s.Inc != first.inc && s.Warm
	})
	if s2.Inc <= s.Inc {
		t.Errorf("incarnation %d after %d", s2.Inc, s.Inc)
	}
	for _, s := range q.all() {
		if _, ok := worker1(s, "w"); s.Inc == again.inc && !ok && s.Warm {
			t.Errorf("an empty registry that claims to be warm: %+v", s)
		}
		for _, w := range s.Workers {
			for _, tr := range w.Tr {
				if tr.Kind != hivebeat.KindJoined {
					t.Errorf("a transition %s by a restart of the hive", tr.Kind)
				}
			}
		}
	}
	awaitText(t, &log, "knows its last snapshot")
}

// A last snapshot is used as a whole or not at all.
func TestLastSnapshotThatIsWorthNothing(t *testing.T) {
	srv := bustest.Server(t)
	near := bustest.Conn(t, srv)
	kv := bucket(t, near)
	good := func() hivebeat.Snapshot {
		s := whole(t, 3)
		s.Bye, s.Page, s.Pages = "", 0, 1
		return s
	}
	for _, c := range []struct {
		name string
		keep func()
		want bool
	}{
		{"none", func() {}, false},
		{"good", func() { keep(t, kv, good()) }, true},
		{"not warm", func() { s := good(); s.Warm = false; keep(t, kv, s) }, true},
		{"of another hive", func() { s := good(); s.Hive = "other"; keepAs(t, kv, thisHive, s) }, false},
		{"a page is missing", func() { s := good(); s.Pages = 2; keep(t, kv, s) }, false},
		{"two pages", func() {
			s := good()
			s.Pages = 2
			keep(t, kv, s)
			s.Page, s.Workers = 1, s.Workers[:1]
			keep(t, kv, s)
		}, true},
		{"pages of two snapshots", func() {
			s := good()
			s.Pages = 2
			keep(t, kv, s)
			s.Page, s.Seq = 1, s.Seq+1
			keep(t, kv, s)
		}, false},
		{"garbage", func() {
			if _, err := kv.Put(t.Context(), thisHive, []byte{0xdf, 0xff, 0xff, 0xff, 0xff}); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		c.keep()
		h, err := New(near, quickConfig())
		if err != nil {
			t.Fatal(err)
		}
		h.recall(t.Context())
		if taken := len(h.core.Ready().Logs) == 1; taken != c.want { // a log line reports that it was used
			t.Errorf("%s: taken %t, want %t", c.name, taken, c.want)
		}
	}
}

func bucket(t *testing.T, nc *nats.Conn) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: hivebeat.BucketHives, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func keep(t *testing.T, kv jetstream.KeyValue, s hivebeat.Snapshot) {
	t.Helper()
	key := s.Hive
	if s.Page > 0 {
		key = fmt.Sprintf("%s.%d", s.Hive, s.Page)
	}
	keepAs(t, kv, key, s)
}

func keepAs(t *testing.T, kv jetstream.KeyValue, key string, s hivebeat.Snapshot) {
	t.Helper()
	b, err := wire.EncodeSnapshot(&s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), key, b); err != nil {
		t.Fatal(err)
	}
}

// Beats that come faster than the hive handles them are dropped and counted, without
// further effects.
func TestFlood(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, near := bustest.Conn(t, srv), bustest.Conn(t, srv)
	h := running(t, nc, quickConfig())
	subscribed(t, nc, h)
	f := newFake("w")
	f.Seq = 1 << 40
	msg := f.Next(t)
	at := strings.Index(string(msg), "\xa3seq\xcf") + 5
	var sent uint64
	h.mu.Lock() // blocks the hive
	for range 3 * core.PendingBeats {
		sent++
		binary.BigEndian.PutUint64(msg[at:], 1<<40+sent)
		if err := near.Publish(beats, msg); err != nil {
			t.Error(err)
		}
	}
	bustest.Flush(t, near)
	bustest.Flush(t, nc) // every beat has arrived or was dropped
	h.mu.Unlock()
	bustest.Eventually(t, patience, func() (bool, string) {
		s := h.Stats()
		return s.Beats+s.Dropped == sent && s.Dropped > 0 && s.Refused == 0, fmt.Sprintf("%d sent, stats %+v", sent, s)
	})
	binary.BigEndian.PutUint64(msg[at:], 1<<40+sent+1)
	before := h.Stats().Beats
	publish(t, near, beats, msg)
	awaitBeats(t, h, before+1)
}
