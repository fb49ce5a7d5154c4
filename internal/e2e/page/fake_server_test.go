//go:build e2e

package page

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/httpapi"
)

// site is the HTTP server of a queen. It can be stopped and started again at its address.
type site struct {
	tb     testing.TB
	queen  *fakeQueen
	addr   string
	config httpapi.Config // for the next start
	server *httpapi.Server
	done   chan error
}

// serve starts a server for a generated fleet that changes.
func serve(tb testing.TB, hives, workers int) *site {
	tb.Helper()
	s := &site{tb: tb, queen: newFakeQueen(hives, workers), addr: "127.0.0.1:0"}
	s.start()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		s.queen.run(ctx)
	}()
	tb.Cleanup(func() {
		cancel()
		<-ended
		s.stop()
	})
	return s
}

func (s *site) start() {
	s.tb.Helper()
	s.config.Addr = s.addr
	server, err := httpapi.New(s.queen, s.config)
	if err != nil {
		s.tb.Fatal(err)
	}
	var ln net.Listener
	bustest.Eventually(s.tb, 10*time.Second, func() (bool, string) { // the address is not free at once
		ln, err = server.Listen(context.Background())
		return err == nil, fmt.Sprint(err)
	})
	s.addr, s.server, s.done = ln.Addr().String(), server, make(chan error, 1)
	go func() { s.done <- server.Serve(context.Background(), ln) }()
}

// stop stops the server, if it is running.
func (s *site) stop() {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.server.Stop(ctx); err != nil {
		s.tb.Error(err)
	}
	if err := <-s.done; err != nil {
		s.tb.Error(err)
	}
	s.server = nil
}

func (s *site) origin() string { return "http://" + s.addr }
