package ledger

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestOpenMakesRealBuckets(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, prefixed(t, "acme"))
	ctx := ctxOf(t)
	for bucket, ttl := range map[string]time.Duration{"acme_queen_hives": 24 * time.Hour, "acme_queen_roster": 7 * 24 * time.Hour} {
		kv, err := l.js.KeyValue(ctx, bucket)
		if err != nil {
			t.Fatalf("%s is no bucket for nats.go: %v", bucket, err)
		}
		st, err := kv.Status(ctx)
		if err != nil || st.TTL() != ttl || st.History() != 1 {
			t.Errorf("%s: TTL %v history %d, %v; want %v and 1", bucket, st.TTL(), st.History(), err, ttl)
		}
	}
	info, err := l.info(ctx, "acme_QUEEN_EVENTS")
	if err != nil || info.Config.MaxBytes != 64<<20 || info.Config.Duplicates != time.Hour {
		t.Errorf("stream: %+v, %v", info, err)
	}
	// CreateKeyValue of nats.go would create the same stream.
	if _, err := l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: "queen_hives", History: 1, TTL: hivesTTL, LimitMarkerTTL: hivesMarker,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "queen_roster", TTL: rosterTTL}); err != nil {
		t.Fatal(err)
	}
	opened(t, srv, Config{})
}

func TestThreeOpenAtOnce(t *testing.T) {
	srv := bustest.Server(t)
	for range 5 {
		var wg sync.WaitGroup
		errs := make([]error, 3)
		for i := range errs {
			nc := bustest.Conn(t, srv)
			wg.Go(func() { _, errs[i] = Open(ctxOf(t), nc, Config{}) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(bustest.Conn(t, srv))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"KV_queen_hives", "KV_queen_roster", "KV_queen_holds", "QUEEN_EVENTS"} {
			if err := js.DeleteStream(ctxOf(t), name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestOpenNamesEachDifference(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := ctxOf(t)
	if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "queen_hives", TTL: time.Hour, History: 5, LimitMarkerTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	_, err = Open(ctx, nc, Config{})
	if !errors.Is(err, ErrDiffers) {
		t.Fatalf("got %v, want ErrDiffers", err)
	}
	for _, want := range []string{"bucket queen_hives", "TTL is 1h0m0s, not 24h0m0s", "history is 5, not 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	for _, never := range []string{"replicas", "storage", "limit marker", "discard"} {
		if strings.Contains(err.Error(), never) {
			t.Errorf("%q names %s, which is as wanted", err, never)
		}
	}
	// Open left the stream alone.
	kv, err := js.KeyValue(ctx, "queen_hives")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := kv.Status(ctx); err != nil || st.TTL() != time.Hour || st.History() != 5 {
		t.Errorf("the bucket was changed: %v %d %v", st.TTL(), st.History(), err)
	}
}

func TestOpenMindsEverySetting(t *testing.T) {
	srv := bustest.Server(t)
	opened(t, srv, Config{})
	nc := bustest.Conn(t, srv)
	for want, cfg := range map[string]Config{
		"storage is File, not Memory":             {Storage: jetstream.MemoryStorage},
		"max bytes is 67108864, not 33554432":     {EventsMax: 32 << 20},
		`not cluster "x" tags ["gpu"]`:            {Placement: &jetstream.Placement{Cluster: "x", Tags: []string{"gpu"}}},
		"replicas is 1, not 3":                    {Replicas: 3},
		"Config.Replicas: 9 is not 1 to 5":        {Replicas: 9},
		"Config.EventsMax: 5 is less than 1 MiB":  {EventsMax: 5},
		"Config.Storage: 7 is neither file nor m": {Storage: 7},
	} {
		if _, err := Open(ctxOf(t), nc, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOpenBesideAnotherStream(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctxOf(t), jetstream.StreamConfig{Name: "ALL", Subjects: []string{"queen.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctxOf(t), nc, Config{}); !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), "queen.log.>") {
		t.Errorf("got %v, want ErrDiffers that names queen.log.>", err)
	}
	opened(t, srv, prefixed(t, "acme"))
}

func TestOpenWithoutJetStream(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	_, err := Open(ctxOf(t), bustest.Conn(t, srv), Config{})
	if !errors.Is(err, ErrNoJetStream) || !strings.Contains(err.Error(), "--no-jetstream") {
		t.Errorf("got %v, want ErrNoJetStream with what to do", err)
	}
}

func TestOpenWhileCutOff(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) { return !nc.IsConnected(), nc.Status().String() })
	if _, err := Open(ctxOf(t), nc, Config{}); !errors.Is(err, ErrAway) {
		t.Errorf("got %v, want ErrAway", err)
	}
}

func TestOpenWithoutSpace(t *testing.T) {
	srv := bustest.Server(t, func(c *embedded.Config) { c.JetStreamMaxStore = 32 << 20 })
	nc := bustest.Conn(t, srv)
	_, err := Open(ctxOf(t), nc, Config{})
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "--events-max") || codeOf(err) != codeStorageResources {
		t.Errorf("got %v, want ErrNoSpace by 10047 that names --events-max", err)
	}
	if _, err := Open(ctxOf(t), nc, Config{EventsMax: 8 << 20}); err != nil {
		t.Errorf("with less: %v", err)
	}
}

func TestTooOld(t *testing.T) {
	for v, want := range map[string]bool{
		"2.9.25": true, "2.10.27": true, "2.11.0": true, "2.11.1": true, "2.11.1-RC.1": true, "1.99.99": true,
		"2.11.2": false, "2.11.2-RC.2": false, "2.12.0": false, "2.15.2": false, "3.0.0": false, "v2.12.1": false,
		"": false, "dev": false,
	} {
		if tooOld(v) != want {
			t.Errorf("tooOld(%q) is %v", v, !want)
		}
	}
}

func TestWaitUntilThere(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) { return !nc.IsConnected(), nc.Status().String() })
	reports := make(chan error, 100)
	got := make(chan error, 1)
	go func() {
		_, err := Wait(ctxOf(t), nc, Config{}, func(err error) { reports <- err })
		got <- err
	}()
	if err := <-reports; !errors.Is(err, ErrAway) {
		t.Errorf("reported %v, want ErrAway", err)
	}
	bustest.Restart(t, srv)
	if err := <-got; err != nil {
		t.Errorf("got %v, want a ledger", err)
	}
}

func TestWaitEnds(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Wait(ctx, nc, Config{}, func(error) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	if _, err := Wait(context.Background(), nc, Config{Replicas: -1}, nil); err == nil {
		t.Error("a bad Config is waited with")
	}
	if _, err := Wait(context.Background(), nc, Config{}, func(error) { nc.Close() }); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("got %v, want connection closed", err)
	}
}

func TestIdentity(t *testing.T) {
	srv := bustest.Server(t)
	l := opened(t, srv, Config{})
	ctx := ctxOf(t)
	first, err := l.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := l.Reopen(ctx); changed || err != nil {
		t.Fatalf("nothing happened: changed %v, %v", changed, err)
	}
	if err := l.js.DeleteStream(ctx, "KV_queen_roster"); err != nil {
		t.Fatal(err)
	}
	if id, err := l.Identity(ctx); err != nil || !strings.Contains(id, "absent") {
		t.Errorf("with the roster removed: %q, %v", id, err)
	}
	if changed, err := l.Reopen(ctx); !changed || err != nil {
		t.Errorf("the roster is new: changed %v, %v", changed, err)
	}
	second, err := l.Identity(ctx)
	if err != nil || second == first || strings.Contains(second, "absent") {
		t.Errorf("identity %q after %q, %v", second, first, err)
	}
	// The Reopen of another queen may create it: ours reports the change all the same.
	l2 := opened(t, srv, Config{})
	if err := l.js.DeleteStream(ctx, "QUEEN_EVENTS"); err != nil {
		t.Fatal(err)
	}
	for i, each := range []*Ledger{l, l2} {
		if changed, err := each.Reopen(ctx); !changed || err != nil {
			t.Errorf("queen %d: the stream is new: changed %v, %v", i, changed, err)
		}
	}
}

// From a leaf node, the domain reaches the JetStream of the hub.
func TestDomain(t *testing.T) {
	srv := bustest.Server(t, bustest.Configure(func(o *embedded.Options) { o.JetStreamDomain = "hub" }))
	cfg := Config{Domain: "hub"}
	l := opened(t, srv, cfg)
	put(t, l, snap("gpu-01", 1, 1))
	l.seqs.clear()
	if err := l.PutSnapshot(ctxOf(t), snap("gpu-01", 1, 1), time.Now()); !errors.Is(err, ErrStale) {
		t.Errorf("got %v, want ErrStale", err)
	}
	p := NewPutter(l, PutterConfig{})
	running(t, p.Run)
	p.Offer(snap("gpu-02", 1, 1))
	holds(t, l, "gpu-02", 1)
	if all, err := hivesOf(t, l); err != nil || len(all) != 2 {
		t.Errorf("Hives: %v %v", all, err)
	}
	rev := advance(t, l, "gpu-01", 0, entry(1))
	if item, ok, err := rosterOf(t, l, "gpu-01"); !ok || err != nil || item.Revision != rev {
		t.Errorf("roster: %+v %v %v", item, ok, err)
	}
	if err := publish(ctxOf(t), t, l, event(l, "gpu-01", 1, time.Now())); err != nil {
		t.Error(err)
	}
	if _, err := Open(ctxOf(t), l.nc, Config{Domain: "elsewhere"}); !errors.Is(err, ErrNoJetStream) {
		t.Errorf("a domain that is not there: %v", err)
	}
}
