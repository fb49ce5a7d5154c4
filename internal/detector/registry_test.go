package detector

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/sampletest"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// TestRefused feeds messages that must be refused, and checks that the record is
// unchanged and that the next good beat is accepted.
func TestRefused(t *testing.T) {
	good := func(change func(*fake)) func(*testing.T, *fake) []byte {
		return func(t *testing.T, f *fake) []byte {
			g := *f
			g.Seq++
			change(&g)
			return g.Bytes(t)
		}
	}
	raw := func(b []byte) func(*testing.T, *fake) []byte { return func(*testing.T, *fake) []byte { return b } }
	for _, c := range []struct {
		name string
		msg  func(*testing.T, *fake) []byte
		want hivebeat.Reason
	}{
		{"empty", raw(nil), hivebeat.RefusedMalformed},
		{"garbage", raw([]byte("GET / HTTP/1.1\r\n\r\n")), hivebeat.RefusedMalformed},
		{"bomb of a map", raw([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}), hivebeat.RefusedMalformed},
		{"bomb of an array", raw([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}), hivebeat.RefusedMalformed},
		{"deep nest", raw(append(append([]byte{0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 100)...), 0xc0)), hivebeat.RefusedDepth},
		{"truncated", func(t *testing.T, f *fake) []byte { b := good(func(*fake) {})(t, f); return b[:len(b)-3] }, hivebeat.RefusedMalformed},
		{"trailing bytes", func(t *testing.T, f *fake) []byte { return append(good(func(*fake) {})(t, f), 0xc0) }, hivebeat.RefusedMalformed},
		{"oversized", good(func(f *fake) { f.Data = make([]byte, 9000) }), hivebeat.RefusedSize},
		{"no map", raw([]byte{0x90}), hivebeat.RefusedType},
		{"wrong version", good(func(f *fake) { f.V = 2 }), hivebeat.RefusedVersion},
		{"no version", raw([]byte{0x80}), hivebeat.RefusedMissing},
		{"wrong id", good(func(f *fake) { f.Worker = "a.b" }), hivebeat.RefusedID},
		{"wildcard id", good(func(f *fake) { f.Worker = ">" }), hivebeat.RefusedID},
		{"no incarnation", good(func(f *fake) { f.Inc = 0 }), hivebeat.RefusedMissing},
		{"promise too short", good(func(f *fake) { f.Every = 99 }), hivebeat.RefusedLimit},
		{"text too long", good(func(f *fake) { f.Reason = strings.Repeat("x", 257) }), hivebeat.RefusedLimit},
		{"no UTF-8", good(func(f *fake) { f.Model = "\xff" }), hivebeat.RefusedUTF8},
		{"meant for another hive", good(func(f *fake) { f.Hive = "gpu-02" }), hivebeat.RefusedForeign},
		{"replayed", good(func(f *fake) { f.Seq-- }), hivebeat.RefusedStale},
		{"out of order", good(func(f *fake) { f.Seq -= 3 }), hivebeat.RefusedStale},
		{"an older incarnation", good(func(f *fake) { f.Inc--; f.Model = "old" }), hivebeat.RefusedOlder},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			f.Seq = 9
			b.mustFeed(f.Next(t)).told()
			before, _ := b.record("w")
			b.now = b.now.Add(second)
			if err := b.feed(c.msg(t, f)); hivebeat.ReasonOf(err) != c.want || !errors.Is(err, hivebeat.ErrRefused) {
				t.Errorf("refused with %v, want %s", err, c.want)
			}
			if n := b.reasons[c.want]; n != 1 {
				t.Errorf("counted %d times as %s", n, c.want)
			}
			if sum := b.stats.Stale + b.stats.Refused; sum != 1 || (b.stats.Stale == 1) != (c.want == hivebeat.RefusedStale) {
				t.Errorf("stats %+v", b.stats)
			}
			after, _ := b.record("w")
			after.Age, after.Since, after.Tr = before.Age, before.Since, before.Tr
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the record changed:\n%s", diff)
			}
			if len(b.workers) != 1 || len(b.told()) != 0 {
				t.Errorf("%d workers, want 1 and no transition", len(b.workers))
			}
			b.mustFeed(f.Next(t))
		})
	}
}

func TestAfterGoodbyeNothingIsHeard(t *testing.T) {
	b, f := newBench(t), newFake("w")
	f.State = hivebeat.Stopped
	b.mustFeed(f.Next(t))
	f.State = hivebeat.Ready
	if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("a beat after its goodbye: %v", err)
	}
	if r, _ := b.record("w"); r.Live != hivebeat.Left || r.State != hivebeat.Stopped {
		t.Errorf("record %+v", r)
	}
}

func TestPinnedSubjectMustAgree(t *testing.T) {
	b, f := newBench(t), newFake("w")
	var v wire.BeatView
	if err := wire.ParseBeat(f.Next(t), &v); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Hear(b.now, &v, "other"); hivebeat.ReasonOf(err) != hivebeat.RefusedForeign {
		t.Errorf("another worker's subject: %v", err)
	}
	if _, err := b.Hear(b.now, &v, "w"); err != nil {
		t.Errorf("its own subject: %v", err)
	}
}

func TestOneWorkerTooMany(t *testing.T) {
	b := newBench(t)
	for i := range hivebeat.MaxWorkers {
		w := newFake(fmt.Sprint(i))
		b.mustFeed(w.Next(t))
	}
	extra := newFake("extra")
	if err := b.feed(extra.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedFull {
		t.Errorf("one too many: %v", err)
	}
	known := newFake("77")
	known.Seq = 1
	b.mustFeed(known.Next(t))
	if len(b.workers) != hivebeat.MaxWorkers || b.reasons[hivebeat.RefusedFull] != 1 {
		t.Errorf("%d workers, %d refused", len(b.workers), b.reasons[hivebeat.RefusedFull])
	}
}

func TestGapsProvedLoss(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.mustFeed(f.Next(t))
	f.Seq++ // lost
	for range 8 {
		b.mustFeed(f.Next(t))
	}
	if b.stats.WireLost != 1 || b.stats.Beats != 9 {
		t.Errorf("stats %+v, want one lost", b.stats)
	}
}

// A seq that no sender can have reached is refused while its incarnation is alive. In
// no case does it count messages as lost on the wire.
func TestAnImplausibleSeq(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.mustFeed(f.Next(t))
	f.Seq += hivebeat.MaxLeap
	if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedLimit {
		t.Errorf("%d ahead: %v", hivebeat.MaxLeap+1, err)
	}
	f.Seq--
	b.mustFeed(f.Bytes(t))
	if f.Seq = 1; b.feed(f.Next(t)) == nil {
		t.Error("news below the last seq")
	}
	b.after(every * 3 / 2) // late
	f.Seq = hivebeat.MaxInt - 1
	b.mustFeed(f.Next(t))
	f.Inc, f.Seq = f.Inc+1, 0
	b.mustFeed(f.Next(t))
	if b.stats.WireLost != hivebeat.MaxLeap-1 {
		t.Errorf("%d lost on the wire, want %d", b.stats.WireLost, hivebeat.MaxLeap-1)
	}
	if got := add(hivebeat.MaxInt-1, 2); got != hivebeat.MaxInt {
		t.Errorf("%d, want the greatest number that the wire can carry", got)
	}
}

func TestWarm(t *testing.T) {
	r := New(thisHive)
	if r.Warm(t0.Add(WarmAfter)) {
		t.Error("warm before NATS was ever there")
	}
	b := newBench(t)
	if b.Warm(t0.Add(WarmAfter - 1)) {
		t.Error("warm before 45 s")
	}
	if !b.Warm(t0.Add(WarmAfter)) {
		t.Error("not warm after 45 s")
	}

	b = newBench(t)
	for _, id := range []string{"heard", "awaited"} {
		rec := sampletest.Record(id)
		b.Recall(b.now, &rec, 0)
	}
	b.RecalledAll()
	b.mustFeed(newFake("heard").Next(t))
	if b.Warm(b.now) {
		t.Error("warm while one of its last snapshot was not heard")
	}
	b.mustFeed(newFake("stranger").Next(t))
	if b.Warm(b.now) {
		t.Error("warm by a stranger")
	}
	b.mustFeed(newFake("awaited").Next(t))
	if !b.Warm(b.now) {
		t.Error("not warm when all of its last snapshot were heard")
	}

	b = newBench(t)
	b.Credit(10 * second)
	if early, then := b.Warm(t0.Add(WarmAfter)), b.Warm(t0.Add(WarmAfter+10*second)); early || !then {
		t.Errorf("with 10 s without NATS: warm after %s %t, 10 s later %t", WarmAfter, early, then)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	r, msgs, _ := fleet(t, 100)
	beats := make([][]byte, len(msgs))
	views := make([]wire.BeatView, len(msgs))
	for i := range msgs {
		beats[i] = bytes.Clone(msgs[i])
	}
	now, seq := t0, uint64(1<<40)+1000
	if n := testing.AllocsPerRun(100, func() {
		now, seq = now.Add(every), seq+1
		for i := range beats {
			if err := wire.ParseBeat(beats[i], &views[i]); err != nil {
				t.Fatal(err)
			}
			views[i].Seq = seq
			if _, err := r.Hear(now, &views[i], ""); err != nil {
				t.Fatal(err)
			}
		}
		r.Detect(now)
	}); n != 0 {
		t.Errorf("%g allocations in 100 beats", n)
	}
}

// A single forged message silences a live worker, and a conflict shows it.
func TestASilencedWorkerIsAConflict(t *testing.T) {
	for name, forge := range map[string]func(*fake){
		"goodbye":            func(f *fake) { f.State = hivebeat.Stopped },
		"higher incarnation": func(f *fake) { f.Inc, f.Seq = f.Inc+1e12, 0 },
		"higher seq":         func(f *fake) { f.Seq += 1e5 },
		"late goodbye":       func(f *fake) { f.Seq, f.State = f.Seq+1e5, hivebeat.Failed },
		"long promise":       func(f *fake) { f.Seq, f.Every = f.Seq+1e5, hivebeat.MillisOf(hivebeat.MaxEvery) },
	} {
		t.Run(name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			b.mustFeed(f.Next(t)).after(2 * time.Minute)
			b.mustFeed(f.Next(t)).told()
			forged := *f
			forge(&forged)
			b.mustFeed(forged.Next(t)).told()
			f.Seq++ // the goodbye used that seq
			conflicts := 0
			for i := range 3 {
				for range 3 { // a bunch of them counts as one
					_ = b.feed(f.Next(t))
				}
				for _, got := range b.told() {
					if got == "conflict:>" {
						conflicts++
					}
				}
				if want := i / 2; conflicts != want {
					t.Errorf("%d conflicts after %d beats, want %d", conflicts, i+1, want)
				}
				if r, _ := b.record("w"); conflicts > 0 && r.Inc != f.Inc && r.Rival != f.Inc {
					t.Errorf("record %+v, want its rival %d", r, f.Inc)
				}
				b.after(every / 2)
			}
			for range 6 { // the other process is silent
				_ = b.feed(f.Next(t))
				b.after(every * 9 / 10)
			}
			if r, _ := b.record("w"); r.Live != hivebeat.Alive || r.Inc != f.Inc || r.Rival != 0 {
				t.Errorf("record %+v, want it alive", r)
			}
		})
	}
}

// A sender that is refused for a conflict receives a notice at once, and then once a
// minute while it continues.
func TestARefusedSenderIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fake)
		rounds int
		from   time.Duration // earliest first notice
	}{
		"older":             {func(f *fake) { f.Inc -= 1000 }, 20, 0},
		"a seq that leapt":  {func(f *fake) { f.Seq = 4 }, 20, 0},
		"a clone beside it": {func(f *fake) { f.Seq = 0 }, 40, hivebeat.KeepGone},
	} {
		t.Run(name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			for range 5 {
				b.mustFeed(f.Next(t)).after(every)
			}
			if name == "a seq that leapt" {
				f.Seq += 5000
			}
			refused := *f
			c.change(&refused)
			b.mustFeed(f.Next(t))
			want := hivebeat.Notice{ID: "w", Inc: refused.Inc, Believed: f.Inc}
			conflicts, told := 0, []time.Duration{}
			began := b.now
			for range c.rounds {
				if c.from > 0 { // a message sent after the believed one is not a delayed one
					refused.Sent = b.now.UnixMilli()
					f.Sent = refused.Sent + every.Milliseconds()/2
				}
				if b.feed(refused.Next(t)) == nil {
					t.Fatal("it is believed beside one that goes on")
				}
				for _, n := range b.TakeNotices() {
					if n != want {
						t.Errorf("%+v, want %+v", n, want)
					}
					told = append(told, b.now.Sub(began))
				}
				for _, s := range b.TakeSteps() {
					if s.Kind == hivebeat.KindConflict {
						conflicts++
					}
				}
				b.after(every / 2).mustFeed(f.Next(t)).after(every / 2)
				if refused.Inc == f.Inc { // otherwise it catches up
					f.Seq++
				}
			}
			if conflicts != 1 || len(told) < 5 || told[1]-told[0] < time.Minute || told[0] < c.from || told[0] > c.from+3*every {
				t.Errorf("%d conflicts; told at %v", conflicts, told)
			}
			b.after(2 * every)
			if n := b.TakeNotices(); len(n) > 0 {
				t.Errorf("told though it is silent: %+v", n)
			}
		})
	}
}

// Single late messages do not show another sender.
func TestLateBeatsAreNoConflict(t *testing.T) {
	b, f := newBench(t), newFake("w")
	for range 10 {
		f.Seq++ // this beat arrives late
		late := f.Bytes(t)
		b.mustFeed(f.Next(t))
		for range 6 {
			b.after(every * 9 / 10)
			b.mustFeed(f.Next(t))
		}
		if b.feed(late) == nil {
			t.Error("a beat of before is news")
		}
	}
	for _, s := range b.TakeSteps() {
		if s.Kind == hivebeat.KindConflict {
			t.Errorf("a conflict: %s", s.Reason)
		}
	}
}

// An incarnation that no clock can show does not supersede a live one. A clock that is
// hours ahead is accepted. If no other incarnation is heard, a worker is accepted
// whatever its clock says.
func TestAnImplausibleIncarnation(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.mustFeed(f.Next(t))
	at := func(d time.Duration) *fake {
		g := *f
		g.Inc, g.Seq = uint64(b.now.Add(d).UnixMicro()), 0
		return &g
	}
	if err := b.feed(at(8 * 24 * time.Hour).Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedLimit {
		t.Errorf("8 days ahead: %v", err)
	}
	b.mustFeed(at(5 * time.Hour).Next(t))
	b.after(every * 3 / 2) // late
	b.mustFeed(at(8 * 24 * time.Hour).Next(t))
	g := newFake("other")
	g.Inc = hivebeat.MaxInt
	b.mustFeed(g.Next(t))
}
