package bustest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const soon = 20 * time.Second

func bucket(t *testing.T, nc *nats.Conn) (jetstream.KeyValue, error) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return js.KeyValue(ctx, "b")
}

func TestRestart(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"}); err != nil {
		t.Fatal(err)
	}
	back := func(id string) {
		t.Helper()
		bustest.Eventually(t, soon, func() (bool, string) { return nc.ConnectedServerId() == id, nc.Status().String() })
	}
	srv = bustest.Restart(t, srv)
	back(srv.ID())
	if _, err := bucket(t, nc); err != nil {
		t.Errorf("the bucket did not outlive a restart: %v", err)
	}
	srv = bustest.RestartEmpty(t, srv)
	back(srv.ID())
	if _, err := bucket(t, nc); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("the bucket outlived its store: %v", err)
	}
}

func TestProxy(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	line := bustest.NewProxy(t, srv.URL())
	nc := bustest.Dial(t, line.URL(), nats.ReconnectWait(5*time.Millisecond), nats.ReconnectJitter(0, 0), nats.MaxReconnects(-1))
	is := func(what string, cond func() bool) {
		t.Helper()
		bustest.Eventually(t, soon, func() (bool, string) { return cond(), what + ": " + nc.Status().String() })
	}
	bustest.Flush(t, nc)
	if n := line.Conns(); n != 1 {
		t.Errorf("%d connections", n)
	}

	line.Cut()
	is("cut", nc.IsReconnecting)
	line.Restore()
	is("restored", nc.IsConnected)

	before := nc.Stats().Reconnects
	line.Kick()
	is("kicked", func() bool { return nc.Stats().Reconnects > before && nc.IsConnected() })

	line.Stall()
	if err := nc.FlushTimeout(30 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("flush over a stalled line: %v", err)
	}
	if !nc.IsConnected() {
		t.Error("a stalled line is not a closed one")
	}
	line.Resume()
	bustest.Flush(t, nc)

	line.Delay(20 * time.Millisecond)
	began := time.Now()
	bustest.Flush(t, nc)
	if d := time.Since(began); d < 40*time.Millisecond {
		t.Errorf("there and back took %v", d)
	}
}

func TestUser(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.User("me", []string{"a"}, nil))
	if _, err := nats.Connect(srv.URL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a user: %v", err)
	}
	denied := make(chan error, 1)
	nc := bustest.Conn(t, srv, nats.UserInfo("me", "me"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err := nc.Publish("b", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("got %v", err)
	}
}

// Two of them in one process would be a fatal error without Bubble.
func TestBubble(t *testing.T) {
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			bustest.Bubble(t, func(t *testing.T) {
				srv := bustest.Server(t, bustest.NoListen())
				nc := bustest.Conn(t, srv)
				began := time.Now()
				time.Sleep(time.Hour)
				bustest.Flush(t, nc)
				if d := time.Since(began); d < time.Hour || d > time.Hour+time.Minute {
					t.Errorf("an hour took %v", d)
				}
			})
		})
	}
}

// failing is a test whose failure is recorded.
type failing struct {
	testing.TB
	said string
}

func (*failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestNever(t *testing.T) {
	for _, c := range []struct {
		happens time.Duration // 0 is never
		said    string
		took    time.Duration
	}{
		{0, "", time.Second},
		{time.Minute, "", time.Second},
		{500 * time.Millisecond, "after 500ms of 1s: it happened", 500 * time.Millisecond},
		{time.Second, "after 1s of 1s: it happened", time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &failing{TB: t}
			began := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				bustest.Never(f, time.Second, func() (bool, string) {
					return c.happens > 0 && time.Since(began) >= c.happens, "it happened"
				})
			})
			wg.Wait()
			if took := time.Since(began); f.said != c.said || took != c.took {
				t.Errorf("what happens after %v: %q after %v, want %q after %v", c.happens, f.said, took, c.said, c.took)
			}
		})
	}
}
