//go:build e2e

package fabric

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// small is a fabric with one queen, one hive and two workers, all alive.
func small(t *testing.T) (f *fabric, events *rig.Events, alive rig.Fleet, queen *rig.Proc) {
	t.Helper()
	f = start(t)
	events = rig.Listen(t, f.nc)
	queen = f.queen("q1")
	f.hive("gpu-01")
	f.worker("gpu-01", "w1")
	f.worker("gpu-01", "w2", "--every", "30s")
	alive = rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive, "gpu-01/w2": hivebeat.Alive}
	f.sees(alive)
	return f, events, alive, queen
}

func TestNATSKilledAndRestarted(t *testing.T) {
	f, events, alive, _ := small(t)
	before := len(f.stored())
	f.nats.Kill()
	f.nats.Start()
	f.connected()
	f.sees(alive)
	rig.Until(t, moment, "the key", func() (bool, string) { return f.key("gpu-01") })
	if after := len(f.stored()); after < before {
		t.Errorf("%d events were stored before, %d after", before, after)
	}
	f.worker("gpu-01", "w3")
	events.Wait(t, moment, hivebeat.KindJoined, "gpu-01/w3")
	none(t, events, hivebeat.KindLost)
	f.once(hivebeat.KindJoined, "gpu-01/w1")
}

// NATS restarts with an empty JetStream: the queen creates its buckets and its stream again,
// and its view was never at risk.
func TestNATSRestartedEmpty(t *testing.T) {
	f, events, alive, _ := small(t)
	f.nats.Kill()
	f.nats.Empty()
	f.nats.Start()
	f.connected()
	f.sees(alive)
	rig.Until(t, 2*moment, "the key in the new bucket", func() (bool, string) { return f.key("gpu-01") })
	f.worker("gpu-01", "w3")
	events.Wait(t, moment, hivebeat.KindJoined, "gpu-01/w3")
	f.once(hivebeat.KindJoined, "gpu-01/w3")
	none(t, events, hivebeat.KindLost)
}

// NATS is away for longer than every deadline: silence while no process can speak is not death.
func TestNATSAway(t *testing.T) {
	f, events, alive, queen := small(t)
	f.nats.Kill()
	away := 8 * beat
	if s := os.Getenv("HIVEBEAT_E2E_AWAY"); s != "" { // for example 2m
		var err error
		if away, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	queen.Said("NATS is away", moment)
	bustest.Never(t, away, func() (bool, string) {
		return queen.Ended(), "the queen ended:\n" + queen.Output()
	})
	f.nats.Start()
	f.connected()
	f.sees(alive)
	f.worker("gpu-01", "w3")
	events.Wait(t, moment, hivebeat.KindJoined, "gpu-01/w3")
	none(t, events, hivebeat.KindLost)
	queen.Said("NATS is back", moment)
}

// A server without JetStream: the queen reports that, and what to do.
func TestNoJetStream(t *testing.T) {
	f := start(t)
	f.nats.Kill()
	f.nats.Configure("")
	f.nats.Start()
	f.connected()
	f.queen("q1").Said("(?s)no JetStream.*--no-jetstream", moment)
	if out, errs := f.cli(1, "doctor"); !strings.Contains(out+errs, "JetStream") {
		t.Errorf("doctor does not name JetStream:\n%s%s", out, errs)
	}

	events := rig.Listen(t, f.nc)
	f.hivebeat("queen --no-jetstream", "queen", "--id", "q2", "--no-jetstream")
	f.hive("gpu-01")
	w := f.worker("gpu-01", "w1")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
	w.Interrupt()
	events.Wait(t, moment, hivebeat.KindLeft, "gpu-01/w1")
}

// The server that Debian 12 ships.
func TestServerTooOld(t *testing.T) {
	s := rig.Serve(t, rig.Install(t, rig.NATSServer+"@v2.9.10"))
	at := []string{"HIVEBEAT_NATS=" + s.URL}
	for _, cmd := range []string{"queen", "doctor"} {
		out, errs, code := rig.CLI(t, at, cmd)
		if code != 1 || !strings.Contains(out+errs, "2.9.10") || !strings.Contains(out+errs, "2.11.2") {
			t.Errorf("hivebeat %s: exit code %d; want 1, the version there is and the one that is needed:\n%s%s", cmd, code, out, errs)
		}
	}
}

// A bucket with our name, created by another program with other settings.
func TestBucketDiffers(t *testing.T) {
	f := start(t)
	var none hivebeat.Subjects
	if _, err := f.js().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: none.Bucket(hivebeat.BucketHives), History: 5, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	_, errs := f.cli(1, "queen")
	for _, want := range []string{hivebeat.BucketHives, "TTL is 1m0s, not 24h0m0s", "history is 5, not 1", "remove it"} {
		if !strings.Contains(errs, want) {
			t.Errorf("the queen's error does not hold %q:\n%s", want, errs)
		}
	}
	kv, err := f.js().KeyValue(t.Context(), none.Bucket(hivebeat.BucketHives))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := kv.Status(t.Context()); err != nil || st.History() != 5 || st.TTL() != time.Minute {
		t.Errorf("the bucket was changed: %v, %v", st, err)
	}
}

// Too little space for the stream from the start: the error names the flag.
func TestNoRoomForEvents(t *testing.T) {
	f := start(t)
	f.nats.Kill()
	f.nats.Configure(f.nats.JetStream("32MB"))
	f.nats.Start()
	f.connected()
	f.queen("q1").Said("--events-max", moment)
	f.hive("gpu-01")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive}) // and the view still works
}

// The disk fills up under a running JetStream. The view continues in memory, and the rest
// continues once there is space again.
func TestDiskFull(t *testing.T) {
	disk := rig.SmallDisk(t, "48m")
	f := start(t)
	f.nats.Kill()
	f.nats.Store = filepath.Join(disk.Dir, "store")
	f.nats.Configure(f.nats.JetStream("1GB"))
	f.nats.Start()
	f.connected()
	events := rig.Listen(t, f.nc)
	queen := f.hivebeat("queen q1", "queen", "--id", "q1", "--events-max", "16777216")
	f.hive("gpu-01")
	f.worker("gpu-01", "w1")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
	rig.Until(t, moment, "the key", func() (bool, string) { return f.key("gpu-01") })

	disk.Fill()
	w := f.worker("gpu-01", "w2")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive, "gpu-01/w2": hivebeat.Alive})
	queen.Said("(snapshots are not being kept|JetStream is away|JetStream has no space)", 2*moment)
	w.Interrupt()
	f.sees(rig.Fleet{"gpu-01/w1": hivebeat.Alive, "gpu-01/w2": hivebeat.Left})

	// A stream that met a full disk accepts nothing until its server is restarted. An operator
	// does that after freeing space.
	disk.Free()
	f.nats.Kill()
	f.nats.Start()
	f.connected()
	queen.Said("JetStream is (back|there)", 2*moment)
	f.worker("gpu-01", "w3")
	events.Wait(t, moment, hivebeat.KindJoined, "gpu-01/w3")
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive, "gpu-01/w3": hivebeat.Alive})
	rig.Until(t, moment, "the key", func() (bool, string) { return f.key("gpu-01") })
	rig.Until(t, 2*moment, "what happened meanwhile to be stored", func() (bool, string) {
		return count(f, hivebeat.KindLeft, "gpu-01/w2") == 1, "not there"
	})
	if queen.Ended() {
		t.Errorf("the queen ended:\n%s", queen.Output())
	}
	none(t, events, hivebeat.KindLost)
}
