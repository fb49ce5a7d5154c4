package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/worker"
)

// withSystem gives the test access to the system account, as hive --serve does.
func withSystem(c *embedded.Config) { c.System = true }

// deployment starts a NATS as others run it, with one account for all users and a
// system account, whose user is sys with the password sys.
func deployment(t *testing.T) *embedded.Server {
	t.Helper()
	return bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		app, sys := embedded.NewAccount("APP"), embedded.NewAccount("SYS")
		o.Accounts, o.SystemAccount = []*embedded.Account{app, sys}, "SYS"
		o.Users = []*embedded.User{{Username: "app", Password: "app", Account: app}, {Username: "sys", Password: "sys", Account: sys}}
		o.NoAuthUser = "app"
	}))
}

func asSystem(t testing.TB, url string) *nats.Conn {
	t.Helper()
	return agent(t, url, nats.UserInfo("sys", "sys"))
}

// agent returns a connection with the defaults of package bus.
func agent(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := bus.Connect(context.Background(), bus.Config{URL: url, FailFast: true, Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// beating runs a worker until the test ends.
func beating(t testing.TB, nc *nats.Conn, id string) {
	t.Helper()
	w, err := worker.New(nc, worker.Config{Hive: thisHive, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		nc.Close() // the server may be gone, so no goodbye
		cancel()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the worker did not end")
		}
	})
}

// hearing runs a hive that receives disconnects, and does not watch processes.
func hearing(t *testing.T, nc, sys *nats.Conn, log *text) *Hive {
	t.Helper()
	cfg := quickConfig()
	cfg.System, cfg.NoExitWatch, cfg.Logger = sys, true, log.Logger(slog.LevelDebug)
	h := running(t, nc, cfg)
	awaitText(t, log, "hears workers")
	bustest.Flush(t, nc)
	bustest.Flush(t, sys)
	return h
}

// overhearing runs a hive that receives the disconnects of its server, and a
// subscriber to its snapshots.
func overhearing(t *testing.T, log *text) (*embedded.Server, *queen, *Hive) {
	t.Helper()
	srv := deployment(t)
	q := listening(t, bustest.Conn(t, srv))
	return srv, q, hearing(t, bustest.Conn(t, srv), asSystem(t, srv.URL()), log)
}

const windowOpened = "a worker's connection closed"

func awaitWindows(t *testing.T, log *text, n int) {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) {
		got := strings.Count(log.String(), windowOpened)
		return got >= n, fmt.Sprintf("%d windows, want %d", got, n)
	})
}

// pastWindow is longer than the window of a connection that package bus made, plus what
// a busy machine takes to judge.
const pastWindow = liveness.FastWindow + 500*time.Millisecond

// neverLost fails the test if h finds a worker lost before during is over.
func neverLost(t *testing.T, during time.Duration, h *Hive) {
	t.Helper()
	bustest.Never(t, during, func() (bool, string) {
		s := h.Stats()
		return len(s.Lost) > 0, fmt.Sprintf("a worker was lost: %+v", s)
	})
}

// nobodyLost fails the test unless h knows all workers and neither h nor the snapshots
// that q received tell of one that was lost.
func nobodyLost(t *testing.T, h *Hive, q *queen, workers int) {
	t.Helper()
	if s := h.Stats(); len(s.Lost) != 0 || s.Workers != workers || s.FalseDead != 0 {
		t.Errorf("want %d workers and nobody lost: %+v", workers, s)
	}
	for _, s := range q.all() {
		for _, w := range s.Workers {
			if w.Live == hivebeat.Lost {
				t.Fatalf("%s was lost, cause %s", w.Worker, w.Cause)
			}
		}
	}
}

// The conn of a hive's snapshots names its connection: a queen that receives
// disconnects recognizes it by that.
func TestAHiveNamesItsConnection(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	q := listening(t, bustest.Conn(t, srv))
	line := bustest.NewProxy(t, srv.URL())
	nc := agent(t, line.URL())
	running(t, nc, quickConfig())
	before := bus.ConnID(nc)
	q.await(t, "its connection", func(s said) bool { return s.Conn == before && s.RW == hivebeat.MillisOf(bus.ReconnectWait) })
	line.Kick()
	q.await(t, "the one after", func(s said) bool { return s.Conn != "" && s.Conn != before && s.Conn == bus.ConnID(nc) })
}

func TestAKilledWorkerIsLostByItsConnection(t *testing.T) {
	for _, c := range []struct {
		what   string
		window time.Duration
	}{{processAgent, 2 * second}, {processWorks, 5 * second}} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			var log text
			srv := bustest.Server(t, bustest.NoJetStream(), withSystem)
			nc := bustest.Conn(t, srv)
			q := listening(t, nc)
			sys, err := nats.Connect("", srv.SystemOptions()...)
			if err != nil {
				t.Fatal(err)
			}
			defer sys.Close()
			h := hearing(t, bustest.Conn(t, srv), sys, &log)
			var list []*child
			for i := range 3 { // one more would count as the server's
				list = append(list, newChild(t, c.what, srv.URL(), fmt.Sprint("w", i)))
				q.await(t, "the worker", withWorker(fmt.Sprint("w", i), hivebeat.Alive))
			}
			killed := time.Now()
			for _, c := range list {
				c.kill()
			}
			awaitWindows(t, &log, 3)
			for i := range list {
				s := q.await(t, "its death", lostBy(fmt.Sprint("w", i), hivebeat.CauseDisconnect))
				if d := s.at.Sub(killed); d < c.window {
					t.Errorf("lost after %s, before its window of %s", d, c.window)
				} else {
					t.Logf("told %s after its window", d-c.window)
				}
			}
			if s := h.Stats(); s.Lost[hivebeat.CauseDisconnect] != 3 || s.FalseDead+s.CutOff != 0 {
				t.Errorf("stats %+v", s)
			}
			awaitText(t, &log, "its connection closed (Client Closed) and it did not come back within "+c.window.String())
		})
	}
}

// A kicked connection comes back, and with it the worker.
func TestAConnectionThatMovedKillsNobody(t *testing.T) {
	t.Parallel()
	var log text
	srv, q, h := overhearing(t, &log)
	line := bustest.NewProxy(t, srv.URL())
	beating(t, agent(t, line.URL()), "w")
	q.await(t, "the worker", withWorker("w", hivebeat.Alive))
	pace := time.NewTicker(500 * time.Millisecond) // fewer than a batch close within a second
	defer pace.Stop()
	for i := range 4 {
		heard := h.Stats().Beats
		line.Kick()
		awaitWindows(t, &log, i+1)
		awaitBeats(t, h, heard+1)
		<-pace.C
	}
	neverLost(t, pastWindow, h)
	nobodyLost(t, h, q, 1)
}

// A stopped process does not answer its server's pings, nor does one that loads a
// model: the server closes its connection. That counts as silence, which has its own
// deadline.
func TestAStaleConnectionIsNoDeath(t *testing.T) {
	t.Parallel()
	var log text
	srv := bustest.Server(t, bustest.NoJetStream(), withSystem, bustest.Configure(func(o *embedded.Options) {
		o.PingInterval, o.MaxPingsOut = 100*time.Millisecond, 1
	}))
	nc := bustest.Conn(t, srv)
	q := listening(t, nc)
	sys, err := nats.Connect("", srv.SystemOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	closed, err := sys.SubscribeSync(link.DisconnectSubject)
	if err != nil {
		t.Fatal(err)
	}
	h := hearing(t, bustest.Conn(t, srv), sys, &log)
	line := bustest.NewProxy(t, srv.URL())
	beating(t, agent(t, line.URL()), "w")
	q.await(t, "the worker", withWorker("w", hivebeat.Alive))
	line.Stall()
	m, err := closed.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := link.ParseDisconnect(m.Data); err != nil || d.Reason != "Stale Connection" || d.Evidence() {
		t.Errorf("%+v, %v", d, err)
	}
	neverLost(t, pastWindow, h)
	nobodyLost(t, h, q, 1)
	line.Resume()
}

// A script that reconnects repeatedly says nothing about its server: a worker that is
// killed next to it is lost within its window.
func TestStrangersDoNotHideADeath(t *testing.T) {
	t.Parallel()
	var log text
	srv, q, h := overhearing(t, &log)
	c := newChild(t, processAgent, srv.URL(), "w")
	q.await(t, "the worker", withWorker("w", hivebeat.Alive))
	bustest.Churn(t, srv.URL(), second/20)
	killed := time.Now()
	c.kill()
	s := q.await(t, "its death", lostBy("w", hivebeat.CauseDisconnect))
	if d := s.at.Sub(killed); d < 2*second {
		t.Errorf("lost after %s, before its window", d)
	} else {
		t.Logf("told %s after its window", d-2*second)
	}
	if s := h.Stats(); s.Lost[hivebeat.CauseDisconnect] != 1 || s.FalseDead+s.CutOff != 0 || s.DisconnectsIgnored != 0 {
		t.Errorf("stats %+v", s)
	}
	if strings.Contains(log.String(), tooMany) {
		t.Errorf("warns of clients that pass by:\n%s", log.String())
	}
}

const tooMany = "connections of a NATS server close many at once"

// Clients that the server refuses may be workers that it does not let back in. They
// count as disconnects and no worker is lost, but if it lasts, the log warns once.
func TestThoseThatAreRefusedCountAndThatIsTold(t *testing.T) {
	t.Parallel()
	var log text
	srv, q, h := overhearing(t, &log)
	beating(t, agent(t, srv.URL()), "w")
	q.await(t, "the worker", withWorker("w", hivebeat.Alive))
	began := time.Now()
	for range 4 {
		bustest.Churn(t, srv.URL(), second/20, nats.UserInfo("nobody", "nothing"))
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		n := h.Stats().DisconnectsIgnored
		return n >= 20, fmt.Sprint(n, " were ignored")
	})
	awaitText(t, &log, tooMany)
	if d := time.Since(began); d < liveness.TellAfter {
		t.Errorf("told after %s, when it might have been over", d)
	}
	nobodyLost(t, h, q, 1)
	if n := strings.Count(log.String(), tooMany); n != 1 {
		t.Errorf("told %d times", n)
	}
	if !strings.Contains(log.String(), "Authentication Failure") {
		t.Errorf("does not say why they close:\n%s", log.String())
	}
}

// Fifty workers are cut off for longer than their window, and the hive is not: no
// worker is lost by that.
func TestManyDisconnectsAreTheServers(t *testing.T) {
	t.Parallel()
	var log text
	srv, q, h := overhearing(t, &log)
	line := bustest.NewProxy(t, srv.URL())
	const many = 50
	for i := range many {
		beating(t, agent(t, line.URL()), fmt.Sprint("w", i))
	}
	q.await(t, "all workers", func(s said) bool { return len(s.Workers) == many })
	line.Cut()
	neverLost(t, 3*second, h)
	line.Restore()
	bustest.Eventually(t, patience, func() (bool, string) { return line.Conns() == many, fmt.Sprint(line.Conns(), " are back") })
	neverLost(t, second, h)
	nobodyLost(t, h, q, many)
}

func TestAServerRestartKillsNobody(t *testing.T) {
	t.Parallel()
	for _, many := range []int{2, 50, crowd} {
		t.Run(fmt.Sprint(many), func(t *testing.T) {
			t.Parallel()
			var log text
			srv := deployment(t)
			nc := bustest.Conn(t, srv)
			q := listening(t, nc)
			system := asSystem(t, srv.URL())
			h := hearing(t, agent(t, srv.URL()), system, &log)
			for i := range many {
				beating(t, agent(t, srv.URL()), fmt.Sprint("w", i))
			}
			q.await(t, "all workers", func(s said) bool { return len(s.Workers) == many })
			heard := h.Stats().Beats
			bustest.Stop(t, srv)
			neverLost(t, pastWindow, h)
			again := bustest.Restart(t, srv)
			awaitBeats(t, h, heard+uint64(many))
			nobodyLost(t, h, q, many)

			// The hive receives the next disconnect once it is connected to the system
			// account again.
			bustest.Eventually(t, patience, func() (bool, string) { return system.IsConnected(), system.Status().String() })
			bustest.Flush(t, system)
			c := newChild(t, processAgent, again.URL(), "next")
			q.await(t, "the worker", withWorker("next", hivebeat.Alive))
			c.kill()
			q.await(t, "its death", lostBy("next", hivebeat.CauseDisconnect))
		})
	}
}

// A hive that is cut off itself discards earlier disconnects: a worker that does not
// come back may be cut off as well, and waits longer with each attempt.
func TestACutHiveForgetsDisconnects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		wait time.Duration // longer than the window plus the credited time
	}{{"system", 2500 * time.Millisecond}, {"own", 8500 * time.Millisecond}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log text
			srv := deployment(t)
			nc := bustest.Conn(t, srv)
			q := listening(t, nc)
			lines := map[string]*bustest.Proxy{"own": bustest.NewProxy(t, srv.URL()), "system": bustest.NewProxy(t, srv.URL())}
			h := hearing(t, agent(t, lines["own"].URL()), asSystem(t, lines["system"].URL()), &log)
			gone := agent(t, srv.URL())
			w := newFake("w")
			w.Conn = bus.ConnID(gone)
			publish(t, nc, beats, w.Next(t))
			awaitBeats(t, h, 1)
			gone.Close()
			awaitWindows(t, &log, 1)
			lines[c.name].Kick()
			neverLost(t, c.wait, h)
			nobodyLost(t, h, q, 1)
		})
	}
}

// A connection to another account receives no disconnects, and does no harm.
func TestASystemConnectionThatIsNone(t *testing.T) {
	t.Parallel()
	var log text
	srv := deployment(t)
	nc := bustest.Conn(t, srv)
	q := listening(t, nc)
	sys := agent(t, srv.URL())
	h := hearing(t, bustest.Conn(t, srv), sys, &log)
	w := newFake("w")
	publish(t, nc, beats, w.Next(t))
	// A client that may publish there can send false disconnects and malformed
	// messages.
	for _, b := range []string{"", "{}", "[1]", `{"server":{"id":"NDXS"},"client":{"id":-1}}`, `{"server":{"id":"NDXS"},"client":{"id":17,"kind":"Leafnode"}}`} {
		publish(t, sys, "$SYS.ACCOUNT.APP.DISCONNECT", []byte(b))
	}
	publish(t, nc, beats, w.Next(t))
	awaitBeats(t, h, 2)
	if strings.Contains(log.String(), windowOpened) {
		t.Errorf("nonsense opened a window:\n%s", log.String())
	}
	sys.Close()
	publish(t, nc, beats, w.Next(t))
	awaitBeats(t, h, 3)
	nobodyLost(t, h, q, 1)

	// A closed connection is an error, as for the main connection.
	cfg := quickConfig()
	cfg.System = sys
	other, err := New(bustest.Conn(t, srv), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Run(t.Context()); !errors.Is(err, nats.ErrConnectionClosed) || !strings.Contains(err.Error(), "Config.System") {
		t.Errorf("Run: %v", err)
	}
}

// The machine's own server is a leaf node: beats stay there, snapshots reach the hub,
// and a cut uplink makes no worker lost.
func TestBehindALeaf(t *testing.T) {
	t.Parallel()
	var log text
	hub := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		o.LeafNode.Host, o.LeafNode.Port, o.LeafNode.NoAdvertise = "127.0.0.1", -1, true
	}))
	atHub := bustest.Conn(t, hub)
	q := listening(t, atHub)
	spy, err := atHub.SubscribeSync("hive.>")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, atHub)
	line := bustest.NewProxy(t, hub.LeafURL())
	srv := bustest.Server(t, bustest.NoJetStream(), withSystem, func(c *embedded.Config) {
		s, _ := hivebeat.NewSubjects("")
		c.Leaf = &embedded.Leaf{URL: line.URL(), DenyExports: []string{s.Workers("*"), s.WorkersPinned("*")}}
	})
	sys, err := nats.Connect("", srv.SystemOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	cfg := quickConfig()
	cfg.System, cfg.NoExitWatch, cfg.Logger = sys, true, log.Logger(slog.LevelDebug)
	cfg.Every = hivebeat.MaxEvery // so that each snapshot has a cause other than the interval
	h := running(t, bustest.Conn(t, srv), cfg)
	awaitText(t, &log, "hears workers")

	changed := make(chan bool, 16)
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan error, 1)
	go func() {
		watched <- srv.WatchUplink(ctx, "queen.hives", func(up bool) {
			if up {
				h.Resend()
			}
			changed <- up
		})
	}()
	defer func() { cancel(); <-watched }()
	if !<-changed {
		t.Fatal("no uplink")
	}

	wc := agent(t, srv.URL())
	beating(t, wc, "w")
	q.await(t, "the worker", withWorker("w", hivebeat.Alive))
	c := newChild(t, processAgent, srv.URL(), "killed")
	q.await(t, "the other", withWorker("killed", hivebeat.Alive))
	c.kill()
	q.await(t, "its death", lostBy("killed", hivebeat.CauseDisconnect))

	// The hub calls the workers' roll, and the answering beat stays on the machine.
	heard := h.Stats().Beats
	publish(t, atHub, "hive."+thisHive+".rollcall", []byte("0"))
	awaitBeats(t, h, heard+1)
	bustest.Flush(t, atHub)
	for {
		m, err := spy.NextMsg(50 * time.Millisecond)
		if errors.Is(err, nats.ErrTimeout) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(m.Subject, ".workers") {
			t.Errorf("a beat crossed to the hub on %s", m.Subject)
		}
	}

	for range 2 {
		line.Cut()
		if <-changed {
			t.Error("the uplink is cut")
		}
		before, heard := len(q.all()), h.Stats().Beats
		publish(t, wc, "hive."+thisHive+".rollcall", []byte("0")) // the machine keeps working
		awaitBeats(t, h, heard+1)
		bustest.Never(t, 2500*time.Millisecond, func() (bool, string) { // more than two intervals
			n := len(q.all()) - before
			return n > 0, fmt.Sprint(n, " snapshots came over a line that is cut")
		})
		line.Restore()
		restored := time.Now()
		if !<-changed {
			t.Error("the uplink is back")
		}
		bustest.Eventually(t, patience, func() (bool, string) { return len(q.all()) > before, "no snapshot" })
		s := q.all()[before]
		t.Logf("a snapshot %s after the line was whole again", s.at.Sub(restored))
		if w, ok := worker1(s, "w"); !ok || w.Live != hivebeat.Alive || w.Seq < 2 {
			t.Errorf("the snapshot after the cut: %+v", w)
		}
	}
	if s := h.Stats(); s.Lost[hivebeat.CauseDisconnect] != 1 || len(s.Lost) != 1 || s.FalseDead+s.CutOff != 0 {
		t.Errorf("stats %+v", s)
	}
	if n := wc.Stats().Reconnects; n != 0 {
		t.Errorf("the worker noticed the cut of the uplink: %d reconnects", n)
	}
}

// BenchmarkDisconnectToSnapshot measures the time from the end of a worker's connection
// to the snapshot that reports the worker as lost, beyond the window of 2 s. One
// operation is one death; at most three per second are believed.
func BenchmarkDisconnectToSnapshot(b *testing.B) {
	srv := bustest.Server(b, bustest.NoJetStream(), withSystem)
	sys, err := nats.Connect("", srv.SystemOptions()...)
	if err != nil {
		b.Fatal(err)
	}
	defer sys.Close()
	cfg := quickConfig()
	cfg.System = sys
	h, err := New(bustest.Conn(b, srv), cfg)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(context.Background()) }()
	defer func() { _ = h.Stop(context.Background()); <-ended }()

	told := make(chan said, 1024)
	reader := bustest.Conn(b, srv)
	if _, err := reader.Subscribe("queen.hives", func(m *nats.Msg) {
		at := time.Now()
		if s, err := wire.DecodeSnapshot(m.Data); err == nil {
			told <- said{Snapshot: s, at: at}
		}
	}); err != nil {
		b.Fatal(err)
	}
	bustest.Flush(b, reader)
	var late []time.Duration
	begun := time.Now()
	for i := range b.N {
		nc := agent(b, srv.URL())
		f := newFake(fmt.Sprint("w", i))
		f.Conn = bus.ConnID(nc)
		publish(b, nc, beats, f.Next(b))
		bustest.Eventually(b, patience, func() (bool, string) { return h.Stats().Beats > uint64(i), "not heard" })
		closed := time.Now()
		nc.Close()
		for dead := false; !dead; {
			s := <-told
			if w, ok := worker1(s, f.Worker); ok && w.Live == hivebeat.Lost {
				late, dead = append(late, s.at.Sub(closed)-2*second), true
			}
		}
	}
	slices.Sort(late)
	at := func(q float64) float64 { return float64(late[int(q*float64(len(late)-1))].Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
	b.Logf("%d deaths in %s: told after their window by p50 %.1f ms, p99 %.1f ms, max %.1f ms", b.N, time.Since(begun).Round(time.Second), at(0.5), at(0.99), at(1))
}
