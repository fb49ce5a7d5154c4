package queen

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

const windowOpened = "a hive's connection closed"

// witness is a queen that hears disconnects, with its own server.
type witness struct {
	*runningQueen
	srv          *embedded.Server
	events       *heardEvents
	line, system *bustest.Proxy // proxies that can cut its connections
}

func newWitness(t *testing.T) *witness {
	t.Helper()
	srv := bustest.Server(t, func(c *embedded.Config) { c.System = true })
	sys, err := srv.Connect(srv.SystemOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sys.Close)
	w := &witness{srv: srv, events: subscribeEvents(t, bustest.Conn(t, srv))}
	w.runningQueen = startQueen(t, agentConn(t, srv.URL()), Config{ID: "q1", System: sys})
	w.warm()
	bustest.Flush(t, sys)
	return w
}

// newCutWitness returns a witness whose connections to NATS and to the system account
// can be cut. There is no JetStream.
func newCutWitness(t *testing.T) *witness {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		app, sys := embedded.NewAccount("APP"), embedded.NewAccount("SYS")
		o.Accounts, o.SystemAccount = []*embedded.Account{app, sys}, "SYS"
		o.Users = []*embedded.User{{Username: "app", Password: "app", Account: app}, {Username: "sys", Password: "sys", Account: sys}}
		o.NoAuthUser = "app"
	}))
	w := &witness{srv: srv, events: subscribeEvents(t, bustest.Conn(t, srv)), line: bustest.NewProxy(t, srv.URL()), system: bustest.NewProxy(t, srv.URL())}
	sys := agentConn(t, w.system.URL(), nats.UserInfo("sys", "sys"))
	w.runningQueen = startQueen(t, agentConn(t, w.line.URL()), Config{ID: "q1", System: sys, NoJetStream: true})
	w.eventually("warm", func() bool { return w.ask(api.VerbSummary, api.Request{}).Status.Warm })
	bustest.Flush(t, sys)
	return w
}

// agentConn returns a connection with this project's defaults.
func agentConn(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := bus.Connect(context.Background(), bus.Config{URL: url, FailFast: true, Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// hive starts a hive that promises a snapshot every 15 s, and sends one when it
// reconnects, as hives do.
func (w *witness) hive(url, id string, workers ...hivebeat.Record) *testHive {
	w.t.Helper()
	back := make(chan struct{}, 1)
	nc := agentConn(w.t, url, nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	name := func(s *hivebeat.Snapshot) { s.Conn, s.RW = bus.ConnID(nc), 250 }
	h := startHive(w.t, nc, id, 15*time.Second, workers...)
	h.send(name)
	stop := h.stop
	h.wg.Go(func() {
		for {
			select {
			case <-back:
				h.send(name)
			case <-stop:
				return
			}
		}
	})
	bustest.Flush(w.t, nc)
	w.eventually(id+" alive", func() bool { return w.live(id) == hivebeat.Alive })
	return h
}

// dies looks like a kill -9 to the server.
func (h *testHive) dies() time.Time {
	at := time.Now()
	h.nc.Close()
	h.kill()
	return at
}

// revives lets a hive that died by mistake continue over another connection.
func (h *testHive) revives(nc *nats.Conn) {
	h.mu.Lock()
	h.nc, h.snap.Conn = nc, bus.ConnID(nc)
	h.mu.Unlock()
	h.revive()
}

// lost waits until a hive is announced as lost by its connection.
func (w *witness) lost(id string, died time.Time) hivebeat.Event {
	w.t.Helper()
	var lost hivebeat.Event
	w.eventually(id+" lost", func() bool {
		list := w.events.of(hivebeat.KindLost, id, "")
		if len(list) > 0 {
			lost = list[0]
		}
		return len(list) > 0
	})
	took := time.Since(died)
	if d := lost.Data; d.Cause != hivebeat.CauseDisconnect || d.From != "alive" || d.DetectMS == nil || *d.DetectMS < 2000 || d.Via != hivebeat.ViaQueen {
		w.t.Errorf("lost: %+v", d)
	}
	if took < 2*time.Second {
		w.t.Errorf("lost after %s, before its window was over", took)
	}
	w.t.Logf("%s: told %s after its window", id, took-2*time.Second)
	return lost
}

// nobodyLost fails the test if its connection made a hive lost.
func (w *witness) nobodyLost(id string) {
	w.t.Helper()
	for _, e := range w.events.of(hivebeat.KindLost, id, "") {
		if e.Data.Cause == hivebeat.CauseDisconnect {
			w.t.Errorf("lost: %+v", e.Data)
		}
	}
}

func TestAHiveThatDiesIsLostByItsConnection(t *testing.T) {
	t.Parallel()
	w := newWitness(t)
	hears := agentConn(t, w.srv.URL())
	var heard []*nats.Subscription
	for _, subject := range []string{"queen.rollcall.gpu-01", "hive.gpu-01.rollcall"} {
		sub, err := hears.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, sub)
	}
	bustest.Flush(t, hears)
	h := w.hive(w.srv.URL(), "gpu-01", workerOf("w1"))
	w.lost("gpu-01", h.dies())
	for _, sub := range heard { // the queen calls the hive first, and then its workers
		if _, err := sub.NextMsg(patience); err != nil {
			t.Errorf("%s: %v", sub.Subject, err)
		}
	}
	w.eventually("its workers adopted", func() bool { return w.Queen.Stats().AdoptedHives == 1 })
}

// Scripts that reconnect again and again say nothing about their server. Clients that
// the server turns away do, and that is logged while it goes on.
func TestStrangersDoNotHideTheDeathOfAHive(t *testing.T) {
	t.Parallel()
	w := newCutWitness(t)
	bustest.Churn(t, w.srv.URL(), 50*time.Millisecond)
	w.lost("gpu-01", w.hive(w.srv.URL(), "gpu-01").dies())
	if n := w.Queen.Stats().DisconnectsIgnored; n != 0 {
		t.Errorf("%d were ignored", n)
	}
	w.hive(w.srv.URL(), "gpu-02")
	for range 4 {
		bustest.Churn(t, w.srv.URL(), 50*time.Millisecond, nats.UserInfo("nobody", "nothing"))
	}
	w.eventually("they are ignored", func() bool { return w.Queen.Stats().DisconnectsIgnored > 0 })
	w.logged("connections of a NATS server close many at once")
	w.nobodyLost("gpu-02")
}

// A queen without a system account believes another queen, which has one.
func TestAQueenThatHearsNoClosingsIsTold(t *testing.T) {
	t.Parallel()
	w := newWitness(t)
	q2 := startQueen(t, agentConn(t, w.srv.URL()), Config{ID: "q2"})
	q2.warm()
	worker := workerOf("w1")
	worker.Slots = 4
	h := w.hive(w.srv.URL(), "gpu-01", worker)
	picks := func() []api.Pick {
		return q2.ask(api.VerbPick, api.Request{Filter: api.Filter{Model: "llama"}}).Picks
	}
	q2.eventually("it picks the worker", func() bool { return len(picks()) == 1 })
	lost := w.lost("gpu-01", h.dies())
	q2.logged("as another queen found") // and not because of its silence
	if info := q2.ask(api.VerbHive, api.Request{Hive: "gpu-01"}).Hives[0]; info.Live != hivebeat.Lost || info.Cause != hivebeat.CauseDisconnect {
		t.Errorf("it is %s, cause %q, to the other", info.Live, info.Cause)
	}
	q2.eventually("its workers adopted", func() bool { return q2.Stats().AdoptedHives == 1 })
	if list := picks(); len(list) != 0 {
		t.Errorf("picked: %+v", list)
	}
	h.revives(agentConn(t, w.srv.URL()))
	for _, q := range []*runningQueen{w.runningQueen, q2} {
		q.eventually("alive again", func() bool { return q.live("gpu-01") == hivebeat.Alive })
	}
	q2.eventually("picked again", func() bool { return len(picks()) == 1 })
	w.eventually("recovered", func() bool { return len(w.events.of(hivebeat.KindRecovered, "gpu-01", "")) > 0 })
	for _, kind := range []hivebeat.Kind{hivebeat.KindLost, hivebeat.KindRecovered} {
		if list := w.events.of(kind, "gpu-01", ""); len(list) != 1 {
			t.Errorf("told %s %d times: %+v", kind, len(list), list)
		}
	}
	if back := w.events.of(hivebeat.KindRecovered, "gpu-01", ""); back[0].Data.N != lost.Data.N+1 {
		t.Errorf("recovered is event %d, after %d", back[0].Data.N, lost.Data.N)
	}
}

// A hive whose connection is kicked reconnects and stays alive.
func TestAHiveThatIsKickedLives(t *testing.T) {
	t.Parallel()
	w := newWitness(t)
	line := bustest.NewProxy(t, w.srv.URL())
	kicked, other := w.hive(line.URL(), "gpu-01"), w.hive(w.srv.URL(), "gpu-02")
	conn := bus.ConnID(kicked.nc)
	line.Kick()
	w.logged(windowOpened + `" queen=q1 conn=` + conn)
	w.lost("gpu-02", other.dies()) // by now the window of the other hive is over as well
	w.nobodyLost("gpu-01")
	if now := bus.ConnID(kicked.nc); now == conn {
		t.Errorf("it was not kicked: its connection is %s still", now)
	}
}

// A queen that no longer hears which connections close believes no earlier disconnect
// either.
func TestAQueenThatHearsNoMoreClosesAllWindows(t *testing.T) {
	t.Parallel()
	for _, cut := range []string{"the system account", "NATS"} {
		t.Run(cut, func(t *testing.T) {
			t.Parallel()
			w := newCutWitness(t)
			lines := map[string]*bustest.Proxy{"the system account": w.system, "NATS": w.line}
			h := w.hive(w.srv.URL(), "gpu-01")
			h.dies()
			w.logged(windowOpened)
			lines[cut].Kick()
			w.logged(map[string]string{"the system account": "listens again for connections that close", "NATS": "hears again, and knows it"}[cut])
			sees := w.hive(w.srv.URL(), "gpu-02") // once it is back, everything works as before
			w.lost("gpu-02", sees.dies())
			w.nobodyLost("gpu-01")
		})
	}
}
