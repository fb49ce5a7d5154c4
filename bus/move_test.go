package bus_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// quickest returns a Config whose user promises a beat every 100 ms.
func quickest(l *log, lines ...*bustest.Proxy) bus.Config {
	var urls []string
	for _, p := range lines {
		urls = append(urls, p.URL())
	}
	return bus.Config{
		URL: strings.Join(urls, ","), Every: 100 * time.Millisecond, Logger: l.logger(), Options: []nats.Option{nats.DontRandomize()},
	}
}

// movesWithin is generous for busy machines; an idle one needs 1.5 s.
const movesWithin = 6 * time.Second

// movedTo waits until nc is connected to the server with this id.
func movedTo(t *testing.T, nc *nats.Conn, id string, since time.Time) {
	t.Helper()
	bustest.Eventually(t, soon, func() (bool, string) {
		return nc.ConnectedServerId() == id, fmt.Sprintf("%s after %v", nc.Status(), time.Since(since))
	})
	if took := time.Since(since); took > movesWithin {
		t.Errorf("moved after %v", took)
	} else {
		t.Logf("moved after %v", took)
	}
}

func TestAConnectionMovesFromAServerThatIsStopped(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full=%t", full), func(t *testing.T) {
			t.Parallel()
			first, second := bustest.Server(t, bustest.NoJetStream()), bustest.Server(t, bustest.NoJetStream())
			stopped, well := bustest.NewProxy(t, first.URL()), bustest.NewProxy(t, second.URL())
			var l log
			nc := connect(t, quickest(&l, stopped, well))
			if id := nc.ConnectedServerId(); id != first.ID() {
				t.Fatalf("connected to %s, want the first of two, %s", id, first.ID())
			}
			heard := make(chan *nats.Msg, 1)
			if _, err := nc.ChanSubscribe("x", heard); err != nil {
				t.Fatal(err)
			}
			bustest.Never(t, time.Second, func() (bool, string) { // it asks meanwhile, and is answered
				moves := strings.Contains(l.String(), "does not answer") || nc.Stats().Reconnects > 0
				return moves, "it moves from a server that answers:\n" + l.String()
			})

			since := time.Now()
			stopped.Stall()
			blocked := make(chan error, 1)
			if full {
				go func() { // until a write blocks while it holds the connection's lock
					big := make([]byte, 512<<10)
					for range 400 {
						if err := nc.Publish("y", big); err != nil {
							blocked <- err
							return
						}
					}
					blocked <- nil
				}()
			}
			movedTo(t, nc, second.ID(), since)
			if full {
				if err := <-blocked; err == nil {
					t.Error("200 MB went into a socket that nobody reads")
				}
			}
			l.has(t, "this connection moves to another server")
			l.has(t, "connected to NATS again")
			from := bustest.Conn(t, second)
			bustest.Eventually(t, soon, func() (bool, string) {
				if err := from.Publish("x", nil); err != nil {
					t.Fatal(err)
				}
				bustest.Flush(t, from)
				return len(heard) > 0, "its subscription is not there"
			})
		})
	}
}

// Other connections are made with a copy of its options, as the ledger and the doctor
// do. Their sockets must not be taken for its own.
func TestAConnectionMovesWhoseOptionsAreCopied(t *testing.T) {
	t.Parallel()
	first, second := bustest.Server(t, bustest.NoJetStream()), bustest.Server(t, bustest.NoJetStream())
	stopped, well := bustest.NewProxy(t, first.URL()), bustest.NewProxy(t, second.URL())
	var l log
	nc := connect(t, quickest(&l, stopped, well))
	o := nc.Opts
	for _, url := range []string{first.URL(), second.URL()} {
		o.Servers, o.Url, o.AllowReconnect = nil, url, false
		copied, err := o.Connect()
		if err != nil {
			t.Fatal(err)
		}
		if url == first.URL() {
			copied.Close()
		} else {
			defer copied.Close()
		}
	}
	since := time.Now()
	stopped.Stall()
	movedTo(t, nc, second.ID(), since)
}

func TestAConnectionStaysWhereThereIsNoOther(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	line := bustest.NewProxy(t, srv.URL())
	var l log
	nc := connect(t, quickest(&l, line))
	line.Stall()
	reconnected := func() (bool, string) {
		n := nc.Stats().Reconnects
		return n > 0, fmt.Sprintf("%d reconnects\n%s", n, l.String())
	}
	bustest.Never(t, 3*time.Second, reconnected) // twice the time that a move takes
	line.Resume()
	if err := nc.FlushTimeout(soon); err != nil {
		t.Errorf("%v\n%s", err, l.String())
	}
	if again, state := reconnected(); again {
		t.Error(state)
	}
}
