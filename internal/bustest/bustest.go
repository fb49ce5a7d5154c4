// Package bustest gives tests a real NATS: an embedded server that can be restarted and
// emptied, and a proxy in front of it that can be cut.
package bustest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus/embedded"
)

// patience bounds operations that take milliseconds on an idle machine, for one that is
// busy with other tests.
const patience = 30 * time.Second

// Option changes the configuration of a test's server.
type Option func(*embedded.Config)

// NoJetStream runs the server without JetStream.
func NoJetStream() Option {
	return func(c *embedded.Config) { c.JetStream, c.StoreDir = false, "" }
}

// NoListen runs the server without a listener and without JetStream, as a
// testing/synctest bubble requires: Conn then connects within the process.
func NoListen() Option {
	return func(c *embedded.Config) { c.Port, c.JetStream, c.StoreDir = -1, false, "" }
}

// Configure changes the server's own options.
func Configure(f func(*embedded.Options)) Option {
	return func(c *embedded.Config) {
		before := c.Options
		c.Options = func(o *embedded.Options) {
			if before != nil {
				before(o)
			}
			f(o)
		}
	}
}

// User adds a user that may publish and subscribe to the given subjects only; nil
// allows all. Its password is its name. A server with users refuses all other clients.
func User(name string, publish, subscribe []string) Option {
	return Configure(func(o *embedded.Options) {
		u := &embedded.User{Username: name, Password: name, Permissions: &embedded.Permissions{}}
		if publish != nil {
			u.Permissions.Publish = &embedded.SubjectPermission{Allow: publish}
		}
		if subscribe != nil {
			u.Permissions.Subscribe = &embedded.SubjectPermission{Allow: subscribe}
		}
		o.Users = append(o.Users, u)
	})
}

// Server runs a server until the test ends: on a random port of 127.0.0.1, with
// JetStream in a temporary directory.
func Server(t testing.TB, opts ...Option) *embedded.Server {
	t.Helper()
	cfg := embedded.Config{JetStream: true, StoreDir: "-"}
	for _, o := range opts {
		o(&cfg)
	}
	if cfg.StoreDir == "-" {
		cfg.StoreDir = storeDir(t)
	}
	return start(t, cfg)
}

// storeDir replaces t.TempDir, whose removal fails the test if a file of the store is
// still being written when the test ends.
func storeDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hivebeat-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func start(t testing.TB, cfg embedded.Config) *embedded.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	srv, err := embedded.Start(ctx, cfg)
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	t.Cleanup(func() { Stop(t, srv) })
	return srv
}

// Stop stops a server before the test ends.
func Stop(t testing.TB, srv *embedded.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := srv.Stop(ctx); err != nil {
		t.Errorf("bustest: %v", err)
	}
}

// Restart stops srv, if it still runs, and starts it again on the same port with the
// same store. TCP connections find it again by themselves.
func Restart(t testing.TB, srv *embedded.Server) *embedded.Server {
	t.Helper()
	Stop(t, srv)
	return again(t, srv.Config())
}

// RestartEmpty is Restart with an empty store: all buckets and streams are gone.
func RestartEmpty(t testing.TB, srv *embedded.Server) *embedded.Server {
	t.Helper()
	Stop(t, srv)
	cfg := srv.Config()
	if cfg.JetStream {
		cfg.StoreDir = storeDir(t)
	}
	return again(t, cfg)
}

// again starts a server on its former port, and retries if the system has lent the port
// to an outgoing connection meanwhile.
func again(t testing.TB, cfg embedded.Config) *embedded.Server {
	t.Helper()
	var srv *embedded.Server
	Eventually(t, patience, func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var err error
		srv, err = embedded.Start(ctx, cfg)
		switch {
		case err == nil:
			return true, ""
		case !errors.Is(err, embedded.ErrPortTaken):
			t.Fatalf("bustest: restart: %v", err)
		}
		return false, err.Error()
	})
	t.Cleanup(func() { Stop(t, srv) })
	return srv
}

// Conn returns a connection that is closed when the test ends: over TCP, or within the
// process if the server does not listen. It reconnects forever, and quickly.
func Conn(t testing.TB, srv *embedded.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	opts = append([]nats.Option{
		nats.Name(t.Name()),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(20 * time.Millisecond),
		nats.ReconnectJitter(0, 0),
	}, opts...)
	if url := srv.URL(); url != "" {
		return Dial(t, url, opts...)
	}
	nc, err := srv.Connect(opts...)
	if err != nil {
		t.Fatalf("bustest: connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Dial is Conn to a URL, such as that of a Proxy, with nats.go's defaults.
func Dial(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatalf("bustest: connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Eventually waits until cond reports ok. After within, the test fails with the last
// state that cond reported. It calls cond every 5 ms, on the goroutine of its caller,
// which must be that of the test.
func Eventually(t testing.TB, within time.Duration, cond func() (ok bool, state string)) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); ; <-tick.C {
		ok, state := cond()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, state)
		}
	}
}

// Never calls cond every 20 ms until during is over, and once more at the end. When cond
// reports that it happened, the test fails with the state. cond runs on the goroutine of
// the caller, which must be that of the test. The test always takes this long: use Never
// only where a real server is needed, and synctest or Bubble otherwise.
func Never(t testing.TB, during time.Duration, cond func() (happened bool, state string)) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for end := false; ; {
		if happened, state := cond(); happened {
			t.Fatalf("after %v of %v: %s", time.Since(began).Round(time.Millisecond), during, state)
		}
		if end {
			return
		}
		<-tick.C
		end = time.Since(began) >= during
	}
}

// Flush waits until the server has processed everything that nc sent, including
// subscriptions.
func Flush(t testing.TB, nc *nats.Conn) {
	t.Helper()
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatalf("bustest: flush: %v", err)
	}
}
