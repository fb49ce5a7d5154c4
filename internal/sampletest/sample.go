// Package sampletest makes ordinary beats and snapshots for tests, so that a test names
// only the values that it is about.
package sampletest

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Epoch is the start time of tests of the pure cores. It has no monotonic reading.
var Epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// At returns the time that lies the given number of seconds after Epoch.
func At(seconds float64) time.Time {
	return Epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// Snapshot returns a complete, warm snapshot of a hive in zone eu.
func Snapshot(hive string, inc, seq uint64, workers ...hivebeat.Record) *hivebeat.Snapshot {
	return &hivebeat.Snapshot{
		V: 1, Hive: hive, Inc: inc, Seq: seq, Every: 15000, Warm: true, Pages: 1,
		Labels: map[string]string{"zone": "eu"}, Workers: append([]hivebeat.Record{}, workers...),
	}
}

// Record returns the record of a worker whose hive has numbered one transition, joined,
// long ago.
func Record(id string) hivebeat.Record {
	return hivebeat.Record{
		Worker: id, Live: hivebeat.Alive, N: 1, Age: 5000, Since: 100_000,
		Facts: hivebeat.Facts{Inc: 7, Every: 30000, Seq: 10, State: hivebeat.Ready, Model: "llama"},
	}
}

// Encode returns the bytes of s.
func Encode(t testing.TB, s *hivebeat.Snapshot) []byte {
	t.Helper()
	b, err := wire.EncodeSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Machine returns the snapshot of a machine with eight GPUs and many workers, with
// every key filled.
func Machine(hive string, workers int) *hivebeat.Snapshot {
	s := &hivebeat.Snapshot{
		V: 1, Hive: hive, Inc: 1795435200000000, Every: 15000, Seq: 99, Sent: 1795435212345, Warm: true, Pages: 1,
		Labels: map[string]string{"zone": "eu"}, Collect: map[string]string{"host": "ok", "gpu": "ok"},
		Host:  hivebeat.Host{Name: hive, OS: "linux", Arch: "amd64", CPUs: 64, Load1: 3.25, CPU: 12.5, MemTotal: 512 << 30, MemUsed: 99 << 30, Uptime: 86400},
		Stats: hivebeat.Stats{Beats: 1000, Refused: 1},
	}
	for i := range 8 {
		s.GPUs = append(s.GPUs, hivebeat.GPU{
			UUID: fmt.Sprintf("GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7%02x", i), Index: uint64(i), Name: "NVIDIA H100 80GB HBM3",
			Total: 80 << 30, Used: 70 << 30, Ours: 69 << 30, Util: 88, Temp: 61, Power: 612000, Age: 1200,
		})
	}
	for i := range workers {
		s.Workers = append(s.Workers, hivebeat.Record{
			Worker: fmt.Sprintf("llama-70b-%04d", i), Live: hivebeat.Alive, N: 1, Age: 12345, Since: 987654,
			Facts: hivebeat.Facts{
				Inc: 1795435200000000, Every: 30000, State: hivebeat.Busy, PID: 4242, NS: "6f1c2a4e-0d5b-4f5e-9c55-2f5a1c9f7a10/4026531836",
				Conn: "NCXU3YJ3Y5KX7O2Z2VJ6QWTTWRRNQ7VQ4YAKQPLW6J3JQKQ5QJ2F4X2M/57", RW: 250, Model: "llama-3.3-70b-instruct",
				Endpoint: "http://10.1.2.3:8000/v1", GPUs: []string{"GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8"}, Slots: 16,
				Labels: map[string]string{"zone": "eu", "tier": "prod"}, Seq: 1234, Sent: 1795435212345, VRAM: 72 << 30, Busy: 3, Queue: 1, Done: 99123,
			},
			Proc: hivebeat.Proc{RSS: 12 << 30, CPU: 101.5, VRAM: 72 << 30, Up: 987654},
		})
	}
	return s
}

// Hive and Every are the hive and the promise of each Worker.
const (
	Hive  = "gpu-01"
	Every = 30 * time.Second
)

// Worker is a worker as seen on the wire.
type Worker struct{ hivebeat.Beat }

// NewWorker returns a worker that has not sent a beat yet.
func NewWorker(id string) *Worker {
	return &Worker{hivebeat.Beat{
		V: hivebeat.Version, Hive: Hive, Worker: id,
		Facts: hivebeat.Facts{
			Inc: 1_790_000_000_000_000, Every: hivebeat.MillisOf(Every), State: hivebeat.Ready,
			PID: 4711, NS: "boot/4026531836", Host: Hive, Conn: "NDXS/17", RW: 250,
			Model: "llama-3.3-70b", Endpoint: "http://gpu-01:8000/v1", GPUs: []string{"GPU-5d4a4bd8-9a3b-4e3b-8f53-5c1b8c4e8f53"},
			Slots: 16, Labels: map[string]string{"tier": "gold"},
		},
	}}
}

// Next returns the next beat. Its Sent does not change: most tests have their own time,
// and the real clock would make the beats look delayed.
func (w *Worker) Next(t testing.TB) []byte {
	t.Helper()
	w.Seq++
	return w.Bytes(t)
}

// Bytes returns the current beat, with the fields as they are now.
func (w *Worker) Bytes(t testing.TB) []byte {
	t.Helper()
	b, err := wire.EncodeBeat(&w.Beat)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
