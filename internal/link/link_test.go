package link_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// fed is a core that records its inputs.
type fed struct {
	mu   sync.Mutex
	list []string
	conn core.Connection
	d    liveness.Disconnect
}

func (f *fed) add(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, what)
}

func (f *fed) Connection(_ time.Time, c core.Connection) {
	f.conn = c
	f.add(fmt.Sprintf("connection %t", c.Up))
}

func (f *fed) TokenBack(_ time.Time, token, dropped uint64) {
	f.add(fmt.Sprintf("token %d, %d dropped", token, dropped))
}

func (f *fed) Closed(_ time.Time, d liveness.Disconnect) {
	f.d = d
	f.add("closed " + d.Name)
}
func (f *fed) Settled(time.Time, liveness.Path) { f.add("settled") }
func (f *fed) System(_ time.Time, up bool)      { f.add(fmt.Sprintf("system %t", up)) }

func (f *fed) Located(_ time.Time, conn, addr string) { f.add("located " + conn + " at " + addr) }

// rig is a Link that runs until the test ends. The test takes its events.
type rig struct {
	*link.Link
	t      *testing.T
	ctx    context.Context
	cancel context.CancelFunc
	fed    fed
	log    bustest.Log
}

func open(t *testing.T, nc, sys *nats.Conn) *rig {
	t.Helper()
	r := &rig{t: t}
	l, err := link.Open(nc, sys, r.log.Logger(slog.LevelDebug))
	if err != nil {
		t.Fatal(err)
	}
	r.Link = l
	r.ctx, r.cancel = context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		l.Run(r.ctx)
	}()
	t.Cleanup(func() {
		r.cancel()
		<-ran
		l.Close()
	})
	return r
}

// next passes one event to the core.
func (r *rig) next() {
	r.t.Helper()
	select {
	case e := <-r.Events():
		e.Feed(time.Now(), 3, &r.fed)
	case <-time.After(patience):
		r.t.Fatalf("no event after %q", r.fed.list)
	}
}

// await passes events to the core until the last one is what.
func (r *rig) await(what string) {
	r.t.Helper()
	for r.next(); r.fed.list[len(r.fed.list)-1] != what; r.next() {
	}
}

// none fails if an event comes within d.
func (r *rig) none(d time.Duration) {
	r.t.Helper()
	select {
	case e := <-r.Events():
		e.Feed(time.Now(), 0, &r.fed)
		r.t.Errorf("%q", r.fed.list)
	case <-time.After(d):
	}
}

// A token comes back after everything that the server had before it.
func TestATokenComesAfterTheMessages(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, near := bustest.Conn(t, srv), bustest.Conn(t, srv)
	const many = 1000
	messages := make(chan *nats.Msg, many)
	if _, err := nc.ChanSubscribe("x", messages); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	r := open(t, nc, nil)
	for token := uint64(1); token < 10; token++ {
		for range many {
			if err := near.Publish("x", nil); err != nil {
				t.Fatal(err)
			}
		}
		bustest.Flush(t, near)
		r.Send(r.ctx, core.Signals{Token: token})
		r.await(fmt.Sprintf("token %d, 3 dropped", token))
		for n := len(messages); n != many; n = len(messages) {
			t.Fatalf("%d messages are there, want %d", n, many)
		}
		for range many {
			<-messages
		}
	}
}

func TestNothingIsSentUnasked(t *testing.T) {
	r := open(t, bustest.Conn(t, bustest.Server(t, bustest.NoJetStream())), nil)
	r.Send(r.ctx, core.Signals{})
	r.none(100 * time.Millisecond)
	if c := r.Connection(); !c.Up || c.Closed || c.Unnoticed != 6*time.Minute { // nats.go's default: 2 min × (2 + 1)
		t.Errorf("%+v", c)
	}
}

// A connection that hangs returns no token, but Settled still comes.
func TestSignalsOverAConnectionThatHangs(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	proxy := bustest.NewProxy(t, srv.URL())
	r := open(t, bustest.Dial(t, proxy.URL()), nil)
	proxy.Stall()
	began := time.Now()
	r.Send(r.ctx, core.Signals{Token: 7, Settle: true})
	r.await("settled")
	if d := time.Since(began); d < core.SettleWithin {
		t.Errorf("settled after %v", d)
	}
	proxy.Resume()
	r.await("token 7, 3 dropped")

	// Close does not wait for a connection that hangs until the end.
	proxy.Stall()
	r.Send(r.ctx, core.Signals{Token: 8})
	r.cancel()
	ended := make(chan struct{})
	go func() { defer close(ended); r.Close() }()
	select {
	case <-ended:
	case <-time.After(core.TokenWithin / 2):
		t.Error("Close waits for a token that cannot come")
	}
	proxy.Resume()
}

func TestAConnectionComesAndGoes(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	proxy := bustest.NewProxy(t, srv.URL())
	nc := bustest.Dial(t, proxy.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	r := open(t, nc, nil)
	for token := range uint64(3) {
		proxy.Cut()
		r.await("connection false")
		proxy.Restore()
		r.await("connection true")
		r.Send(r.ctx, core.Signals{Token: 100 + token})
		r.await(fmt.Sprintf("token %d, 3 dropped", 100+token))
	}
	proxy.Kick() // gone for a moment, perhaps back before the link looks
	r.await("connection true")
	if !r.fed.conn.Flapped {
		t.Errorf("a kick that is not told: %+v", r.fed.conn)
	}
	nc.Close()
	for r.next(); !r.fed.conn.Closed; r.next() {
	}
	if c := r.Connection(); c.Up || !c.Closed {
		t.Errorf("%+v", c)
	}
}

// deployment starts a NATS as others run it, with a system account.
func deployment(t *testing.T) *embedded.Server {
	t.Helper()
	return bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		app, sys := embedded.NewAccount("APP"), embedded.NewAccount("SYS")
		o.Accounts, o.SystemAccount = []*embedded.Account{app, sys}, "SYS"
		o.Users = []*embedded.User{{Username: "app", Password: "app", Account: app}, {Username: "sys", Password: "sys", Account: sys}}
		o.NoAuthUser = "app"
	}))
}

func TestClosedConnections(t *testing.T) {
	srv := deployment(t)
	proxy := bustest.NewProxy(t, srv.URL())
	sys := bustest.Dial(t, proxy.URL(), nats.UserInfo("sys", "sys"), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	r := open(t, bustest.Conn(t, srv), sys)
	bustest.Flush(t, sys)
	gone := bustest.Conn(t, srv, nats.Name("gone"))
	conn := bus.ConnID(gone)
	gone.Close()
	r.await("closed gone")
	if d := r.fed.d; d.Conn != conn || d.Server != srv.ID() || !d.Evidence || !d.Passing || d.Reason != "Client Closed" {
		t.Errorf("%+v, want connection %s", d, conn)
	}
	// Messages that are not a disconnect of a client are ignored.
	for _, b := range []string{"", "{}", "[1]", `{"server":{"id":"NDXS"},"client":{"id":17,"kind":"Leafnode"}}`} {
		if err := sys.Publish("$SYS.ACCOUNT.APP.DISCONNECT", []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, sys)
	proxy.Cut()
	r.await("system false")
	proxy.Restore()
	r.await("system true")
	bustest.Flush(t, sys)
	bustest.Conn(t, srv, nats.Name("next")).Close()
	r.await("closed next")
	sys.Close()
	r.await("system false")
	r.none(50 * time.Millisecond)
	for _, what := range r.fed.list {
		if what == "closed " {
			t.Errorf("nonsense is a closed connection: %q", r.fed.list)
		}
	}
}

func TestASystemConnectionThatIsClosed(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, sys := bustest.Conn(t, srv), bustest.Conn(t, srv)
	sys.Close()
	_, err := link.Open(nc, sys, slog.New(slog.DiscardHandler))
	if !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Open: %v", err)
	}
}

// Close leaves the borrowed connections as they were.
func TestClose(t *testing.T) {
	srv := deployment(t)
	nc, sys := bustest.Conn(t, srv), bustest.Conn(t, srv, nats.UserInfo("sys", "sys"))
	for range 3 {
		l, err := link.Open(nc, sys, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		l.Send(ctx, core.Signals{Token: 1, Settle: true}) // no reader takes the events
		cancel()
		l.Close()
	}
	if !nc.IsConnected() || !sys.IsConnected() || nc.NumSubscriptions()+sys.NumSubscriptions() != 0 {
		t.Errorf("%s, %s, %d and %d subscriptions", nc.Status(), sys.Status(), nc.NumSubscriptions(), sys.NumSubscriptions())
	}
}

// The client address of a connection is known if the system account answers.
func TestLocate(t *testing.T) {
	srv := deployment(t)
	nc := bustest.Conn(t, srv)
	other := bustest.Dial(t, srv.URL())
	sys := bustest.Dial(t, srv.URL(), nats.UserInfo("sys", "sys"))
	r := open(t, nc, sys)
	r.Locate(r.ctx, []string{"", "nonsense", srv.ID() + "/999", bus.ConnID(other)})
	ip, err := other.GetClientIP()
	if err != nil {
		t.Fatal(err)
	}
	r.next()
	if said := r.fed.list[0]; !strings.HasPrefix(said, "located "+bus.ConnID(other)+" at "+ip.String()+":") {
		t.Errorf("%q", r.fed.list)
	}
	r.none(50 * time.Millisecond)
	open(t, nc, nil).Locate(r.ctx, []string{bus.ConnID(other)}) // without a system connection, no request is sent
}
