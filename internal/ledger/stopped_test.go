package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func name(server string) bustest.Option {
	return bustest.Configure(func(o *embedded.Options) { o.ServerName = server })
}

// again stops srv and starts it on its port, with or without JetStream.
func again(t *testing.T, srv *embedded.Server, jetStream bool) *embedded.Server {
	t.Helper()
	cfg := srv.Config()
	bustest.Stop(t, srv)
	cfg.JetStream = jetStream
	var next *embedded.Server
	bustest.Eventually(t, patience, func() (bool, string) {
		var err error
		next, err = embedded.Start(t.Context(), cfg)
		return err == nil, fmt.Sprint(err)
	})
	t.Cleanup(func() { bustest.Stop(t, next) })
	return next
}

// Keep reports which server has stopped its JetStream, and when it is on again. It does not
// report a server that is away.
func TestKeepTellsWhereJetStreamIsOff(t *testing.T) {
	srv := bustest.Server(t, name("n1"))
	l := opened(t, srv, Config{})
	told := make(chan string, 100)
	running(t, func(ctx context.Context) error {
		return l.Keep(ctx, nil, nil, func(what string) { told <- what })
	})
	for range 2 {
		srv = again(t, srv, true) // away for a while
		srv = again(t, srv, false)
		if what := <-told; what != "JetStream is off at n1" {
			t.Errorf("told %q", what)
		}
		srv = again(t, srv, true)
		if what := <-told; what != "" {
			t.Errorf("told %q", what)
		}
	}
	if len(told) > 0 {
		t.Errorf("more: %q", <-told)
	}
}

// Each known server is asked with the credentials of the connection. Servers that are not
// reached are in neither list.
func TestServersWithAndWithoutJetStream(t *testing.T) {
	user := bustest.User("u", nil, nil)
	var urls []string
	for i, opts := range [][]bustest.Option{{user}, {user, bustest.NoJetStream()}, {user, bustest.NoJetStream()}, {bustest.User("other", nil, nil)}} {
		u, err := url.Parse(bustest.Server(t, append(opts, name(fmt.Sprint("n", i+1)))...).URL())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			u.User = url.UserPassword("u", "u")
		}
		urls = append(urls, u.String())
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	urls = append(urls, "nats://"+gone.Addr().String())
	nc := bustest.Dial(t, strings.Join(urls, ","), nats.DontRandomize())
	on, off := servers(ctxOf(t), nc)
	if diff := cmp.Diff([][]string{{"n1"}, {"n2", "n3"}}, [][]string{on, off}); diff != "" {
		t.Errorf("with and without (-want +got):\n%s", diff)
	}

	_, err = Inspect(ctxOf(t), bustest.Dial(t, strings.Replace(urls[1], "//", "//u:u@", 1)), Config{})
	if !errors.Is(err, ErrNoJetStream) || !strings.HasSuffix(err.Error(), "(JetStream is off at n2)") {
		t.Errorf("%v", err)
	}
}

// The search is for the servers that keep the buckets: a missing one is known from before.
func TestKeepers(t *testing.T) {
	info := func(leader string, others ...string) *jetstream.ClusterInfo {
		ci := &jetstream.ClusterInfo{Leader: leader}
		for _, o := range others {
			who, bad, _ := strings.Cut(o, " ")
			ci.Replicas = append(ci.Replicas, &jetstream.PeerInfo{Name: who, Current: bad != "behind", Offline: bad == "offline"})
		}
		return ci
	}
	var k keepers
	for _, step := range []struct {
		seen  []*jetstream.ClusterInfo
		names string
		short bool
	}{
		{[]*jetstream.ClusterInfo{info("n1", "n2", "n3"), info("n2", "n1", "n3")}, "n1 n2 n3", false},
		{[]*jetstream.ClusterInfo{info("n1", "n2", "n3 offline"), info("n2", "n1", "n3")}, "n1 n2 n3", true},
		{[]*jetstream.ClusterInfo{info("n1", "n2")}, "n1 n2 n3", true},
		{[]*jetstream.ClusterInfo{info("n1", "n2", "n4 behind")}, "n1 n2 n3 n4", true},
		{[]*jetstream.ClusterInfo{info("n1", "n2", "n4")}, "n1 n2 n4", false},
		{[]*jetstream.ClusterInfo{info("", "n1", "n2", "n4")}, "n1 n2 n4", false},
		{[]*jetstream.ClusterInfo{nil}, "", false},
	} {
		var seen keepers
		for _, ci := range step.seen {
			seen.add(ci, 3)
		}
		k = k.next(seen)
		slices.Sort(k.names)
		if got := strings.Join(k.names, " "); got != step.names || k.short != step.short {
			t.Errorf("%v: %s, short %v; want %s, %v", step.seen[0], got, k.short, step.names, step.short)
		}
	}
}

// A stream is halted if writes are made for some time and none is acknowledged.
func TestHalted(t *testing.T) {
	var u unacked
	now := time.Unix(1_800_000_000, 0)
	pass := func(d time.Duration) { now = now.Add(d) }
	want := func(halted bool) {
		t.Helper()
		if got := u.halted(now); got != halted {
			t.Errorf("halted: %v", got)
		}
	}
	want(false)
	u.note(now) // one write without an answer, and no other for an hour
	pass(time.Hour)
	want(false)
	u.end()
	u.note(now)
	for range 5 {
		pass(2 * time.Second)
		u.note(now)
		want(false)
	}
	pass(2 * time.Second)
	u.note(now)
	want(true)
	pass(haltedRecent)
	want(false)
	u.note(now)
	want(true)
	u.end()
	want(false)
	u.note(now)
	want(false)
}

// A stream that answers but acknowledges nothing is named until it acknowledges something.
func TestKeepTellsWhatIsHalted(t *testing.T) {
	l := opened(t, bustest.Server(t), Config{})
	ack := l.publish
	l.publish = func(context.Context, *nats.Msg, ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
		return nil, nats.ErrTimeout
	}
	write := func() error { return l.PutSnapshot(ctxOf(t), snap("gpu-01", 1, 1), time.Now()) }
	if err := write(); !errors.Is(err, ErrAway) {
		t.Fatal(err)
	}
	l.unacked[atHives].first.Store(time.Now().Add(-2 * haltedAfter).UnixNano())
	told := make(chan string, 100)
	running(t, func(ctx context.Context) error { return l.Keep(ctx, nil, nil, func(what string) { told <- what }) })
	if what := <-told; what != "no write is acknowledged by the bucket queen_hives" {
		t.Errorf("told %q", what)
	}
	l.publish = ack
	if err := write(); err != nil {
		t.Fatal(err)
	}
	l.doubt()
	if what := <-told; what != "" {
		t.Errorf("told %q", what)
	}
}
