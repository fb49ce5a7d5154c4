package wire

import (
	"fmt"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat"
)

// sampleBeat has every key that a worker of the worker package sends.
func sampleBeat() hivebeat.Beat {
	return hivebeat.Beat{V: 1, Hive: "gpu-01", Worker: "llama-70b-0", Facts: hivebeat.Facts{
		Inc: 1795435200000000, Every: 30000, State: hivebeat.Busy, PID: 4242, NS: "6f1c2a4e-0d5b-4f5e-9c55-2f5a1c9f7a10/4026531836", Host: "gpu-01",
		Conn: "NCXU3YJ3Y5KX7O2Z2VJ6QWTTWRRNQ7VQ4YAKQPLW6J3JQKQ5QJ2F4X2M/57", RW: 250, Model: "llama-3.3-70b-instruct",
		Endpoint: "http://10.1.2.3:8000/v1", GPUs: []string{"GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8"}, Slots: 16,
		Labels: map[string]string{"zone": "eu", "tier": "prod"}, Seq: 1234, Sent: 1795435212345, VRAM: 72 << 30, Busy: 3, Queue: 1, Done: 99123,
	}}
}

func sampleSnapshot(workers int) hivebeat.Snapshot {
	s := hivebeat.Snapshot{
		V: 1, Hive: "gpu-01", Inc: 1795435200000000, Every: 15000, Seq: 99, Sent: 1795435212345, Warm: true, Pages: 1,
		Labels: map[string]string{"zone": "eu"}, Collect: map[string]string{"host": "ok", "gpu": "ok"},
		Host:  hivebeat.Host{Name: "gpu-01", OS: "linux", Arch: "amd64", CPUs: 64, Load1: 3.25, CPU: 12.5, MemTotal: 512 << 30, MemUsed: 99 << 30, Uptime: 86400},
		Stats: hivebeat.Stats{Beats: 1000, Refused: 1},
	}
	for i := range 8 {
		s.GPUs = append(s.GPUs, hivebeat.GPU{
			UUID: fmt.Sprintf("GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7%02x", i), Index: uint64(i), Name: "NVIDIA H100 80GB HBM3",
			Total: 80 << 30, Used: 70 << 30, Ours: 69 << 30, Util: 88, Temp: 61, Power: 612000, Age: 1200,
		})
	}
	for i := range workers {
		b := sampleBeat()
		b.Host = "" // the snapshot has it once
		s.Workers = append(s.Workers, hivebeat.Record{
			Worker: fmt.Sprintf("llama-70b-%d", i), Live: hivebeat.Alive, N: 1, Facts: b.Facts, Age: 12345, Since: 987654,
			Proc: hivebeat.Proc{RSS: 12 << 30, CPU: 101.5, VRAM: 72 << 30, Up: 987654},
		})
	}
	return s
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func BenchmarkScanBeat(b *testing.B) {
	beat := sampleBeat()
	msg := must(EncodeBeat(&beat))
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Scan(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseBeat(b *testing.B) {
	beat := sampleBeat()
	msg := must(EncodeBeat(&beat))
	var (
		v   BeatView
		dst hivebeat.Beat
	)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if err := ParseBeat(msg, &v); err != nil {
			b.Fatal(err)
		}
		v.Update(&dst)
	}
}

func BenchmarkParseSnapshot100(b *testing.B) {
	snap := sampleSnapshot(100)
	msg := must(EncodeSnapshot(&snap))
	var (
		v   SnapshotView
		dst = make([]hivebeat.Record, 100)
	)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if err := ParseSnapshot(msg, &v); err != nil {
			b.Fatal(err)
		}
		for i := range v.Workers {
			v.Workers[i].Update(&dst[i])
		}
	}
}

// The reference codec, for comparison in the same run.
func BenchmarkReferenceBeat(b *testing.B) {
	beat := sampleBeat()
	msg := must(EncodeBeat(&beat))
	b.ReportAllocs()
	for b.Loop() {
		var dst hivebeat.Beat
		if err := msgpack.Unmarshal(msg, &dst); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReferenceSnapshot100(b *testing.B) {
	snap := sampleSnapshot(100)
	msg := must(EncodeSnapshot(&snap))
	b.ReportAllocs()
	for b.Loop() {
		var dst hivebeat.Snapshot
		if err := msgpack.Unmarshal(msg, &dst); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeBeat(b *testing.B) {
	beat := sampleBeat()
	b.ReportAllocs()
	for b.Loop() {
		must(EncodeBeat(&beat))
	}
}

func BenchmarkEncodeSnapshot100(b *testing.B) {
	snap := sampleSnapshot(100)
	b.ReportAllocs()
	for b.Loop() {
		must(EncodeSnapshot(&snap))
	}
}
