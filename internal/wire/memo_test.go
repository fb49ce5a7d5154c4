package wire

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/beatfabric/hivebeat"
)

// next returns s as its hive would send it a few seconds later.
func next(s hivebeat.Snapshot, rnd *rand.Rand) hivebeat.Snapshot {
	s.Seq++
	s.Workers = slices.Clone(s.Workers)
	for i := range s.Workers {
		w := &s.Workers[i]
		w.Seq, w.Age, w.Since, w.Busy = w.Seq+1, hivebeat.Millis(rnd.IntN(30000)), w.Since+15000, uint64(rnd.IntN(9))
		w.Proc.CPU = float64(rnd.IntN(400)) / 4
		if i%2 == 0 {
			w.Restarts, w.Looping = 1+uint64(rnd.IntN(30)), i%4 == 0
		}
		if rnd.IntN(20) == 0 {
			w.State = hivebeat.Draining
		}
	}
	return s
}

func TestMemoRecognises(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	snap := sampleSnapshot(50)
	var (
		memo SnapshotMemo
		view SnapshotView
		rows = make([]hivebeat.Record, 50)
	)
	for range 20 {
		msg := must(EncodeSnapshot(&snap))
		if err := memo.Parse(msg, &view); err != nil {
			t.Fatal(err)
		}
		for i := range view.Workers {
			view.Workers[i].Update(&rows[i])
		}
		memo.Keep(msg, &view)
		if d := cmp.Diff(snap.Workers, rows, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("sent - taken over +:\n%s", d)
		}
		snap = next(snap, rnd)
	}
	same := 0
	if err := memo.Parse(must(EncodeSnapshot(&snap)), &view); err != nil {
		t.Fatal(err)
	}
	for _, w := range view.Workers {
		if w.Same {
			same++
		}
	}
	if same < 40 || same == 50 {
		t.Errorf("%d of 50 rows recognised, of which some 47 repeat their stable part", same)
	}
}

func TestBeatMemo(t *testing.T) {
	beat := sampleBeat()
	msg := must(EncodeBeat(&beat))
	if got := PeekWorker(msg); string(got) != beat.Worker {
		t.Fatalf("peeked %q, want %q", got, beat.Worker)
	}
	if got := PeekHive(msg); string(got) != beat.Hive {
		t.Fatalf("peeked %q, want %q", got, beat.Hive)
	}
	for n := range msg[:40] { // cut anywhere: no id, or the whole id
		if w, h := PeekWorker(msg[:n]), PeekHive(msg[:n]); w != nil && string(w) != beat.Worker || h != nil && string(h) != beat.Hive {
			t.Fatalf("of %d bytes peeked %q and %q", n, w, h)
		}
	}
	var (
		memo BeatMemo
		v    Volatile
	)
	if memo.Parse(msg, &v) {
		t.Fatal("an empty memo recognised a beat")
	}
	memo.Keep(msg)
	beat.Seq, beat.Busy, beat.Queue = beat.Seq+1, 16, 70000
	if !memo.Parse(must(EncodeBeat(&beat)), &v) {
		t.Fatal("the next beat is not recognised")
	}
	if v.Seq != beat.Seq || v.Busy != 16 || v.Queue != 70000 || v.Done != beat.Done || v.Sent != beat.Sent {
		t.Errorf("read %+v of %+v", v, beat)
	}
	beat.State = hivebeat.Draining
	if memo.Parse(must(EncodeBeat(&beat)), &v) {
		t.Error("a beat with another state passed as the same")
	}
}

// FuzzMemo parses two messages one after the other, and checks that the second means
// the same as on its own.
func FuzzMemo(f *testing.F) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 3} {
		a := sampleSnapshot(n)
		b := next(a, rnd)
		f.Add(must(EncodeSnapshot(&a)), must(EncodeSnapshot(&b)))
	}
	one := sampleBeat()
	two := one
	two.Seq++
	f.Add(must(EncodeBeat(&one)), must(EncodeBeat(&two)))
	all := seeds(f)
	for i := range all[1:] {
		f.Add(all[i], all[i+1])
		f.Add(all[0], all[i])
		f.Add(all[1], all[i])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		fuzzSnapshotMemo(t, bytes.Clone(a), bytes.Clone(b))
		fuzzBeatMemo(t, bytes.Clone(a), bytes.Clone(b))
	})
}

func fuzzSnapshotMemo(t *testing.T, a, b []byte) {
	var (
		memo SnapshotMemo
		view SnapshotView
	)
	if memo.Parse(a, &view) != nil {
		return
	}
	var got hivebeat.Snapshot
	for i := range view.Workers {
		got.Workers = append(got.Workers, hivebeat.Record{})
		view.Workers[i].Update(&got.Workers[i])
	}
	memo.Keep(a, &view)

	err := memo.Parse(b, &view)
	want, wantErr := DecodeSnapshot(b)
	if hivebeat.ReasonOf(err) != hivebeat.ReasonOf(wantErr) {
		t.Fatalf("with a memo: %v, without: %v\n%x\n%x", err, wantErr, a, b)
	}
	if err != nil {
		return
	}
	for len(got.Workers) < len(view.Workers) {
		got.Workers = append(got.Workers, hivebeat.Record{})
	}
	got.Workers = got.Workers[:len(view.Workers)]
	for i := range view.Workers {
		view.Workers[i].Update(&got.Workers[i])
	}
	view.UpdateHead(&got)
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("without a memo - with one +:\n%s\n%x\n%x", d, a, b)
	}
}

func fuzzBeatMemo(t *testing.T, a, b []byte) {
	var (
		memo BeatMemo
		view BeatView
		vol  Volatile
		got  hivebeat.Beat
	)
	if ParseBeat(a, &view) != nil {
		return
	}
	view.Update(&got)
	memo.Keep(a)
	if id := PeekWorker(a); id != nil && string(id) != got.Worker {
		t.Fatalf("peeked %q in a beat of %q", id, got.Worker)
	}
	if id := PeekHive(a); id != nil && string(id) != got.Hive {
		t.Fatalf("peeked hive %q in a beat of %q", id, got.Hive)
	}
	if !memo.Parse(b, &vol) {
		return
	}
	vol.Update(&got.Facts)
	want, err := DecodeBeat(b)
	if err != nil {
		t.Fatalf("recognised, but refused without a memo: %v\n%x\n%x", err, a, b)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("without a memo - with one +:\n%s\n%x\n%x", d, a, b)
	}
}

func BenchmarkMemoBeat(b *testing.B) {
	beat := sampleBeat()
	var (
		memo BeatMemo
		v    Volatile
	)
	memo.Keep(must(EncodeBeat(&beat)))
	beat.Seq++
	msg := must(EncodeBeat(&beat))
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if w := PeekWorker(msg); w == nil || !memo.Parse(msg, &v) {
			b.Fatalf("a beat of %q is not recognised: %q", w, msg)
		}
	}
}

func BenchmarkMemoSnapshot100(b *testing.B) {
	snap := sampleSnapshot(100)
	var (
		memo SnapshotMemo
		v    SnapshotView
		rows = make([]hivebeat.Record, 100)
	)
	msg := must(EncodeSnapshot(&snap))
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if err := memo.Parse(msg, &v); err != nil {
			b.Fatal(err)
		}
		for i := range v.Workers {
			v.Workers[i].Update(&rows[i])
		}
		memo.Keep(msg, &v)
	}
}
