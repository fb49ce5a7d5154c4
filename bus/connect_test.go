package bus_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/advice"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

const soon = 20 * time.Second // for steps that take milliseconds on an idle machine

// log captures log output.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *log) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// has waits until text was logged.
func (l *log) has(t *testing.T, text string) {
	t.Helper()
	bustest.Eventually(t, soon, func() (bool, string) {
		s := l.String()
		return strings.Contains(s, text), fmt.Sprintf("no %q in the log:\n%s", text, s)
	})
}

func connect(t *testing.T, cfg bus.Config) *nats.Conn {
	t.Helper()
	nc, err := bus.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func connected(t *testing.T, nc *nats.Conn) {
	t.Helper()
	bustest.Eventually(t, soon, func() (bool, string) { return nc.IsConnected(), nc.Status().String() })
}

func TestConnectDefaults(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := connect(t, bus.Config{URL: srv.URL(), Name: "hivebeat worker gpu-01/llama"})
	if !nc.IsConnected() {
		t.Fatalf("status is %v", nc.Status())
	}
	o := nc.Opts
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"Name", o.Name, "hivebeat worker gpu-01/llama"},
		{"MaxReconnect", o.MaxReconnect, -1},
		{"RetryOnFailedConnect", o.RetryOnFailedConnect, true},
		{"IgnoreAuthErrorAbort", o.IgnoreAuthErrorAbort, true},
		{"ReconnectBufSize", o.ReconnectBufSize, -1},
		{"PingInterval", o.PingInterval, 10 * time.Second},
		{"MaxPingsOut", o.MaxPingsOut, 2},
		{"ReconnectWait", o.ReconnectWait, 250 * time.Millisecond},
		{"ReconnectWaitOf", bus.ReconnectWaitOf(nc), bus.ReconnectWait},
		{"ConnID", bus.ConnID(nc), fmt.Sprintf("%s/%d", srv.ID(), 0)},
	} {
		if c.what == "ConnID" {
			id, err := nc.GetClientID()
			if err != nil {
				t.Fatal(err)
			}
			c.want = fmt.Sprintf("%s/%d", srv.ID(), id)
		}
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
	nc.Close()
	if id := bus.ConnID(nc); id != "" {
		t.Errorf("a closed connection has id %q", id)
	}
}

func TestOptionsWin(t *testing.T) {
	srv := bustest.Server(t, bustest.NoListen())
	nc := connect(t, bus.Config{Options: []nats.Option{nats.InProcessServer(srv), nats.ReconnectBufSize(1 << 20)}})
	if !nc.IsConnected() || nc.Opts.ReconnectBufSize != 1<<20 {
		t.Errorf("%v, ReconnectBufSize %d", nc.Status(), nc.Opts.ReconnectBufSize)
	}
}

func TestUnreachableAtStart(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	line := bustest.NewProxy(t, srv.URL())
	line.Cut()
	var l log
	nc := connect(t, bus.Config{URL: line.URL(), Logger: l.logger()})
	if nc.IsConnected() {
		t.Fatal("connected through a cut line")
	}
	l.has(t, "NATS can not be reached")
	// Several attempts are logged as one line.
	bustest.Eventually(t, soon, func() (bool, string) { n := nc.Stats().Reconnects; return n >= 2, fmt.Sprint(n) })
	if n := strings.Count(l.String(), "can not be reached"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, l.String())
	}
	line.Restore()
	connected(t, nc)
	l.has(t, "connected to NATS")
}

// Nothing is buffered between two connections: a beat that cannot be sent fails.
func TestNothingStaleIsDelivered(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	sub, err := bustest.Conn(t, srv).SubscribeSync("beats")
	if err != nil {
		t.Fatal(err)
	}
	line := bustest.NewProxy(t, srv.URL())
	var l log
	nc := connect(t, bus.Config{URL: line.URL(), Logger: l.logger()})
	line.Cut()
	l.has(t, "connection to NATS lost")
	for range 20 {
		if err := nc.Publish("beats", []byte("old")); !errors.Is(err, nats.ErrReconnectBufExceeded) {
			t.Fatalf("publish while away: %v", err)
		}
	}
	line.Restore()
	connected(t, nc)
	l.has(t, "connected to NATS again")
	if err := nc.Publish("beats", []byte("new")); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(soon)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Data) != "new" {
		t.Errorf("delivered %q", m.Data)
	}
}

func TestServerRestart(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := connect(t, bus.Config{URL: srv.URL()})
	srv = bustest.Restart(t, srv)
	bustest.Eventually(t, soon, func() (bool, string) {
		return nc.ConnectedServerId() == srv.ID(), nc.Status().String()
	})
}

// Refused credentials are not fatal: an agent waits until they are accepted.
func TestRefusedCredentials(t *testing.T) {
	user := "somebody-else"
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		o.Users = []*embedded.User{{Username: user, Password: "pa55word"}}
	}))
	line := bustest.NewProxy(t, srv.URL())
	url := strings.Replace(line.URL(), "nats://", "nats://me:pa55word@", 1)

	t.Run("at start", func(t *testing.T) {
		var l log
		connect(t, bus.Config{URL: url, Logger: l.logger()})
		l.has(t, "NATS refuses the credentials")
		l.has(t, "--creds")
		secret(t, l.String())
	})
	t.Run("after it was away", func(t *testing.T) {
		line.Cut()
		defer line.Restore()
		var l log
		connect(t, bus.Config{URL: url, Logger: l.logger()})
		l.has(t, "NATS can not be reached")
		line.Restore()
		l.has(t, "NATS refuses the credentials")
		secret(t, l.String())
	})
	t.Run("fail fast", func(t *testing.T) {
		_, err := bus.Connect(t.Context(), bus.Config{URL: url, FailFast: true})
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Fatalf("got %v", err)
		}
		secret(t, err.Error())
		if advice.For(err) == "" {
			t.Error("no hint")
		}
	})
	t.Run("until they are right", func(t *testing.T) {
		var l log
		nc := connect(t, bus.Config{URL: strings.Replace(srv.URL(), "nats://", "nats://me:pa55word@", 1), Logger: l.logger()})
		l.has(t, "NATS refuses the credentials")
		bustest.Eventually(t, soon, func() (bool, string) { n := nc.Stats().Reconnects; return n >= 2, fmt.Sprint(n, nc.Status()) })
		user = "me"
		bustest.Restart(t, srv)
		connected(t, nc)
		secret(t, l.String())
	})
}

func secret(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "pa55") {
		t.Errorf("the password is in:\n%s", text)
	}
}

func TestFailFast(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	line := bustest.NewProxy(t, srv.URL())
	if nc := connect(t, bus.Config{URL: line.URL(), FailFast: true}); !nc.IsConnected() {
		t.Fatal("not connected")
	}
	bustest.Stop(t, srv)
	_, err := bus.Connect(t.Context(), bus.Config{URL: srv.URL(), FailFast: true})
	if !errors.Is(err, nats.ErrNoServers) || advice.For(err) == "" || !strings.Contains(err.Error(), srv.URL()) {
		t.Errorf("got %v, hint %q", err, advice.For(err))
	}
}

// A server that accepts the connection and sends nothing does not hold up Connect
// beyond the end of ctx.
func TestConnectEndsWithContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 8)
	go func() {
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { accepted <- <-accepted; cancel() }()
	_, err = bus.Connect(ctx, bus.Config{URL: "nats://" + ln.Addr().String()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	ln.Close()
	for c := range accepted {
		c.Close()
	}
	if _, err := bus.Connect(ctx, bus.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// silent is a minimal NATS server that stops answering.
type silent struct {
	mu    sync.Mutex
	quiet bool
	dials int
}

func (s *silent) InProcessConn() (net.Conn, error) {
	client, server := net.Pipe()
	s.mu.Lock()
	s.dials++
	s.mu.Unlock()
	go func() {
		defer server.Close()
		fmt.Fprint(server, `INFO {"server_id":"x","max_payload":1048576,"headers":true}`+"\r\n")
		for in := bufio.NewScanner(server); in.Scan(); {
			s.mu.Lock()
			quiet := s.quiet
			s.mu.Unlock()
			if in.Text() == "PING" && !quiet {
				fmt.Fprint(server, "PONG\r\n")
			}
		}
	}()
	return client, nil
}

// A dead peer is noticed well before the 45 s of a snapshot are over.
func TestDeadPeerIsNoticed(t *testing.T) {
	bustest.Bubble(t, func(t *testing.T) {
		var srv silent
		lost := make(chan error, 1)
		nc, err := bus.Connect(t.Context(), bus.Config{Options: []nats.Option{
			nats.InProcessServer(&srv),
			nats.NoReconnect(),
			nats.ClosedHandler(func(nc *nats.Conn) { lost <- nc.LastError() }),
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		time.Sleep(10 * time.Minute)
		if !nc.IsConnected() {
			t.Fatal("lost a peer that answers")
		}
		srv.mu.Lock()
		srv.quiet = true
		srv.mu.Unlock()
		began := time.Now()
		err = <-lost
		if d := time.Since(began); !errors.Is(err, nats.ErrStaleConnection) || d > 31*time.Second {
			t.Errorf("noticed after %v: %v", d, err)
		}
	})
}

func TestPermissionsAndSlowConsumersAreLogged(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.User("me", []string{"ok"}, []string{"ok"}))
	var l log
	nc := connect(t, bus.Config{URL: strings.Replace(srv.URL(), "nats://", "nats://me:me@", 1), Logger: l.logger()})
	for range 5 {
		if err := nc.Publish("forbidden", nil); err != nil {
			t.Fatal(err)
		}
	}
	l.has(t, "NATS refuses a permission")
	l.has(t, "forbidden")

	release, once := make(chan struct{}), sync.Once{}
	defer once.Do(func() { close(release) })
	sub, err := nc.Subscribe("ok", func(*nats.Msg) { <-release })
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(1, 1<<20); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := nc.Publish("ok", nil); err != nil {
			t.Fatal(err)
		}
	}
	l.has(t, "some were dropped")
	l.has(t, "subject=ok")
	once.Do(func() { close(release) })
	bustest.Flush(t, nc)
	if n := strings.Count(l.String(), "NATS refuses a permission"); n != 1 {
		t.Errorf("one refusal was logged %d times:\n%s", n, l.String())
	}
}

// gate is a dialer that hangs while it is not open.
type gate struct {
	open    atomic.Bool
	inside  chan struct{}
	release chan struct{}
}

func (g *gate) Dial(network, address string) (net.Conn, error) {
	select {
	case g.inside <- struct{}{}:
	default:
	}
	if !g.open.Load() {
		<-g.release
	}
	return net.Dial(network, address)
}

func TestDrain(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())

	t.Run("delivers", func(t *testing.T) {
		nc := connect(t, bus.Config{URL: srv.URL()})
		watcher := bustest.Conn(t, srv)
		watch, err := watcher.SubscribeSync("bye")
		if err != nil {
			t.Fatal(err)
		}
		bustest.Flush(t, watcher) // otherwise the server may read the goodbye first
		if err := watch.SetPendingLimits(-1, -1); err != nil {
			t.Fatal(err)
		}
		handled := 0
		if _, err := nc.Subscribe("work", func(*nats.Msg) { handled++ }); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := nc.Publish("work", nil); err != nil {
				t.Fatal(err)
			}
		}
		bustest.Flush(t, nc)
		if err := nc.Publish("bye", nil); err != nil {
			t.Fatal(err)
		}
		if err := bus.Drain(t.Context(), nc); err != nil {
			t.Fatal(err)
		}
		if !nc.IsClosed() {
			t.Error("not closed")
		}
		if _, err := watch.NextMsg(soon); err != nil {
			t.Errorf("what was published last: %v", err)
		}
		if handled != 100 {
			t.Errorf("handled %d of 100", handled)
		}
		if err := bus.Drain(t.Context(), nc); err != nil {
			t.Errorf("again: %v", err)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		nc := connect(t, bus.Config{URL: srv.URL()})
		inside, release := make(chan struct{}), make(chan struct{})
		if _, err := nc.Subscribe("stuck", func(*nats.Msg) { close(inside); <-release }); err != nil {
			t.Fatal(err)
		}
		defer close(release)
		if err := nc.Publish("stuck", nil); err != nil {
			t.Fatal(err)
		}
		<-inside
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := bus.Drain(ctx, nc); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		bustest.Eventually(t, soon, func() (bool, string) { return nc.IsClosed(), nc.Status().String() })
	})
	t.Run("while dialling", func(t *testing.T) {
		line := bustest.NewProxy(t, srv.URL())
		d := &gate{inside: make(chan struct{}, 1)}
		d.open.Store(true)
		release := sync.OnceFunc(func() { close(d.release) })
		d.release = make(chan struct{})
		defer release()
		nc := connect(t, bus.Config{URL: line.URL(), Options: []nats.Option{nats.SetCustomDialer(d)}})
		<-d.inside
		d.open.Store(false)
		line.Kick()
		<-d.inside // nats.go holds the connection's lock now
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- bus.Drain(ctx, nc) }()
		select {
		case err := <-ended:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(soon):
			t.Error("waits for the lock")
		}
		release()
		bustest.Eventually(t, soon, func() (bool, string) { return nc.IsClosed(), nc.Status().String() })
	})
	t.Run("while away", func(t *testing.T) {
		line := bustest.NewProxy(t, srv.URL())
		nc := connect(t, bus.Config{URL: line.URL()})
		line.Cut()
		bustest.Eventually(t, soon, func() (bool, string) { return nc.IsReconnecting(), nc.Status().String() })
		if err := bus.Drain(t.Context(), nc); err != nil {
			t.Errorf("got %v", err)
		}
		if !nc.IsClosed() {
			t.Error("not closed")
		}
	})
}
