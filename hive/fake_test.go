package hive

import (
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

// t0 is when time begins in a test that makes its own.
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

// next returns the next beat.
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
