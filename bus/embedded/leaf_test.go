package embedded_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

const soon = 20 * time.Second

func connect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return bustest.Dial(t, url, opts...)
}

func TestSystemAccountHearsDisconnects(t *testing.T) {
	srv := start(t, embedded.Config{System: true, JetStream: true, StoreDir: t.TempDir()})
	sys, err := nats.Connect("", srv.SystemOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	gone, err := sys.SubscribeSync("$SYS.ACCOUNT.*.DISCONNECT")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, sys)

	// Every client is let in as without a system account, with any credentials, and
	// into one account.
	plain := connect(t, srv.URL())
	roundTrip(t, plain)
	strange := connect(t, srv.URL(), nats.UserInfo("u", "p"))
	roundTrip(t, strange)
	sub, err := plain.SubscribeSync("from.strange")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, plain)
	if err := strange.Publish("from.strange", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(soon); err != nil {
		t.Errorf("two accounts: %v", err)
	}
	js, err := jetstream.New(plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"}); err != nil {
		t.Errorf("JetStream: %v", err)
	}

	// But no client there can receive from the system account, or enter it.
	spy, err := plain.SubscribeSync("$SYS.>")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, plain)
	if _, err := nats.Connect(srv.URL(), nats.UserInfo("hivebeat-system", "guess")); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("into the system account with a guess: %v", err)
	}

	cid, err := strange.GetClientID()
	if err != nil {
		t.Fatal(err)
	}
	strange.Close()
	for {
		m, err := gone.NextMsg(soon)
		if err != nil {
			t.Fatal(err)
		}
		var ev struct {
			Server struct{ ID string }
			Client struct {
				ID   uint64
				Kind string
			}
		}
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			t.Fatal(err)
		}
		if ev.Client.ID != cid {
			continue // the guess
		}
		if ev.Server.ID != srv.ID() || ev.Client.Kind != "Client" {
			t.Errorf("the advisory is %s", m.Data)
		}
		break
	}
	bustest.Flush(t, plain)
	if n, _, _ := spy.Pending(); n != 0 {
		t.Errorf("a client of the app account heard %d system messages", n)
	}
}

func TestSystemNeedsItsConfig(t *testing.T) {
	srv := start(t, embedded.Config{Port: -1})
	if _, err := nats.Connect("", srv.SystemOptions()...); !errors.Is(err, embedded.ErrNoSystem) {
		t.Errorf("got %v", err)
	}
	_, err := embedded.Start(t.Context(), embedded.Config{JetStream: true, StoreDir: t.TempDir(), Leaf: &embedded.Leaf{URL: "hub", Domain: "d"}})
	if err == nil || !strings.Contains(err.Error(), "Config.Leaf.Domain") {
		t.Errorf("two JetStreams: %v", err)
	}
	_, err = embedded.Start(t.Context(), embedded.Config{System: true, Options: func(o *embedded.Options) {
		o.Users = []*embedded.User{{Username: "u", Password: "p"}}
	}})
	if err == nil || !strings.Contains(err.Error(), "Config.System") {
		t.Errorf("with users: %v", err)
	}
}

func TestLeafConfig(t *testing.T) {
	for _, c := range []struct {
		leaf embedded.Leaf
		want string
	}{
		{embedded.Leaf{}, "Config.Leaf.URL"},
		{embedded.Leaf{URL: "http://hub"}, `Config.Leaf.URL: scheme "http"`},
		{embedded.Leaf{URL: "nats://user:secret@:7422"}, "Config.Leaf.URL"},
		{embedded.Leaf{URL: "nats://user:secret@%zz"}, "Config.Leaf.URL"},
		{embedded.Leaf{URL: "hub,"}, "Config.Leaf.URL"},
		{embedded.Leaf{URL: "hub", Creds: "/not/there.creds"}, "Config.Leaf.Creds"},
		{embedded.Leaf{URL: "hub", TLSCA: "/not/there.pem"}, "Config.Leaf.TLSCA"},
		{embedded.Leaf{URL: "hub", TLSCert: "/not/there.pem"}, "Config.Leaf.TLSCert"},
	} {
		_, err := embedded.Start(t.Context(), embedded.Config{Leaf: &c.leaf})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %s", c.leaf, err, c.want)
		}
	}
	none := filepath.Join(t.TempDir(), "none.pem")
	if err := os.WriteFile(none, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Start(t.Context(), embedded.Config{Leaf: &embedded.Leaf{URL: "hub", TLSCA: none}}); err == nil {
		t.Error("a CA without a certificate")
	}
}

// hub is a server that takes leaf nodes.
func hub(t *testing.T) *embedded.Server {
	t.Helper()
	return bustest.Server(t, bustest.Configure(func(o *embedded.Options) {
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", -1
		o.LeafNode.NoAdvertise = true // otherwise the leaf finds a way around the proxy
		o.JetStreamDomain = "central"
	}))
}

// uplink watches the connection of a leaf to its hub.
func uplink(t *testing.T, srv *embedded.Server, subject string) <-chan bool {
	t.Helper()
	changed := make(chan bool, 64)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.WatchUplink(ctx, subject, func(up bool) { changed <- up }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return changed
}

func awaitUplink(t *testing.T, changed <-chan bool, want bool) {
	t.Helper()
	select {
	case got := <-changed:
		if got != want {
			t.Fatalf("the uplink is reported as %t, want %t", got, want)
		}
	case <-time.After(soon):
		t.Fatalf("nothing is told of the uplink, want %t", want)
	}
}

func TestLeaf(t *testing.T) {
	up := hub(t)
	line := bustest.NewProxy(t, up.LeafURL())
	atHub := connect(t, up.URL())
	all, err := atHub.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, atHub)
	srv := start(t, embedded.Config{System: true, Leaf: &embedded.Leaf{
		URL: line.URL(), Domain: "central", DenyExports: []string{"stay.*", "stay.*.here"},
	}})
	changed := uplink(t, srv, "go")
	awaitUplink(t, changed, true)

	nc := connect(t, srv.URL())
	local, err := nc.SubscribeSync("stay.a")
	if err != nil {
		t.Fatal(err)
	}
	heard := func(want string) {
		t.Helper()
		for _, subject := range []string{"stay.a", "stay.a.here", "go"} {
			if err := nc.Publish(subject, []byte(want)); err != nil {
				t.Fatal(err)
			}
		}
		bustest.Flush(t, nc)
		if _, err := local.NextMsg(soon); err != nil {
			t.Errorf("not heard on the machine: %v", err)
		}
		for {
			m, err := all.NextMsg(soon)
			if err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			if strings.HasPrefix(m.Subject, "stay.") {
				t.Errorf("%s crossed", m.Subject)
			}
			if m.Subject == "go" && string(m.Data) == want {
				return
			}
		}
	}
	heard("first")

	// In the other direction, a message published at the hub reaches the machine.
	asked, err := nc.SubscribeSync("roll")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	bustest.Eventually(t, soon, func() (bool, string) {
		if err := atHub.Publish("roll", nil); err != nil {
			t.Fatal(err)
		}
		n, _, _ := asked.Pending()
		return n > 0, "not heard"
	})
	// The hub's JetStream is available on both sides.
	js, err := jetstream.New(atHub)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if kv, err = js.KeyValue(t.Context(), "b"); err != nil {
		t.Fatalf("JetStream from the machine: %v", err)
	}
	if e, err := kv.Get(t.Context(), "k"); err != nil || string(e.Value()) != "v" {
		t.Errorf("KV from the machine: %v", err)
	}

	// The uplink fails, and clients on the machine do not notice. When the uplink
	// returns, its change of state shows that their messages to the hub were lost
	// meanwhile.
	for round := range 3 {
		line.Cut()
		awaitUplink(t, changed, false)
		roundTrip(t, nc)
		if !nc.IsConnected() {
			t.Error("the machine was cut off its own server")
		}
		line.Restore()
		awaitUplink(t, changed, true)
		heard(fmt.Sprint("round ", round))
	}
	if n := nc.Stats().Reconnects; n != 0 {
		t.Errorf("%d reconnects", n)
	}
}

// The hub is away when the leaf starts, and hangs later.
func TestLeafComesUpLater(t *testing.T) {
	up := hub(t)
	line := bustest.NewProxy(t, up.LeafURL())
	line.Cut()
	srv := start(t, embedded.Config{System: true, Leaf: &embedded.Leaf{URL: line.URL()}, Options: func(o *embedded.Options) {
		o.PingInterval, o.MaxPingsOut = 100*time.Millisecond, 1
	}})
	changed := uplink(t, srv, "x") // no client at the hub subscribes to it
	roundTrip(t, connect(t, srv.URL()))
	line.Restore()
	awaitUplink(t, changed, true)
	line.Stall()
	awaitUplink(t, changed, false)
	line.Resume()
}
