package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestFirstBeat(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	nc := bustest.Conn(t, srv)
	cfg := Config{
		Hive: "gpu-01", ID: "llama", Every: time.Minute, Model: "llama-3-8b", Endpoint: "http://10.0.0.7:8000",
		GPUs: []string{"GPU-1", "GPU-2"}, Slots: 4, Need: 20 << 30, Labels: map[string]string{"tier": "gold"}, State: hivebeat.Loading,
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	before, booted := time.Now(), bootid.Clock()
	w := run(t, nc, cfg)
	b := e.wait(0, "the first beat", anyBeat)
	if now := bootid.Clock(); b.Boot < booted || b.Boot > now {
		t.Errorf("sent at %d of the boot clock, want %d to %d", b.Boot, booted, now)
	}
	want := hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: "llama", Facts: hivebeat.Facts{
		Inc: w.Incarnation(), Every: 60_000, State: hivebeat.Loading, PID: uint64(os.Getpid()), NS: bootid.Namespace(),
		Host: host, Conn: bus.ConnID(nc), RW: 20, Model: cfg.Model, Endpoint: cfg.Endpoint, GPUs: cfg.GPUs, Slots: 4, Need: 20 << 30, Labels: cfg.Labels,
		Seq: 1, Sent: b.Sent,
	}, Boot: b.Boot}
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
	must(t, w.SetState(hivebeat.Busy, "")) // no change
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

	// The end of ctx says goodbye, just as Stop does.
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

	// When Stop returns, the goodbye has been sent: the connection may be closed.
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
	must(t, w.SetState(hivebeat.Loading, "layer 3 of 80")) // the same state: the silence continues
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

const firstBeat = "beating to its hive"

// A worker logs once that it beats and how often, and not before it does.
func TestTheFirstBeatIsLogged(t *testing.T) {
	t.Parallel()
	var log bustest.Log
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	hive := listen(t, nc)
	w := run(t, nc, Config{Every: 100 * time.Millisecond, Logger: log.Logger(slog.LevelInfo)})
	line := awaits(t, &log, firstBeat)
	for _, part := range []string{"level=INFO", "hive=gpu-01", "worker=llama", "every=100ms"} {
		if !strings.Contains(line, part) {
			t.Errorf("it says %s", line)
		}
	}
	hive.wait(0, "a third beat", func(h heard) bool { return h.Seq >= 3 })
	must(t, w.Stop(t.Context()))
	if n := len(lines(&log, firstBeat)); n != 1 {
		t.Errorf("said %d times", n)
	}

	// A worker that only says goodbye does not log that it beats.
	var none bustest.Log
	w, err := New(nc, Config{Hive: "gpu-01", ID: "llama", Logger: none.Logger(slog.LevelInfo)})
	must(t, err)
	b, err := w.snapshot(bus.WhyLast)
	must(t, err)
	must(t, w.send(b))
	if len(lines(&none, firstBeat)) != 0 {
		t.Error(none.String())
	}
}
