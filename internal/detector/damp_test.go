package detector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

// flap makes the worker late and lets it come back, times over.
func flap(b *bench, f *fake, times int) {
	for range times {
		b.after(1500 * time.Millisecond)
		b.mustFeed(f.Next(b.t))
	}
}

func flapper(b *bench) *fake {
	f := newFake("w")
	f.Every = hivebeat.MillisOf(second)
	b.mustFeed(f.Next(b.t))
	b.told()
	return f
}

func TestFlappingIsDamped(t *testing.T) {
	b := newBench(t)
	f := flapper(b)
	flap(b, f, 3)
	const late, back = "late:alive>late(missed)", "recovered:late>alive"
	if diff := cmp.Diff([]string{late, back, late, back, late, back}, b.told()); diff != "" {
		t.Fatalf("the first six are told (-want +got):\n%s", diff)
	}
	for range 10 {
		b.after(1500 * time.Millisecond)
		if r, _ := b.record("w"); r.Live != hivebeat.Late || r.N != 7 {
			t.Fatalf("%s, n %d: the state is true, and has no number", r.Live, r.N)
		}
		if h, err := b.Receive(b.now, f.Next(t), ""); err != nil || !h.Urgent {
			t.Fatalf("its recovery is urgent for readers of the state: %+v, %v", h, err)
		}
		if r, _ := b.record("w"); r.Live != hivebeat.Alive || r.N != 7 {
			t.Fatalf("%s, n %d: the state is true, and has no number", r.Live, r.N)
		}
	}
	for _, s := range b.TakeSteps() {
		if !s.Damped || s.N != 0 {
			t.Errorf("not damped: %+v", s)
		}
	}
	if got := b.Flaps(); got["w"] != 20 {
		t.Errorf("flaps %v, want 20", got)
	}
	for range 60 { // it is calm
		b.after(time.Second)
		b.mustFeed(f.Next(t))
	}
	r, _ := b.record("w")
	if r.N != 27 || len(r.Tr) != 0 && r.Tr[len(r.Tr)-1].N > 7 || len(b.told()) != 0 {
		t.Errorf("n %d, %+v: want the 20 as one gap", r.N, r.Tr)
	}
	flap(b, f, 1)
	if diff := cmp.Diff([]string{late, back}, b.told()); diff != "" {
		t.Errorf("after a minute they are told again (-want +got):\n%s", diff)
	}
	if r, _ := b.record("w"); r.N != 29 {
		t.Errorf("n %d", r.N)
	}
}

func TestFlappingEndsWithWhatBecameOfIt(t *testing.T) {
	t.Run("another transition", func(t *testing.T) {
		b := newBench(t)
		f := flapper(b)
		flap(b, f, 5)
		b.told()
		f.State = hivebeat.Stopped
		b.mustFeed(f.Next(t))
		if r, _ := b.record("w"); r.Live != hivebeat.Left || r.N != 12 || r.Tr[len(r.Tr)-1].N != 12 {
			t.Errorf("%+v: want left as 12, after a hole of 4", r)
		}
	})
	t.Run("lost", func(t *testing.T) {
		b := newBench(t)
		f := flapper(b)
		flap(b, f, 4)
		b.after(10 * second)
		r, _ := b.record("w")
		if r.Live != hivebeat.Lost || r.Tr[len(r.Tr)-1].Kind != hivebeat.KindLost || r.Tr[len(r.Tr)-1].N != r.N {
			t.Errorf("%+v: a death is always told", r)
		}
	})
	t.Run("another verdict than was told", func(t *testing.T) {
		b := newBench(t)
		f := flapper(b)
		b.after(1500 * time.Millisecond) // late
		b.mustFeed(f.Next(t))
		flap(b, f, 2) // six are told, the last of them recovered
		f.Quiet = hivebeat.MillisOf(9 * time.Minute)
		b.after(1500 * time.Millisecond) // late, damped
		b.told()
		b.w("w").heard = b.now // it is silent for a good reason
		b.deadlines.Remove(b.w("w"))
		b.now = b.now.Add(flapWithin)
		r, _ := b.record("w")
		if last := r.Tr[len(r.Tr)-1]; last.Kind != hivebeat.KindLate || last.From != "alive" || last.To != "late" || last.N != r.N || r.N != 9 {
			t.Errorf("%+v", r)
		}
	})
}

func (b *bench) w(id string) *worker { return b.workers[id] }

func TestScoreHasMarginsAndTimes(t *testing.T) {
	b := newBench(t)
	f := newFake("w")
	b.mustFeed(f.Next(t)).after(100 * second)
	b.mustFeed(f.Next(t))
	if s := b.Score(); s.Margins.N != 1 || s.Margins.Max != 10*second || s.Detect != nil {
		t.Errorf("%+v", s)
	}
	b.detected([]Step{
		{Transition: hivebeat.Transition{Kind: hivebeat.KindLost, Cause: hivebeat.CauseExit}, Detect: 3 * time.Millisecond},
		{Transition: hivebeat.Transition{Kind: hivebeat.KindLost, Cause: hivebeat.CauseMissed}},
	})
	if d := b.Score().Detect; len(d) != 1 || d[hivebeat.CauseExit].N != 1 || d[hivebeat.CauseExit].Buckets()["5"] != 1 {
		t.Errorf("%+v", d)
	}
}
