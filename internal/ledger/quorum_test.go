package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// clustered starts n servers that share one JetStream.
func clustered(t *testing.T, n int) []*embedded.Server {
	t.Helper()
	var routes []*url.URL
	ports := make([]int, n)
	for i := range ports { // free ports, which each server must know from the others
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		_ = l.Close()
	}
	servers, errs := make([]*embedded.Server, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range servers {
		dir := t.TempDir()
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			servers[i], errs[i] = embedded.Start(ctx, embedded.Config{JetStream: true, StoreDir: dir, Options: func(o *embedded.Options) {
				o.ServerName, o.Cluster.Name, o.Cluster.Host, o.Cluster.Port, o.Routes = fmt.Sprint("n", i), "c", "127.0.0.1", ports[i], routes
			}})
		})
	}
	wg.Wait()
	for i, srv := range servers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		t.Cleanup(func() { bustest.Stop(t, srv) })
	}
	return servers
}

// A leader that is left alone may still answer. It never claims to have been in touch with
// a majority of the servers after they were gone.
func TestQuorum(t *testing.T) {
	t.Parallel()
	servers := clustered(t, 3)
	ctx, _ := contextWithCancel(t) // without a deadline: each request sets one
	cfg := Config{Replicas: 3, Storage: jetstream.MemoryStorage}
	l, err := Wait(ctx, bustest.Conn(t, servers[0]), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	leader := ""
	bustest.Eventually(t, patience, func() (bool, string) { // new servers have not heard of each other yet
		ago, err := l.Quorum(ctx)
		if info, err := l.info(ctx, l.layout()[atRoster].Name); err == nil {
			leader = info.Cluster.Leader
		}
		return err == nil && ago < 3*time.Second, fmt.Sprint(ago, err)
	})
	for i, srv := range servers {
		if fmt.Sprint("n", i) == leader {
			l = opened(t, srv, cfg)
		}
	}
	for i, srv := range servers {
		if fmt.Sprint("n", i) != leader {
			bustest.Stop(t, srv)
		}
	}
	gone := time.Now()
	bustest.Never(t, 2*time.Second, func() (bool, string) {
		asked := time.Now()
		ago, err := l.Quorum(ctx)
		if err != nil {
			return !errors.Is(err, ErrAway), err.Error()
		}
		return asked.Add(-ago).After(gone), fmt.Sprintf("%v after the others were gone it says that it was in touch %v ago", asked.Sub(gone), ago)
	})
}

func TestInTouch(t *testing.T) {
	peer := func(current, offline bool, active time.Duration) *jetstream.PeerInfo {
		return &jetstream.PeerInfo{Current: current, Offline: offline, Active: active}
	}
	cluster := func(leader string, peers ...*jetstream.PeerInfo) *jetstream.ClusterInfo {
		return &jetstream.ClusterInfo{Leader: leader, Replicas: peers}
	}
	for _, tt := range []struct {
		name string
		c    *jetstream.ClusterInfo
		ago  time.Duration
		ok   bool
	}{
		{"no cluster", nil, 0, true},
		{"one server keeps it", cluster("a"), 0, true},
		{"both others", cluster("a", peer(true, false, 3), peer(true, false, 1)), 1, true},
		{"one other is enough", cluster("a", peer(false, true, 1), peer(true, false, 5)), 5, true},
		{"none is in touch", cluster("a", peer(true, true, 1), peer(false, false, 1)), 0, false},
		{"no leader", cluster("", peer(true, false, 1), peer(true, false, 1)), 0, false},
		{"two of four others", cluster("a", peer(true, false, 9), peer(true, false, 2), peer(true, false, 4), peer(false, false, 1)), 4, true},
		{"one of three others", cluster("a", peer(true, false, 2), peer(false, false, 1), peer(false, false, 1)), 0, false},
	} {
		if ago, ok := inTouch(tt.c); ago != tt.ago || ok != tt.ok {
			t.Errorf("%s: %v, %t", tt.name, ago, ok)
		}
	}
}
