//go:build e2e

// Package fabric runs the fabric in real processes and breaks it: kill -9 in a test is
// kill -9 in production.
package fabric

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

const (
	// moment is how long anything may take that does not wait for a deadline. It is generous.
	moment = 20 * time.Second
	// beat is the promise of hives and most workers here: a worker is lost after three
	// times this, and a hive's key expires after as many whole seconds.
	beat = time.Second
)

// fabric is a NATS server and the programs that use it.
type fabric struct {
	t    testing.TB
	nats *rig.NATS
	nc   *nats.Conn
}

// start starts a NATS server for a test.
func start(t testing.TB) *fabric {
	t.Helper()
	s := rig.Serve(t, rig.Server(t))
	return &fabric{t: t, nats: s, nc: rig.Connect(t, s.URL)}
}

// hivebeat starts a hivebeat command.
func (f *fabric) hivebeat(name string, args ...string) *rig.Proc {
	f.t.Helper()
	return rig.Start(f.t, name, []string{"HIVEBEAT_NATS=" + f.nats.URL}, append([]string{rig.Hivebeat(f.t)}, args...)...)
}

func (f *fabric) queen(id string) *rig.Proc {
	f.t.Helper()
	return f.hivebeat("queen "+id, "queen", "--id", id)
}

func (f *fabric) hive(id string) *rig.Proc {
	f.t.Helper()
	return f.hivebeat("hive "+id, "hive", "--id", id, "--every", beat.String(), "--label", "zone=lab")
}

func (f *fabric) worker(hive, id string, args ...string) *rig.Proc {
	f.t.Helper()
	return f.hivebeat(hive+"/"+id, append([]string{"worker", "--hive", hive, "--id", id, "--model", "test", "--every", beat.String()}, args...)...)
}

func (f *fabric) sees(want rig.Fleet) {
	f.t.Helper()
	rig.Sees(f.t, f.nc, moment, want)
}

// cli runs a command that ends by itself, and fails the test unless its exit code is want.
func (f *fabric) cli(want int, args ...string) (stdout, stderr string) {
	f.t.Helper()
	out, errs, code := rig.CLI(f.t, []string{"HIVEBEAT_NATS=" + f.nats.URL}, args...)
	if code != want {
		f.t.Errorf("hivebeat %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out, errs
}

// ls holds the fields of hivebeat ls -o json that tests read.
type ls struct {
	Hives []struct {
		Hive string        `json:"hive"`
		Live hivebeat.Live `json:"live"`
		Seq  uint64        `json:"seq"`
	} `json:"hives"`
}

// stored returns every event in the stream.
func (f *fabric) stored() []hivebeat.Event {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), moment)
	defer cancel()
	var none hivebeat.Subjects
	s, err := f.js().Stream(ctx, none.Stream(hivebeat.StreamEvents))
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		f.t.Fatal(err)
	}
	var all []hivebeat.Event
	for range s.CachedInfo().State.Msgs {
		m, err := c.Next(jetstream.FetchMaxWait(moment))
		if err != nil {
			f.t.Fatal(err)
		}
		var ev hivebeat.Event
		if err := json.Unmarshal(m.Data(), &ev); err != nil {
			f.t.Fatalf("%v in %s", err, m.Data())
		}
		all = append(all, ev)
	}
	return all
}

// once fails the test unless the stream holds exactly one event of that kind.
func (f *fabric) once(kind hivebeat.Kind, subject string) {
	f.t.Helper()
	n := 0
	for _, ev := range f.stored() {
		if ev.Data.Kind == kind && ev.Subject == subject {
			n++
		}
	}
	if n != 1 {
		f.t.Errorf("the stream holds %d events %s of %s, want one", n, kind, subject)
	}
}

// none fails the test if any event of that kind was received.
func none(t testing.TB, events *rig.Events, kind hivebeat.Kind) {
	t.Helper()
	if of := events.Of(kind, ""); len(of) > 0 {
		t.Errorf("%s was said of %s by %s, and of %d in all; nobody was", kind, of[0].Subject, of[0].Data.Cause, len(of))
	}
}

func (f *fabric) js() jetstream.JetStream {
	f.t.Helper()
	js, err := jetstream.New(f.nc)
	if err != nil {
		f.t.Fatal(err)
	}
	return js
}

// key reports whether a hive has a snapshot in queen_hives.
func (f *fabric) key(hive string) (bool, string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var none hivebeat.Subjects
	kv, err := f.js().KeyValue(ctx, none.Bucket(hivebeat.BucketHives))
	if err != nil {
		return false, err.Error()
	}
	e, err := kv.Get(ctx, hive)
	if err != nil {
		return false, err.Error()
	}
	return true, fmt.Sprintf("revision %d", e.Revision())
}

// connected waits until the test's own connection is back.
func (f *fabric) connected() {
	f.t.Helper()
	rig.Until(f.t, moment, "the test's own connection", func() (bool, string) { return f.nc.IsConnected(), f.nc.Status().String() })
}
