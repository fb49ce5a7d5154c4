package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	srv, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, srv) })
	return srv
}

func stop(t *testing.T, srv *embedded.Server) {
	t.Helper()
	if err := srv.Stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func roundTrip(t *testing.T, nc *nats.Conn) {
	t.Helper()
	sub, err := nc.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("x", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(20 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(m.Data); got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestZeroConfigListensOnLoopback(t *testing.T) {
	srv := start(t, embedded.Config{})
	if !strings.HasPrefix(srv.URL(), "nats://127.0.0.1:") {
		t.Errorf("URL is %q", srv.URL())
	}
	if srv.Config().Port <= 0 {
		t.Errorf("port is %d", srv.Config().Port)
	}
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	roundTrip(t, nc)
	if nc.ConnectedServerId() != srv.ID() {
		t.Errorf("server id is %q, want %q", nc.ConnectedServerId(), srv.ID())
	}
}

func TestInProcessWithoutListener(t *testing.T) {
	srv := start(t, embedded.Config{Port: -1})
	if srv.URL() != "" {
		t.Errorf("URL is %q", srv.URL())
	}
	nc, err := srv.Connect(nats.Name("inside"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	roundTrip(t, nc)
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = embedded.Start(t.Context(), embedded.Config{Port: ln.Addr().(*net.TCPAddr).Port})
	if !errors.Is(err, embedded.ErrPortTaken) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("%q does not name %s", err, ln.Addr())
	}
}

func TestPortTakenGivesTheStoreFree(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := embedded.Config{JetStream: true, StoreDir: t.TempDir(), Port: ln.Addr().(*net.TCPAddr).Port}
	if _, err = embedded.Start(t.Context(), cfg); !errors.Is(err, embedded.ErrPortTaken) {
		t.Fatalf("got %v", err)
	}
	cfg.Port = 0
	start(t, cfg)
}

func TestPortOutOfRange(t *testing.T) {
	_, err := embedded.Start(t.Context(), embedded.Config{Port: 70000})
	if err == nil || !strings.Contains(err.Error(), "Config.Port") {
		t.Fatalf("got %v", err)
	}
}

func TestStoreLocked(t *testing.T) {
	cfg := embedded.Config{JetStream: true, StoreDir: t.TempDir()}
	first := start(t, cfg)
	_, err := embedded.Start(t.Context(), cfg)
	if !errors.Is(err, embedded.ErrStoreLocked) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), cfg.StoreDir) {
		t.Errorf("%q does not name %s", err, cfg.StoreDir)
	}
	stop(t, first)
	start(t, cfg)
}

func TestStoreNotUsable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{JetStream: true, StoreDir: file})
	if !errors.Is(err, embedded.ErrStore) {
		t.Fatalf("got %v", err)
	}

	// The directory exists, but JetStream cannot create its files in it.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = embedded.Start(t.Context(), embedded.Config{JetStream: true, StoreDir: dir})
	if !errors.Is(err, embedded.ErrStore) {
		t.Fatalf("got %v", err)
	}
}

func TestJetStreamKeepsItsStore(t *testing.T) {
	cfg := embedded.Config{JetStream: true, StoreDir: filepath.Join(t.TempDir(), "made", "here")}
	put := func(srv *embedded.Server, do func(ctx context.Context, js jetstream.JetStream)) {
		nc, err := srv.Connect()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		do(ctx, js)
	}
	srv := start(t, cfg)
	put(srv, func(ctx context.Context, js jetstream.JetStream) {
		kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.PutString(ctx, "k", "v"); err != nil {
			t.Fatal(err)
		}
	})
	stop(t, srv)
	again := start(t, srv.Config())
	if again.URL() != srv.URL() {
		t.Errorf("came back at %s, was at %s", again.URL(), srv.URL())
	}
	put(again, func(ctx context.Context, js jetstream.JetStream) {
		kv, err := js.KeyValue(ctx, "b")
		if err != nil {
			t.Fatal(err)
		}
		e, err := kv.Get(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Value()) != "v" {
			t.Errorf("got %q", e.Value())
		}
	})
}

func TestTemporaryStoreIsRemoved(t *testing.T) {
	srv := start(t, embedded.Config{JetStream: true, Port: -1})
	dir := srv.Config().StoreDir
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	stop(t, srv)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestStopIsIdempotentAndClosesConnections(t *testing.T) {
	srv := start(t, embedded.Config{})
	closed := make(chan struct{})
	nc, err := nats.Connect(srv.URL(), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { stop(t, srv) })
	}
	wg.Wait()
	<-srv.Done()
	<-closed
	if _, err := srv.Connect(); err == nil {
		t.Error("connected to a stopped server")
	}
}

func TestStopGivesUpWithItsContext(t *testing.T) {
	srv := start(t, embedded.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Either the server had already ended, or the error is the context's.
	if err := srv.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	stop(t, srv)
}

func TestStartWithEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := embedded.Start(ctx, embedded.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	for i := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			srv := start(t, embedded.Config{JetStream: i%2 == 0})
			nc, err := srv.Connect()
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			roundTrip(t, nc)
		})
	}
}

// A start and a stop log nothing above Debug.
func TestQuiet(t *testing.T) {
	var buf bytes.Buffer
	srv := start(t, embedded.Config{
		JetStream: true,
		Logger:    slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	stop(t, srv)
	if buf.Len() > 0 {
		t.Errorf("logged:\n%s", buf.String())
	}
}

func TestUsers(t *testing.T) {
	srv := start(t, embedded.Config{Options: func(o *embedded.Options) {
		o.Users = []*embedded.User{{Username: "in", Password: "secret"}}
	}})
	if _, err := nats.Connect(srv.URL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("got %v", err)
	}
	nc, err := nats.Connect(srv.URL(), nats.UserInfo("in", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

// In a bubble an hour takes no time, and all goroutines of the server end.
func TestBubble(t *testing.T) {
	bustest.Bubble(t, func(t *testing.T) {
		srv := start(t, embedded.Config{Port: -1})
		nc, err := srv.Connect()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		began := time.Now()
		for range 6 {
			time.Sleep(10 * time.Minute)
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d < time.Hour {
			t.Errorf("only %v passed", d)
		}
		roundTrip(t, nc)
	})
}

// A stream that is being created while the server stops would leak its goroutines.
// (TestMain finds them.)
func TestStopWhileStreamsAreMade(t *testing.T) {
	for range 10 {
		srv := start(t, embedded.Config{JetStream: true})
		nc, err := srv.Connect()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			name := fmt.Sprintf("S%d", i)
			if err := nc.Publish("$JS.API.STREAM.CREATE."+name, fmt.Appendf(nil, `{"name":%q,"subjects":[%q]}`, name, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		stop(t, srv)
	}
}
