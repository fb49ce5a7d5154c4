package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

const patience = 20 * time.Second

// ear hears all beats, and fails the test for one that the strict parser refuses.
type ear struct {
	t     testing.TB
	mu    sync.Mutex
	beats []heard
}

type heard struct {
	hivebeat.Beat
	subject string
	at      time.Time
}

func listen(t testing.TB, nc *nats.Conn) *ear {
	t.Helper()
	e := &ear{t: t}
	sub, err := nc.Subscribe("hive.*.workers", e.hear)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := nc.Subscribe("hive.*.workers.*", e.hear)
	if err != nil {
		t.Fatal(err)
	}
	if nc.IsConnected() {
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = sub.Unsubscribe(), pinned.Unsubscribe() })
	return e
}

func (e *ear) hear(m *nats.Msg) {
	h := heard{subject: m.Subject, at: time.Now()}
	if err := bus.Decode(m.Data, &h.Beat); err != nil {
		e.t.Errorf("a beat of %d bytes is refused: %v", len(m.Data), err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.beats = append(e.beats, h)
}

func (e *ear) all() []heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]heard(nil), e.beats...)
}

func (e *ear) String() string {
	var s strings.Builder
	for _, h := range e.all() {
		fmt.Fprintf(&s, "%s seq %d %s %q quiet %d busy %d; ", h.Worker, h.Seq, h.State, h.Reason, h.Quiet, h.Busy)
	}
	return s.String()
}

// wait returns the first beat from index on that ok accepts.
func (e *ear) wait(from int, what string, ok func(heard) bool) (got heard) {
	e.t.Helper()
	bustest.Eventually(e.t, patience, func() (bool, string) {
		for _, h := range e.all()[from:] {
			if ok(h) {
				got = h
				return true, ""
			}
		}
		return false, fmt.Sprintf("%s was not heard, but: %s", what, e)
	})
	return got
}

func anyBeat(heard) bool { return true }

func in(s hivebeat.State) func(heard) bool { return func(h heard) bool { return h.State == s } }

// run runs a worker until the end of the test.
func run(t testing.TB, nc *nats.Conn, cfg Config) *Worker {
	t.Helper()
	if cfg.Hive == "" {
		cfg.Hive = "gpu-01"
	}
	if cfg.ID == "" {
		cfg.ID = "llama"
	}
	w, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = w.Stop(ctx)
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, hivebeat.ErrStopped) && !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("Run: %v", err)
			}
		case <-ctx.Done():
			t.Error("Run did not end")
		}
	})
	return w
}

func TestFirstBeat(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	nc := bustest.Conn(t, srv)
	cfg := Config{
		Hive: "gpu-01", ID: "llama", Every: time.Minute, Model: "llama-3-8b", Endpoint: "http://10.0.0.7:8000",
		GPUs: []string{"GPU-1", "GPU-2"}, Slots: 4, Labels: map[string]string{"tier": "gold"}, State: hivebeat.Loading,
	}
	before := time.Now()
	w := run(t, nc, cfg)
	b := e.wait(0, "the first beat", anyBeat)
	want := hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: "llama", Facts: hivebeat.Facts{
		Inc: w.Incarnation(), Every: 60_000, State: hivebeat.Loading, PID: uint64(os.Getpid()), NS: bootid.Namespace(),
		Conn: bus.ConnID(nc), RW: 20, Model: cfg.Model, Endpoint: cfg.Endpoint, GPUs: cfg.GPUs, Slots: 4, Labels: cfg.Labels,
		Seq: 1, Sent: b.Sent,
	}}
	if got, want := fmt.Sprintf("%+v", b.Beat), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("the first beat:\n got %s\nwant %s", got, want)
	}
	if b.subject != "hive.gpu-01.workers" || b.Conn == "" {
		t.Errorf("on %s, conn %q", b.subject, b.Conn)
	}
	if inc := time.UnixMicro(int64(b.Inc)); inc.Before(before.Truncate(time.Microsecond)) || inc.After(time.Now()) {
		t.Errorf("incarnation %d is %s, begun at %s", b.Inc, inc, before)
	}
}

func TestPinnedAndPrefix(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	sub, err := nc.SubscribeSync("acme.hive.gpu-01.workers.llama")
	if err != nil {
		t.Fatal(err)
	}
	run(t, nc, Config{Pinned: true, Prefix: "acme"})
	if _, err := sub.NextMsg(patience); err != nil {
		t.Errorf("no beat on the pinned subject: %v", err)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	w := run(t, bustest.Conn(t, srv), Config{State: hivebeat.Starting})
	e.wait(0, "the first beat", in(hivebeat.Starting))

	must(t, w.SetState(hivebeat.Loading, "weights"))
	b := e.wait(0, "loading", in(hivebeat.Loading))
	if b.Reason != "weights" || b.Seq != 2 {
		t.Errorf("loading: %+v", b)
	}
	must(t, w.SetState(hivebeat.Ready, ""))
	e.wait(0, "ready", in(hivebeat.Ready))
	must(t, w.Update(func(f *Facts) { f.Busy, f.VRAM = 3, 8<<30 }))
	must(t, w.SetState(hivebeat.Busy, ""))
	b = e.wait(0, "busy", in(hivebeat.Busy))
	if b.Busy != 3 || b.VRAM != 8<<30 {
		t.Errorf("busy: %+v", b)
	}
	must(t, w.SetState(hivebeat.Busy, "")) // nothing new
	must(t, w.Update(func(*Facts) {}))
	must(t, w.Fail(t.Context(), "out of memory"))
	last := e.wait(0, "the goodbye", in(hivebeat.Failed))
	if last.Reason != "out of memory" || last.Seq != b.Seq+1 || last.Quiet != 0 {
		t.Errorf("the goodbye: %+v", last)
	}
	if st := w.Stats(); st.Sent != last.Seq || st.Failed != 0 {
		t.Errorf("stats %+v after %d beats", st, last.Seq)
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))

	// The end of ctx says goodbye as well as Stop does.
	w, err := New(bustest.Conn(t, srv), Config{Hive: "gpu-01", ID: "by-ctx"})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	must(t, w.Run(ctx))
	e.wait(0, "stopped of by-ctx", func(h heard) bool { return h.Worker == "by-ctx" && h.State == hivebeat.Stopped })
	must(t, w.Stop(t.Context()))
	if err := w.Run(t.Context()); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("Run after Run: %v", err)
	}

	// When Stop returns the goodbye has left: the connection may be closed.
	nc := bustest.Conn(t, srv)
	w = run(t, nc, Config{ID: "by-stop"})
	e.wait(0, "a beat", func(h heard) bool { return h.Worker == "by-stop" })
	must(t, w.Stop(t.Context()))
	nc.Close()
	e.wait(0, "stopped of by-stop", func(h heard) bool { return h.Worker == "by-stop" && h.State == hivebeat.Stopped })
	must(t, w.Fail(t.Context(), "too late"))
	for _, h := range e.all() {
		if h.State == hivebeat.Failed {
			t.Errorf("a goodbye after the goodbye: %s", e)
		}
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	nc := bustest.Conn(t, srv)
	w := run(t, nc, Config{State: hivebeat.Loading})
	begin := time.Now()
	must(t, w.Quiet(t.Context(), time.Hour))
	took := time.Since(begin)
	var quiet []heard
	bustest.Eventually(t, patience, func() (bool, string) {
		quiet = quiet[:0]
		for _, h := range e.all() {
			if h.Quiet > 0 {
				quiet = append(quiet, h)
			}
		}
		return len(quiet) >= 3, e.String()
	})
	if took < 2*quietGap {
		t.Errorf("Quiet took %s: not spread", took)
	}
	for _, h := range quiet {
		if q := h.Quiet.Duration(); q > hivebeat.MaxQuiet || q < hivebeat.MaxQuiet-patience {
			t.Errorf("announced %s of silence, want what is left of %s", q, hivebeat.MaxQuiet)
		}
	}
	if quiet[2].Quiet >= quiet[0].Quiet {
		t.Errorf("the silence does not get shorter: %s, then %s", quiet[0].Quiet.Duration(), quiet[2].Quiet.Duration())
	}
	from := len(e.all())
	must(t, w.SetState(hivebeat.Loading, "layer 3 of 80")) // the same state: still quiet
	if h := e.wait(from, "the reason", func(h heard) bool { return h.Reason != "" }); h.Quiet == 0 {
		t.Errorf("a new reason ended the silence: %+v", h)
	}
	must(t, w.SetState(hivebeat.Ready, ""))
	if h := e.wait(from, "ready", in(hivebeat.Ready)); h.Quiet != 0 {
		t.Errorf("ready, and quiet for %s", h.Quiet.Duration())
	}

	must(t, w.Quiet(t.Context(), time.Minute))
	from = len(e.all())
	must(t, w.Quiet(t.Context(), 0))
	e.wait(from, "the end of the silence", func(h heard) bool { return h.Quiet == 0 })

	must(t, w.Quiet(t.Context(), time.Minute))
	must(t, w.Stop(t.Context()))
	if h := e.wait(0, "the goodbye", in(hivebeat.Stopped)); h.Quiet != 0 {
		t.Errorf("a goodbye that is quiet for %s", h.Quiet.Duration())
	}
}

// Quiet is bounded where NATS is away, and is said once it is back.
func TestQuietWithoutNATS(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	ears, nc := bustest.Conn(t, srv), bustest.Conn(t, srv)
	e := listen(t, ears)
	w := run(t, nc, Config{Every: 200 * time.Millisecond}) // the ears may come back after the worker
	e.wait(0, "the first beat", anyBeat)
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) { return !nc.IsConnected(), "still connected" })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := w.Quiet(ctx, time.Minute); err == nil || !strings.Contains(err.Error(), "announced 0 of 3") {
		t.Errorf("Quiet without NATS: %v", err)
	}
	bustest.Restart(t, srv)
	e.wait(0, "the silence", func(h heard) bool { return h.Quiet > 0 })
}

func TestRollCall(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	e := listen(t, nc)
	w := run(t, bustest.Conn(t, srv), Config{})
	first := e.wait(0, "the first beat", anyBeat)
	// That the roll call is listened to is known by its count alone.
	for _, bad := range []string{"-5", "soon", "1e9", "99999999999999999999", "\x00\xff", strings.Repeat("9", 1<<16)} {
		must(t, nc.Publish("hive.gpu-01.rollcall", []byte(bad)))
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		st := w.Stats()
		return st.Calls == 6 && st.BadCalls == 6, fmt.Sprintf("%+v", st)
	})
	if n := len(e.all()); n != 1 {
		t.Errorf("roll calls that are none were answered: %s", e)
	}
	begin := time.Now()
	must(t, nc.Publish("hive.gpu-01.rollcall", nil))
	answer := e.wait(1, "the answer", anyBeat)
	if answer.Seq != first.Seq+1 {
		t.Errorf("the answer: %+v", answer)
	}
	// A flood is answered once a second.
	for range 1000 {
		must(t, nc.Publish("hive.gpu-01.rollcall", []byte("0")))
	}
	must(t, nc.Flush())
	e.wait(2, "the answer to the flood", anyBeat)
	bustest.Eventually(t, patience, func() (bool, string) {
		st := w.Stats()
		return st.Calls >= 50, fmt.Sprintf("%+v", st)
	})
	if n, limit := len(e.all()), 2+1+int(time.Since(begin)/time.Second); n > limit {
		t.Errorf("%d beats for a flood of roll calls, at most %d are allowed: %s", n, limit, e)
	}
}

// NATS is not there when the worker starts.
func TestNATSLater(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	url := srv.URL()
	bustest.Stop(t, srv)
	connect := func() *nats.Conn {
		nc, err := bus.Connect(t.Context(), bus.Config{URL: url, Name: "test"})
		must(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	e := listen(t, connect())
	// Whether the ears or the worker come back first is open: one beat may be missed.
	w := run(t, connect(), Config{Every: 200 * time.Millisecond})
	bustest.Eventually(t, patience, func() (bool, string) {
		st := w.Stats()
		return st.Failed > 0, fmt.Sprintf("%+v", st)
	})
	bustest.Restart(t, srv)
	h := e.wait(0, "a beat", anyBeat)
	if h.Conn == "" {
		t.Errorf("a beat that does not know its connection: %+v", h)
	}
}

// NATS goes away and comes back: one beat at once, that tells how things are then,
// and none of those that were due meanwhile — although the connection would keep
// 8 MB of them.
func TestNATSGoneAndBack(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	ears := bustest.Conn(t, srv)
	nc := bustest.Conn(t, srv, nats.ReconnectBufSize(nats.DefaultReconnectBufSize))
	e := listen(t, ears)
	w := run(t, nc, Config{Every: 100 * time.Millisecond})
	before := e.wait(0, "the first beat", anyBeat)
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) {
		return !nc.IsConnected() && !ears.IsConnected(), "still connected"
	})
	heardBefore := len(e.all())
	failed := w.Stats().Failed
	bustest.Eventually(t, patience, func() (bool, string) {
		must(t, w.SetState(hivebeat.Degraded, ""))
		must(t, w.Update(func(f *Facts) { f.Done++ }))
		must(t, w.SetState(hivebeat.Ready, ""))
		st := w.Stats()
		return st.Failed >= failed+10, fmt.Sprintf("%+v", st)
	})
	must(t, w.SetState(hivebeat.Draining, "after all"))
	gone := time.Now()
	bustest.Restart(t, srv)
	back := e.wait(heardBefore, "a beat after the restart", anyBeat)
	if back.State != hivebeat.Draining || back.Reason != "after all" || time.UnixMilli(back.Sent).Before(gone.Truncate(time.Millisecond)) {
		t.Errorf("the first beat after the restart is an old one: %+v", back)
	}
	if back.Seq < before.Seq+5 {
		t.Errorf("seq %d before, %d after: the gap does not tell of the beats that were due", before.Seq, back.Seq)
	}
	if back.Conn == before.Conn || back.Conn == "" || back.Inc != before.Inc {
		t.Errorf("conn %q, then %q; inc %d, then %d", before.Conn, back.Conn, before.Inc, back.Inc)
	}
	for _, h := range e.all()[heardBefore:] {
		if h.State != hivebeat.Draining {
			t.Errorf("a stale beat was delivered: %+v", h)
		}
	}
}

func TestReconnectBeats(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	nc := bustest.Conn(t, srv)
	w := run(t, nc, Config{Every: time.Hour})
	first := e.wait(0, "the first beat", anyBeat)
	must(t, nc.ForceReconnect())
	second := e.wait(1, "a beat after the reconnect", anyBeat)
	if second.Conn == first.Conn {
		t.Errorf("both beats name connection %s", first.Conn)
	}
	if st := w.Stats(); st.Late != 0 {
		t.Errorf("%+v", st)
	}
}

func TestStopWithoutNATS(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	nc := bustest.Conn(t, srv)
	w := run(t, nc, Config{})
	e.wait(0, "the first beat", anyBeat)
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) { return !nc.IsConnected(), "still connected" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := w.Stop(ctx)
	if ctx.Err() != nil {
		t.Fatal("Stop hangs without NATS")
	}
	if !errors.Is(err, nats.ErrDisconnected) {
		t.Errorf("Stop without NATS: %v, want it to say that the goodbye was not sent", err)
	}
}

func TestConnectionClosed(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	for name, closeIt := range map[string]func(*nats.Conn, func()){
		"before Run": func(nc *nats.Conn, run func()) { nc.Close(); run() },
		"during Run": func(nc *nats.Conn, run func()) { time.AfterFunc(50*time.Millisecond, nc.Close); run() },
	} {
		nc := bustest.Conn(t, srv)
		w, err := New(nc, Config{Hive: "gpu-01", ID: "llama"})
		must(t, err)
		closeIt(nc, func() { err = w.Run(t.Context()) })
		if !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("closed %s: Run returned %v, want nats.ErrConnectionClosed", name, err)
		}
		_ = w.Stop(t.Context()) // returns
		_ = w.SetState(hivebeat.Ready, "")
	}
}

// A Facts function that panics, ends its goroutine, never returns, or returns what
// no beat may hold: the beats go on, with what it said when it worked.
func TestHostileFacts(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	release := make(chan struct{})
	// After the end of the test: what never returns does so then.
	t.Cleanup(func() { close(release) })
	for name, tc := range map[string]struct {
		misbehave func() Facts
		count     func(Stats) uint64
	}{
		"panic":  {func() Facts { panic("no driver") }, func(s Stats) uint64 { return s.FactsPanics }},
		"nil":    {func() Facts { var f *Facts; return *f }, func(s Stats) uint64 { return s.FactsPanics }},
		"exit":   {func() Facts { runtime.Goexit(); return Facts{} }, func(s Stats) uint64 { return s.FactsPanics }},
		"stuck":  {func() Facts { <-release; return Facts{} }, func(s Stats) uint64 { return s.FactsSlow }},
		"absurd": {func() Facts { return Facts{Model: "\xff"} }, func(s Stats) uint64 { return s.FactsRefused }},
	} {
		t.Run(name, func(t *testing.T) {
			e := listen(t, nc)
			var calls atomic.Int64
			w := run(t, nc, Config{ID: name, Every: 100 * time.Millisecond, Model: "m", Slots: 4, Facts: func() Facts {
				if calls.Add(1) == 1 {
					return Facts{Busy: 2}
				}
				return tc.misbehave()
			}})
			bustest.Eventually(t, patience, func() (bool, string) {
				return tc.count(w.Stats()) >= 3, fmt.Sprintf("%+v", w.Stats())
			})
			from := len(e.all())
			b := e.wait(from, "another beat", func(h heard) bool { return h.Worker == name })
			if b.Busy != 2 || b.Model != "m" || b.Slots != 4 {
				t.Errorf("not what was known before: %+v", b)
			}
			if err := w.Stop(t.Context()); err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	}
}

func TestFactsFunction(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	var done atomic.Uint64
	w := run(t, bustest.Conn(t, srv), Config{Model: "m", Facts: func() Facts {
		return Facts{Done: done.Load(), Labels: map[string]string{"from": "facts"}}
	}})
	e.wait(0, "the first beat", anyBeat)
	done.Store(7)
	w.Touch()
	b := e.wait(0, "what changed", func(h heard) bool { return h.Done == 7 })
	if b.Model != "m" || !maps.Equal(b.Labels, map[string]string{"from": "facts"}) {
		t.Errorf("configured and read facts are not put together: %+v", b)
	}
}

// A program that calls in hot loops from many goroutines gets no more beats than
// the schedule allows, all of them valid and in order.
func TestHotProgram(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	w := run(t, bustest.Conn(t, srv), Config{})
	e.wait(0, "the first beat", anyBeat)
	begin := time.Now()
	end := begin.Add(2 * time.Second)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				_ = w.SetState([]hivebeat.State{hivebeat.Degraded, hivebeat.Ready, hivebeat.Busy}[(n+i)%3], fmt.Sprint(n))
				_ = w.Update(func(f *Facts) { f.Done++ })
				w.Touch()
			}
		})
	}
	wg.Wait()
	must(t, w.Stop(t.Context()))
	e.wait(0, "the goodbye", in(hivebeat.Stopped))
	all := e.all()
	if span := time.Since(begin); len(all) > 7+2*(int(span/time.Second)+1) {
		t.Errorf("%d beats in %s", len(all), span)
	}
	for i, h := range all {
		if h.Seq != uint64(i+1) {
			t.Fatalf("beat %d has seq %d", i+1, h.Seq)
		}
	}
}

// Every method, from many goroutines, in every order, with the connection coming
// and going.
func TestStress(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	listen(t, bustest.Conn(t, srv)) // each beat must be valid
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		w, err := New(nc, Config{Hive: "gpu-01", ID: fmt.Sprint("w", i), Every: 100 * time.Millisecond, Facts: func() Facts { return Facts{Busy: 1} }})
		must(t, err)
		var wg sync.WaitGroup
		for j := range 3 {
			wg.Go(func() { _ = w.Run(ctx) })
			wg.Go(func() {
				for n := range 50 {
					_ = w.SetState(hivebeat.Degraded, fmt.Sprint(n))
					_ = w.SetState(hivebeat.Ready, "")
					_ = w.Update(func(f *Facts) { f.Queue++ })
					_ = w.Stats()
				}
			})
			wg.Go(func() {
				short, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				_ = w.Quiet(short, time.Minute)
			})
			wg.Go(func() {
				if i%2 == 0 {
					time.Sleep(time.Duration(j) * time.Millisecond)
				}
				if j == 0 {
					_ = w.Fail(ctx, "stress")
				}
				_ = w.Stop(ctx)
			})
		}
		if i%5 == 4 {
			_ = nc.ForceReconnect()
		}
		wg.Wait()
		if ctx.Err() != nil {
			t.Fatal("it hangs")
		}
		cancel()
		if err := w.Run(t.Context()); !errors.Is(err, hivebeat.ErrStopped) {
			t.Errorf("Run after Stop: %v", err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a program pays in its own goroutine, with a worker that runs.
func BenchmarkHost(b *testing.B) {
	srv := bustest.Server(b, bustest.NoJetStream())
	w := run(b, bustest.Conn(b, srv), Config{Labels: map[string]string{"tier": "gold", "team": "search"}, GPUs: []string{"GPU-1"}})
	states := [2]hivebeat.State{hivebeat.Ready, hivebeat.Degraded}
	b.Run("SetState/same", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = w.SetState(hivebeat.Ready, "")
		}
	})
	b.Run("SetState/other", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_ = w.SetState(states[i&1], "")
		}
	})
	b.Run("Update", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = w.Update(func(f *Facts) { f.Done++ })
		}
	})
	b.Run("Touch", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.Touch()
		}
	})
}
