package worker

import (
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func BenchmarkBeat(b *testing.B) {
	w := offline(b, Config{
		Model: "llama-3-8b", Endpoint: "http://10.0.0.7:8000", GPUs: []string{"GPU-5f4e8f1c-2f6b-4a58-9f0e-0a6f3a1f1b11"},
		Slots: 8, Labels: map[string]string{"tier": "gold", "team": "search"},
	})
	b.ReportAllocs()
	for b.Loop() {
		beat, _ := w.snapshot(bus.WhyInterval)
		payload, err := bus.Encode(&beat)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(payload)))
	}
}

// BenchmarkHost measures the cost of calls in the program's own goroutine, with a
// running worker.
func BenchmarkHost(b *testing.B) {
	srv := bustest.Server(b, bustest.NoJetStream())
	w := run(b, bustest.Conn(b, srv), Config{Labels: map[string]string{"tier": "gold", "team": "search"}, GPUs: []string{"GPU-1"}})
	states := [2]hivebeat.State{hivebeat.Ready, hivebeat.Degraded}
	b.Run("SetState/same", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = w.SetState(hivebeat.Ready, "")
		}
	})
	b.Run("SetState/other", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_ = w.SetState(states[i&1], "")
		}
	})
	b.Run("Update", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = w.Update(func(f *Facts) { f.Done++ })
		}
	})
	b.Run("Touch", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.Touch()
		}
	})
}
