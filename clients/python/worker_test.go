//go:build unix

package python_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A hive takes the worker as alive, with every fact, and it leaves at the normal end.
func TestAliveAndLeft(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	heard := listen(t, f.nc)
	p := start(t, f.srv.URL(), "gpu-01", "snake", hour+`, model="päivää-8b", slots=8, state="loading"`)
	before, booted := time.Now(), bootid.Clock()
	p.do(`w.set(endpoint="http://10.0.0.7:8000", gpus=["GPU-1", "GPU-2"], need=20 << 30, vram=8 << 30, busy=3, queue=1, done=100)`,
		`w.set(labels={"tier": "gold", "a": "b"}, data=b"\x00\xff")`, `w.start()`)
	r := f.await(p, "snake", "live worker", live(hivebeat.Alive))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	b := heard.await(p, 0, "beat", anyBeat)
	want := hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: "snake", Facts: hivebeat.Facts{
		Inc: b.Inc, Every: 3_600_000, State: hivebeat.Loading, PID: uint64(p.cmd.Process.Pid), NS: ns(),
		Host: host, Conn: b.Conn, RW: 250, Model: "päivää-8b", Endpoint: "http://10.0.0.7:8000", GPUs: []string{"GPU-1", "GPU-2"},
		Slots: 8, Need: 20 << 30, Labels: map[string]string{"tier": "gold", "a": "b"}, Data: []byte{0, 255},
		Seq: 1, Sent: b.Sent, VRAM: 8 << 30, Busy: 3, Queue: 1, Done: 100,
	}, Boot: b.Boot}
	if got, want := fmt.Sprintf("%+v", b.Beat), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("the first beat:\n got %s\nwant %s", got, want)
	}
	if now := bootid.Clock(); ns() != "" && (b.Boot < booted || b.Boot > now) {
		t.Errorf("sent at %d of the boot clock, want %d to %d", b.Boot, booted, now)
	}
	if inc := time.UnixMicro(int64(b.Inc)); inc.Before(before.Truncate(time.Microsecond)) || inc.After(time.Now()) {
		t.Errorf("incarnation %d is %s, begun at %s", b.Inc, inc, before)
	}
	if id := f.srv.ID() + "/"; !strings.HasPrefix(b.Conn, id) || b.Conn == id {
		t.Errorf("it says that its connection is %q, of server %s", b.Conn, f.srv.ID())
	}
	if r.Facts.Model != want.Model || !maps.Equal(r.Labels, want.Labels) {
		t.Errorf("the record: %+v", r)
	}
	// This project's writer has the same order of keys, and the same form for each value.
	if again, err := bus.Encode(&b.Beat); err != nil || !bytes.Equal(again, b.raw) {
		t.Errorf("the beat is not what this project writes (%v):\n got %x\nwant %x", err, b.raw, again)
	}
	if err := p.stdin.Close(); err != nil { // the program ends, and never calls stop
		t.Fatal(err)
	}
	p.ends()
	f.await(p, "snake", "goodbye", live(hivebeat.Left))
	if last := heard.await(p, 1, "goodbye", in(hivebeat.Stopped)); last.Quiet != 0 || last.Seq != 2 {
		t.Errorf("the goodbye: %+v", last.Beat)
	}
}

// A queen offers a place on a worker in Python, and none once it drains.
func TestPicked(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	q, err := queen.New(f.nc, queen.Config{NoJetStream: true})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- q.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(q.Stop(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	p := start(t, f.srv.URL(), "gpu-01", "snake", hour+`, model="m", slots=2, busy=1`)
	p.do(`w.start()`)
	picks := func(n int) {
		t.Helper()
		bustest.Eventually(t, patience, func() (bool, string) {
			a := q.Answer(t.Context(), api.VerbPick, api.Request{Filter: api.Filter{Model: "m"}, N: 2})
			return len(a.Picks) == n, fmt.Sprintf("%d picks, want %d: %+v\n%s", len(a.Picks), n, a, p.log.String())
		})
	}
	picks(1)
	p.do(`w.state("draining")`)
	picks(0)
	p.do(`w.state("ready")`)
	picks(1)
	p.do(`w.add(busy=1)`)
	picks(0)
}

// Keys that a later revision of the protocol names stand at their places. A reader of
// today skips them.
func TestLaterKeys(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	heard := listen(t, bustest.Conn(t, srv))
	p := start(t, srv.URL(), "gpu-01", "snake", hour)
	p.do(`w.set(model="m", data=b"x", ver="0.11.2", engine="vllm", ctx=131072, kv_cap=1 << 20, kv=0.5, tokens=7)`, `w.start()`)
	b := heard.await(p, 0, "beat", anyBeat)
	d := msgpack.NewDecoder(bytes.NewReader(b.raw))
	n, err := d.DecodeMapLen()
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	values := map[string]any{}
	for range n {
		key, err := d.DecodeString()
		if err != nil {
			t.Fatal(err)
		}
		if values[key], err = d.DecodeInterface(); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	if got, want := strings.Join(keys, " "), "v hive worker inc every state pid ns host conn rw model data engine ver ctx kv_cap seq sent vram busy queue done tokens kv boot"; got != want {
		t.Errorf("keys:\n got %s\nwant %s", got, want)
	}
	if values["kv"] != 0.5 || values["engine"] != "vllm" || values["ver"] != "0.11.2" || fmt.Sprint(values["ctx"], values["kv_cap"]) != "131072 1048576" {
		t.Errorf("values: %v", values)
	}
}

// The rhythm is the promise × 0.85 to 0.95, and a server that pings often keeps the
// connection.
func TestRhythm(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		o.PingInterval, o.MaxPingsOut = 100*time.Millisecond, 2
	}))
	heard := listen(t, bustest.Conn(t, srv))
	p := start(t, srv.URL(), "gpu-01", "snake", `every=0.2`)
	p.do(`w.start()`)
	heard.await(p, 0, "8 beats", func(b beat) bool { return b.Seq == 8 })
	for i, b := range heard.all() {
		if b.Seq != uint64(i+1) {
			t.Errorf("beat %d has seq %d", i+1, b.Seq)
		}
		// By the sender's clock. How late a beat may be depends on the machine.
		if i > 1 && b.Sent-heard.all()[i-1].Sent < 165 {
			t.Errorf("beat %d came %d ms after the one before, want 170 to 190", i+1, b.Sent-heard.all()[i-1].Sent)
		}
	}
}

// A change of state is sent at once: nothing else is due within the hour.
func TestState(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	p := start(t, f.srv.URL(), "gpu-01", "snake", hour+`, state="starting"`)
	p.do(`w.start()`)
	f.await(p, "snake", "live worker", live(hivebeat.Alive))
	p.do(`w.state("loading", "weights")`)
	r := f.await(p, "snake", "loading", func(r hivebeat.Record) bool { return r.State == hivebeat.Loading })
	if r.Reason != "weights" || r.Seq != 2 {
		t.Errorf("loading: %+v", r)
	}
	p.do(`w.state("ready")`, `w.set(busy=1)`, `w.state("busy", "x" * 300)`)
	r = f.await(p, "snake", "busy", func(r hivebeat.Record) bool { return r.State == hivebeat.Busy })
	if r.Busy != 1 || len(r.Reason) > 256 || !strings.HasSuffix(r.Reason, "x…") {
		t.Errorf("busy: %+v", r)
	}
	p.do(`w.failed("out of memory")`)
	r = f.await(p, "snake", "goodbye", live(hivebeat.Left))
	if r.State != hivebeat.Failed || r.Reason != "out of memory" {
		t.Errorf("the goodbye: %+v", r)
	}
	p.do(`w.state("ready")`, `w.set(busy=2)`, `w.stop()`) // after the goodbye they do nothing
	if got := p.try(`w.start()`); !strings.HasPrefix(got, "RuntimeError") {
		t.Errorf("it starts again: %s", got)
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	heard := listen(t, f.nc)
	p := start(t, f.srv.URL(), "gpu-01", "snake", hour+`, state="loading"`)
	p.do(`w.start()`)
	heard.await(p, 0, "a beat", anyBeat)
	p.do(`q = w.quiet(300, wait=30); assert q.announced`)
	var quiet []beat
	bustest.Eventually(t, patience, func() (bool, string) {
		quiet = slices.DeleteFunc(heard.all(), func(b beat) bool { return b.Quiet == 0 })
		return len(quiet) == 3, fmt.Sprintf("announced %d times: %+v", len(quiet), heard.all())
	})
	for i, b := range quiet {
		if b.Quiet > 300_000 || b.Quiet < 270_000 || i > 0 && b.Quiet >= quiet[i-1].Quiet {
			t.Errorf("announcement %d is of %s", i+1, b.Quiet.Duration())
		}
	}
	f.await(p, "snake", "quiet worker", func(r hivebeat.Record) bool { return r.Quiet > 0 })
	from := len(heard.all())
	p.do(`w.state("starting")`) // still no work: the silence continues
	if b := heard.await(p, from, "starting", in(hivebeat.Starting)); b.Quiet == 0 {
		t.Errorf("the silence ended: %+v", b.Beat)
	}
	p.do(`w.state("ready")`)
	if b := heard.await(p, from, "ready", in(hivebeat.Ready)); b.Quiet != 0 {
		t.Errorf("ready, and quiet: %+v", b.Beat)
	}
	from = len(heard.all())
	p.do(`exec("with w.quiet(60, wait=30) as q:\n assert q.announced\n w.state('loading')")`)
	if b := heard.await(p, from, "the end of the silence", func(b beat) bool { return b.Quiet == 0 }); b.State != hivebeat.Loading {
		t.Errorf("after the block: %+v", b.Beat)
	}
	from = len(heard.all())
	p.do(`w.quiet(60, wait=0)`, `w.quiet(0)`)
	heard.await(p, from, "the end of the silence", func(b beat) bool { return b.Quiet == 0 })
	p.do(`w.quiet(60)`, `w.stop()`)
	if b := heard.await(p, 0, "the goodbye", in(hivebeat.Stopped)); b.Quiet != 0 {
		t.Errorf("a goodbye that is quiet: %+v", b.Beat)
	}
}

// ns returns what the package sends as ns: it reads it only on Linux.
func ns() string {
	if runtime.GOOS != "linux" {
		return ""
	}
	return bootid.Namespace()
}

// A program that handles SIGTERM says goodbye. A killed one is lost by its pid.
func TestSignals(t *testing.T) {
	t.Parallel()
	if ns() == "" {
		t.Skip("no hive can watch a process of Python here")
	}
	f := newFabric(t)
	stopped, killed := start(t, f.srv.URL(), "gpu-01", "stopped", hour), start(t, f.srv.URL(), "gpu-01", "killed", hour)
	for id, p := range map[string]*program{"stopped": stopped, "killed": killed} {
		p.do(`w.start()`)
		f.await(p, id, "live worker", live(hivebeat.Alive))
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		return f.hive.Stats().Watched == 2, fmt.Sprintf("%d of 2 processes are watched", f.hive.Stats().Watched)
	})
	if err := stopped.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stopped.ends()
	f.await(stopped, "stopped", "goodbye", live(hivebeat.Left))
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := f.await(killed, "killed", "death", live(hivebeat.Lost)); r.Cause != hivebeat.CauseExit {
		t.Errorf("it is lost by %s", r.Cause)
	}
}

func TestReconnect(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	heard := listen(t, bustest.Conn(t, srv))
	p := start(t, srv.URL(), "gpu-01", "snake", `every=0.5`)
	p.do(`w.start()`)
	first := heard.await(p, 0, "beat", anyBeat)
	bustest.Stop(t, srv)
	p.awaitLog("no connection to NATS")
	p.do(`w.state("degraded", "meanwhile")`, `t = time.monotonic(); w.set(busy=1); assert time.monotonic() - t < 5`)
	from := len(heard.all())
	srv = bustest.Restart(t, srv)
	b := heard.await(p, from, "beat", anyBeat)
	if b.Conn == first.Conn || b.Inc != first.Inc || b.Reason != "meanwhile" || b.Busy != 1 {
		t.Errorf("after the restart: %+v", b.Beat)
	}
	if last := heard.all()[from-1]; b.Seq <= last.Seq {
		t.Errorf("seq %d after %d", b.Seq, last.Seq)
	}
	p.awaitLog("INFO connected to NATS")
	bustest.Stop(t, srv)
	if got := p.try(`assert not w.stop(timeout=0.2)`); got != "ok" { // stopping works without NATS too
		t.Error(got)
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	p.ends()
}

// A goodbye that meets a restarting server is sent once that is back.
func TestGoodbyeDuringARestart(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	heard := listen(t, bustest.Conn(t, srv))
	p := start(t, srv.URL(), "gpu-01", "snake", hour)
	p.do(`w.start()`)
	heard.await(p, 0, "beat", anyBeat)
	bustest.Stop(t, srv)
	p.awaitLog("no connection to NATS")
	p.do(`threading.Thread(target=lambda: print("told", w.stop(30), flush=True)).start()`)
	bustest.Restart(t, srv)
	if got := p.read("the end of stop"); got != "told True" {
		t.Errorf("%s\n%s", got, p.log.String())
	}
}

// A worker leaves a server that does not answer for the other one that it knows.
func TestMovesFromAStalledServer(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	heard := listen(t, bustest.Conn(t, srv))
	var proxies [2]*bustest.Proxy
	for i := range proxies {
		proxies[i] = bustest.NewProxy(t, srv.URL())
	}
	p := start(t, proxies[0].URL()+","+proxies[1].URL(), "gpu-01", "snake", `every=1`)
	p.do(`w.start()`)
	heard.await(p, 0, "beat", anyBeat)
	for _, proxy := range proxies {
		if proxy.Conns() > 0 {
			proxy.Stall()
		}
	}
	first := heard.all()[0]
	heard.await(p, 0, "a beat over the other server", func(b beat) bool { return b.Conn != first.Conn })
}

// Threads set facts at the same time: none is lost, and beats come once a second at most.
func TestThreads(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	heard := listen(t, bustest.Conn(t, srv))
	p := start(t, srv.URL(), "gpu-01", "snake", hour)
	p.do(`w.start()`)
	heard.await(p, 0, "beat", anyBeat)
	p.do(`work = lambda: [(w.add(done=1), w.set(queue=i % 7)) for i in range(2000)]`,
		`ts = [threading.Thread(target=work) for _ in range(2)]`,
		`[t.start() for t in ts]; [t.join() for t in ts]; w.set(queue=3)`)
	heard.await(p, 0, "beat with all of it", func(b beat) bool { return b.Done == 4000 && b.Queue == 3 })
	list := heard.all()
	for i, b := range list[1:] {
		if gap := b.Sent - list[i].Sent; gap < 980 {
			t.Errorf("beat %d came %d ms after the one before, want a second", i+2, gap)
		}
	}
}

// Another task runs while the worker announces a silence and says goodbye: nothing
// holds up the loop.
func TestAsyncio(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	heard := listen(t, f.nc)
	p := start(t, f.srv.URL(), "gpu-01", "snake", hour+`, state="loading"`)
	p.run(`
async def main():
    ticks = []
    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)
    ticking = asyncio.create_task(tick())
    async with w:
        async with w.quiet(60, wait=0):  # half a second, unless the machine is busy
            assert len(ticks) >= 10, len(ticks)
        w.state("ready")
        w.set(busy=1)
        await asyncio.sleep(1.2)
    ticking.cancel()
asyncio.run(main())
`)
	f.await(p, "snake", "goodbye", live(hivebeat.Left))
	heard.await(p, 0, "announced silence", func(b beat) bool { return b.Quiet > 0 })
	heard.await(p, 0, "busy worker", func(b beat) bool { return b.Busy == 1 && b.State == hivebeat.Ready })
}

// A forked child neither beats nor says goodbye, whatever it calls, and does not keep the
// connection open: when the parent is killed, the server sees that connection close.
func TestFork(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	heard := listen(t, f.nc)
	proxy := bustest.NewProxy(t, f.srv.URL())
	p := start(t, proxy.URL(), "gpu-01", "snake", "every=0.5")
	p.do(`w.start()`)
	b := heard.await(p, 0, "beat", anyBeat)
	p.run(`
def child():
    w.state("busy", "child")
    w.set(busy=7)
    with w.quiet(60):
        pass
    assert not w.stop() and not w.failed("child")
    try:
        w.start()
    except RuntimeError:
        sys.exit(0)  # runs what atexit knows, which must hold no goodbye
    os._exit(3)
pid = os.fork()
if pid == 0:
    child()
assert os.waitpid(pid, 0)[1] == 0
stays = os.fork()
if stays == 0:
    time.sleep(60)
    os._exit(0)
`)
	var child int
	if _, err := fmt.Sscan(p.try(`print(stays)`), &child); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })
	if got := p.read("the end of that line"); got != "ok" {
		t.Fatal(got)
	}
	p.do(`w.set(done=1)`)
	from := len(heard.all())
	heard.await(p, from, "third beat", func(b beat) bool { return b.Seq >= heard.all()[from-1].Seq+3 })
	for i, one := range heard.all() {
		if one.Seq != uint64(i+1) || one.PID != b.PID || one.Conn != b.Conn || one.Busy != 0 || one.State != hivebeat.Ready {
			t.Errorf("beat %d: %+v", i+1, one.Beat)
		}
	}
	if n := proxy.Conns(); n != 1 {
		t.Fatalf("%d connections", n)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		return proxy.Conns() == 0, fmt.Sprintf("%d connections of a killed parent", proxy.Conns())
	})
}

// A child of multiprocessing may have a worker of its own.
func TestForkedChildBeatsForItself(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	p := start(t, f.srv.URL(), "gpu-01", "parent", hour)
	p.do(`w.start()`)
	f.await(p, "parent", "live worker", live(hivebeat.Alive))
	p.run(`
import multiprocessing
def engine():
    with hivebeat.Worker("gpu-01", "child", every=3600) as mine:
        mine.set(busy=1)
        time.sleep(0.2)
child = multiprocessing.get_context("fork").Process(target=engine)
child.start()
child.join()
assert child.exitcode == 0, child.exitcode
`)
	f.await(p, "child", "goodbye", live(hivebeat.Left))
	f.await(p, "parent", "live parent", live(hivebeat.Alive))
}

func TestRollCall(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	heard := listen(t, nc)
	p := start(t, srv.URL(), "gpu-01", "snake", hour)
	p.do(`w.start()`)
	inc := heard.await(p, 0, "beat", anyBeat).Inc
	call := func(payload string) {
		t.Helper()
		if err := nc.Publish("hive.gpu-01.rollcall", []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	seq := func(n uint64) func(beat) bool { return func(b beat) bool { return b.Seq == n } }
	for _, bad := range []string{"-1", "soon", "9999999999", "1.5", "\xff\x00", "PING\r\nMSG x 1 4\r\n9999\r\n", strings.Repeat("x", 500_000)} {
		call(bad)
	}
	call("") // Calls are read in order: this one is answered if the bad ones did no harm.
	heard.await(p, 0, "answer", seq(2))
	begin := time.Now()
	for range 100 {
		call("0")
	}
	heard.await(p, 0, "answer", seq(3))
	call("50")
	heard.await(p, 0, "answer", seq(4))
	if n, most := len(heard.all()), 4+int(time.Since(begin)/time.Second); n > most {
		t.Errorf("%d beats for a flood of roll calls, at most %d are allowed", n, most)
	}
	// Notices are logged, once a minute, if they are about this incarnation.
	for _, n := range []hivebeat.Notice{{ID: "other", Inc: inc, Believed: 1}, {ID: "snake", Inc: inc + 1, Believed: inc}, {ID: "snake", Inc: inc, Believed: inc + 5}, {ID: "snake", Inc: inc, Believed: inc + 5}} {
		call(string(n.Append(nil)))
	}
	call("0")
	heard.await(p, 0, "answer", seq(5))
	if log := p.log.String(); strings.Count(log, "refused") != 1 || !strings.Contains(log, fmt.Sprint(inc+5)) {
		t.Errorf("of two notices it logs\n%s", log)
	}
}

func TestPinnedAndPrefix(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	heard := listen(t, bustest.Conn(t, srv), "acme.hive.gpu-01.workers.snake")
	p := start(t, srv.URL(), "gpu-01", "snake", `pinned=True, prefix="acme"`)
	p.do(`w.start()`)
	heard.await(p, 0, "beat", anyBeat)
}

// Without a hive the worker says so, and says when one is there.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	p := start(t, srv.URL(), "gpu-01", "snake", hour)
	p.do(`w.start()`)
	p.awaitLog("INFO no hive subscribes to hive.gpu-01.workers")
	nc := bustest.Conn(t, srv)
	heard := listen(t, nc)
	if err := nc.Publish("hive.gpu-01.rollcall", []byte("0")); err != nil {
		t.Fatal(err)
	}
	heard.await(p, 0, "answer", anyBeat)
	p.awaitLog("INFO a hive subscribes to hive.gpu-01.workers")
}

// What no beat may hold is refused with the name of the field, and changes nothing.
func TestBadValues(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	p := start(t, f.srv.URL(), "gpu-01", "snake", `every=0.5, model="m", slots=2`)
	p.do(`w.start()`)
	for _, bad := range []struct{ line, want string }{
		{`w.set(slots=3, model="x" * 257)`, "ValueError: model: "},
		{`w.set(endpoint="x" * 513)`, "ValueError: endpoint: "},
		{`w.set(busy=-1)`, "ValueError: busy: "},
		{`w.set(done=1 << 53)`, "ValueError: done: "},
		{`w.set(busy=1.5)`, "TypeError: busy: "},
		{`w.set(gpus=["x"] * 65)`, "ValueError: gpus: "},
		{`w.set(gpus="GPU-1")`, "TypeError: gpus: "},
		{`w.set(labels={"k": "v" * 129})`, "ValueError: labels: "},
		{`w.set(data=b"x" * 1025)`, "ValueError: data: "},
		{`w.set(kv=1.5)`, "ValueError: kv: "},
		{`w.set(engine="\ud800")`, "ValueError: engine: "},
		{`w.set(gpus=[str(i) * 64 for i in range(10)] * 6, labels={str(i) * 31: "v" * 128 for i in range(10, 42)})`, "ValueError: facts: "},
		{`w.set(colour="red")`, "TypeError: 'colour' is not a fact"},
		{`w.add(busy=-1)`, "ValueError: busy: "},
		{`w.state("stopped")`, "ValueError: state: stopped is a goodbye"},
		{`w.state("x" * 33)`, "ValueError: state: "},
		{`w.quiet(-1)`, "ValueError: quiet: "},
		{`hivebeat.Worker("gpu.01", "x")`, `ValueError: hive: 'gpu.01'`},
		{`hivebeat.Worker("gpu-01", "x\n")`, `ValueError: id: 'x\n'`},
		{`hivebeat.Worker("gpu-01", "x", prefix="_INBOX")`, "ValueError: prefix: "},
		{`hivebeat.Worker("gpu-01", "x", every=0.05)`, "ValueError: every: "},
		{`hivebeat.Worker("gpu-01", "x", model="x" * 257)`, "ValueError: model: "},
		{`hivebeat.Worker("gpu-01", "x", nats="ws://me:secret@host")`, `ValueError: nats: 'ws://host' has the scheme ws`},
		{`hivebeat.Worker("gpu-01", "x", nats="nats://me:sec/ret@host")`, `ValueError: nats: 'nats://host' is not the URL`},
	} {
		if got := p.try(bad.line); !strings.HasPrefix(got, bad.want) || strings.Contains(got, "sec") && strings.Contains(got, "me:") {
			t.Errorf("%s: %s, want %s…", bad.line, got, bad.want)
		}
	}
	p.do(`w.set(done=1)`)
	r := f.await(p, "snake", "beat", func(r hivebeat.Record) bool { return r.Done == 1 })
	if r.Facts.Model != "m" || r.Slots != 2 || r.State != hivebeat.Ready {
		t.Errorf("after the bad values: %+v", r)
	}
}
