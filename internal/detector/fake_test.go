package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

const (
	thisHive = "gpu-01"
	second   = time.Second
	every    = 30 * second
)

// t0 is when a registry of a test begins.
var t0 = time.Now()

// fake is a worker as the wire shows it.
type fake struct{ hivebeat.Beat }

func newFake(id string) *fake {
	return &fake{hivebeat.Beat{
		V: hivebeat.Version, Hive: thisHive, Worker: id,
		Facts: hivebeat.Facts{
			Inc: 1_790_000_000_000_000, Every: hivebeat.MillisOf(every), State: hivebeat.Ready,
			PID: 4711, NS: "boot/4026531836", Conn: "NDXS/17", RW: 250,
			Model: "llama-3.3-70b", Endpoint: "http://gpu-01:8000/v1", GPUs: []string{"GPU-5d4a4bd8-9a3b-4e3b-8f53-5c1b8c4e8f53"},
			Slots: 16, Labels: map[string]string{"tier": "gold"},
		},
	}}
}

// Next returns the next beat.
func (f *fake) next(t testing.TB) []byte {
	f.Seq++
	f.Sent = time.Now().UnixMilli()
	return f.bytes(t)
}

func (f *fake) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := wire.EncodeBeat(&f.Beat)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bench is a registry of a test, with its own time.
type bench struct {
	*Registry
	t   testing.TB
	now time.Time
}

func newBench(t testing.TB) *bench {
	b := &bench{Registry: New(thisHive), t: t, now: t0}
	b.Start(t0)
	return b
}

// after lets time pass, and deadlines with it.
func (b *bench) after(d time.Duration) *bench {
	b.now = b.now.Add(d)
	b.Detect(b.now)
	return b
}

// feed gives the registry the bytes of a beat, as the loop does.
func (b *bench) feed(msg []byte) error {
	b.t.Helper()
	_, err := b.Receive(b.now, msg, "")
	if err != nil {
		b.Refuse(err)
	}
	return err
}

// mustFeed is feed for a beat that has to be accepted.
func (b *bench) mustFeed(msg []byte) *bench {
	b.t.Helper()
	if err := b.feed(msg); err != nil {
		b.t.Fatalf("beat refused: %v", err)
	}
	return b
}

// told returns the transitions since the last call, as kind:from>to(cause).
func (b *bench) told() []string {
	list := []string{}
	for _, s := range b.TakeSteps() {
		text := fmt.Sprintf("%s:%s>%s", s.Kind, s.From, s.To)
		if s.Cause != "" {
			text += "(" + string(s.Cause) + ")"
		}
		list = append(list, text)
	}
	return list
}

func (b *bench) record(id string) (hivebeat.Record, bool) {
	for _, r := range b.Records(b.now) {
		if r.Worker == id {
			return r, true
		}
	}
	return hivebeat.Record{}, false
}
