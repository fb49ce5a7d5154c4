package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// Without NATS the wait of Quiet is bounded, and the silence is announced once NATS is
// back.
func TestQuietWithoutNATS(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	ears, nc := bustest.Conn(t, srv), bustest.Conn(t, srv)
	e := listen(t, ears)
	w := run(t, nc, Config{Every: 200 * time.Millisecond}) // the subscriber may come back after the worker
	e.wait(0, "the first beat", anyBeat)
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) { return !nc.IsConnected(), "still connected" })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := w.Quiet(ctx, time.Minute); err == nil || !strings.Contains(err.Error(), "announced only 0 of 3") {
		t.Errorf("Quiet without NATS: %v", err)
	}
	bustest.Restart(t, srv)
	e.wait(0, "the silence", func(h heard) bool { return h.Quiet > 0 })
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
	// The subscriber may come back after the worker, and so miss one beat.
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

// NATS goes away and comes back. One beat is sent at once and reports the current
// state. None of the beats that were due meanwhile is sent, although the connection
// could buffer 8 MB.
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
		_ = w.Stop(t.Context()) // must return
		_ = w.SetState(hivebeat.Ready, "")
	}
}

// The connection hangs and nothing has noticed yet: every call of the program returns,
// at once or when its ctx ends.
func TestStalledLine(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	proxy := bustest.NewProxy(t, srv.URL())
	nc := bustest.Dial(t, proxy.URL())
	w := run(t, nc, Config{Every: 100 * time.Millisecond})
	e.wait(0, "the first beat", anyBeat)
	proxy.Stall()
	must(t, w.SetState(hivebeat.Degraded, ""))
	must(t, w.Update(func(f *Facts) { f.Busy++ }))
	for _, c := range []struct {
		what string
		call func(context.Context) error
	}{
		{"Quiet", func(ctx context.Context) error { return w.Quiet(ctx, time.Minute) }},
		{"Stop", w.Stop},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		returned := make(chan error, 1)
		go func() { returned <- c.call(ctx) }()
		select {
		case err := <-returned:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s on a stalled line: %v, want the end of its ctx", c.what, err)
			}
		case <-time.After(patience):
			t.Errorf("%s hangs on a stalled line", c.what)
		}
		cancel()
	}
}
