//go:build e2e

package fabric

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/worker"
)

// hub is a NATS with accounts as in docs/OPERATIONS.md: a leaf user and a system user with
// no more permissions than they need.
func hub(t testing.TB) (f *fabric, leaf string) {
	t.Helper()
	s := rig.Prepare(t, rig.Server(t), "hub", "127.0.0.1")
	port := rig.Port(t)
	s.Configure(s.JetStream("256MB") + fmt.Sprintf(`
leafnodes { listen: "127.0.0.1:%d", no_advertise: true }
accounts {
  APP {
    jetstream: enabled
    users: [
      { user: all, password: all }
      { user: gpu, password: gpu, permissions: {
          publish: ["queen.hives", "queen.hives.m1"], subscribe: ["queen.rollcall", "queen.rollcall.m1", "hive.m1.rollcall"] } }
    ]
  }
  SYS { users: [ { user: hives, password: hives, permissions: { publish: "$SYS.REQ.SERVER.*.CONNZ", subscribe: ["$SYS.ACCOUNT.*.DISCONNECT", "_INBOX.>"] } } ] }
}
system_account: SYS
no_auth_user: all
`, port))
	s.Start()
	return &fabric{t: t, nats: s, nc: rig.Connect(t, s.URL)}, fmt.Sprintf("nats://gpu:gpu@127.0.0.1:%d", port)
}

// crash runs a worker and closes its connection while its process lives on, which looks to its
// hive like a crash in another pid namespace. It returns when it closed the connection.
func crash(t testing.TB, url, hive, id string, see func(id string)) time.Time {
	t.Helper()
	nc, err := bus.Connect(context.Background(), bus.Config{URL: url, FailFast: true})
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(nc, worker.Config{Hive: hive, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	see(hive + "/" + id)
	at := time.Now()
	nc.Close()
	<-ended
	return at
}

// window is how long a worker with a connection of package bus may take to come back.
const window = 2 * time.Second

// deaths crashes workers, one after the other, and prints how long after its window each
// death was published at the hub.
func (f *fabric) deaths(what, url, hive string, rounds int) {
	f.t.Helper()
	heard := make(chan *nats.Msg, 1024)
	sub, err := f.nc.ChanSubscribe("queen.events."+hive+".*.lost", heard)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var late []float64
	for i := range rounds {
		closed := crash(f.t, url, hive, fmt.Sprintf("w%d", i), func(id string) { f.sees(rig.Fleet{id: hivebeat.Alive}) })
		select {
		case <-heard:
			late = append(late, float64(time.Since(closed)-window)/1e6)
		case <-time.After(moment):
			f.t.Fatalf("%s: the death of w%d is not told", what, i)
		}
	}
	slices.Sort(late)
	at := func(q float64) float64 { return late[int(math.Ceil(q*float64(len(late))))-1] }
	f.t.Logf("%s: connection closed → event, past the window of %s: p50 %.1f ms, p99 %.1f ms, max %.1f ms (%d deaths)",
		what, window, at(0.5), at(0.99), at(1), len(late))
	if late[0] < 0 {
		f.t.Errorf("%s: lost %.1f ms before its window was over", what, -late[0])
	}
}

// A hive that runs its machine's server, joined to the hub as a user with minimal permissions,
// and a hive in the hub itself with the system account.
func TestDisconnect(t *testing.T) {
	f, leaf := hub(t)
	events := rig.Listen(t, f.nc)
	f.queen("q1")
	spy := make(chan *nats.Msg, 1024)
	if _, err := f.nc.ChanSubscribe("hive.m1.workers", spy); err != nil {
		t.Fatal(err)
	}
	m1 := rig.Start(t, "hive m1", nil, rig.Hivebeat(t), "hive", "--id", "m1", "--serve", "--serve-port", "0", "--leaf", leaf)
	m1.Said("uplink is up", moment)
	own := regexp.MustCompile(`serving NATS for this machine.* url=(\S+)`).FindStringSubmatch(m1.Output())[1]
	m2 := f.hivebeat("hive m2", "hive", "--id", "m2", "--system-nats", "nats://hives:hives@"+f.nats.URL[len("nats://"):])
	m2.Said("receiving disconnect advisories", moment)
	f.sees(rig.Fleet{"m1": hivebeat.Alive, "m2": hivebeat.Alive})

	f.deaths("--serve --leaf", own, "m1", 10)
	f.deaths("--system-nats", f.nats.URL, "m2", 10)
	for _, id := range []string{"m1/w0", "m2/w0"} {
		lost := events.Wait(t, moment, hivebeat.KindLost, id)
		if lost.Data.Cause != hivebeat.CauseDisconnect || lost.Data.From != "alive" || lost.Data.Via != "hive" {
			t.Errorf("lost without cause and evidence: %+v", lost.Data)
		}
		f.once(hivebeat.KindLost, id)
	}
	if n := len(spy); n != 0 {
		t.Errorf("%d beats of the machine came to the hub", n)
	}
	none(t, events, hivebeat.KindLate)
}
