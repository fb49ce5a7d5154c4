package prom_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/prom"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	h, err := prom.Handler()
	if err != nil {
		t.Fatal(err)
	}
	s, err := prom.NewServer(h, prom.ServerConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("it serves nowhere")
	}
	addr, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	get := func(method, path, host string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		w, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		b, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.StatusCode, string(b)
	}
	if code, text := get("GET", "/metrics", ""); code != 200 || !strings.Contains(text, "go_goroutines") {
		t.Errorf("%d %.100s", code, text)
	}
	if code, _ := get("GET", "/metrics", "localhost:7834"); code != 200 {
		t.Errorf("localhost: %d", code)
	}
	if code, text := get("GET", "/metrics", "evil.example"); code != 403 || strings.Contains(text, "go_") {
		t.Errorf("a name of elsewhere: %d", code)
	}
	if code, _ := get("GET", "/debug/pprof", ""); code != 404 {
		t.Errorf("another path: %d", code)
	}
	if code, _ := get("POST", "/metrics", ""); code != 405 {
		t.Errorf("another method: %d", code)
	}
	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestServerThatNeverRuns(t *testing.T) {
	s, err := prom.NewServer(http.NotFoundHandler(), prom.ServerConfig{Addr: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err := prom.NewServer(http.NotFoundHandler(), prom.ServerConfig{Addr: addr.String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Listen(t.Context()); err != nil {
		t.Errorf("the address is still taken: %v", err)
	}
	_ = again.Stop(t.Context())
}

func TestServerAddr(t *testing.T) {
	for addr, exposed := range map[string]bool{
		"0.0.0.0:7834": true, ":7834": true, "10.1.2.3:1": true, "[::]:7834": true, "host.example:80": true,
		"127.0.0.1": false, "127.0.0.1:x": false, "": false,
	} {
		_, err := prom.NewServer(http.NotFoundHandler(), prom.ServerConfig{Addr: addr})
		if err == nil || errors.Is(err, prom.ErrExposed) != exposed {
			t.Errorf("%q: %v", addr, err)
		}
	}
	for _, addr := range []string{"127.0.0.1:7834", "[::1]:0", "localhost:7834", "127.8.8.8:1", "[::ffff:127.0.0.1]:1"} {
		if _, err := prom.NewServer(http.NotFoundHandler(), prom.ServerConfig{Addr: addr}); err != nil {
			t.Errorf("%q: %v", addr, err)
		}
	}
	if _, err := prom.NewServer(http.NotFoundHandler(), prom.ServerConfig{Addr: ":7834", Open: true}); err != nil {
		t.Error(err)
	}
}
