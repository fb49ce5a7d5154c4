package detector

import (
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

func TestSeeds(t *testing.T) {
	seed := func(b *bench, f *fake, live hivebeat.Live, age, until time.Duration) {
		b.Seed(b.now, Seed{Worker: f.Worker, Live: live, Facts: f.Facts, Heard: b.now.Add(-age), Until: b.now.Add(until)})
	}
	t.Run("answers", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		seed(b, f, hivebeat.Alive, 80*second, 5*second)
		if r, ok := b.Record(b.now, "w"); !ok || r.Live != hivebeat.Late || r.Cause != hivebeat.CauseHive || r.Age != 80_000 {
			t.Errorf("before it is heard: %+v", r)
		}
		b.after(9 * second)
		b.mustFeed(f.Next(t))
		if r, _ := b.Record(b.now, "w"); r.Live != hivebeat.Alive || r.Seq != 18 || r.Age != 0 {
			t.Errorf("heard: %+v", r)
		}
		if b.stats.FalseDead != 0 || b.stats.CutOff != 0 {
			t.Errorf("it was never lost: %+v", b.stats)
		}
	})
	t.Run("does not answer", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		seed(b, f, hivebeat.Alive, 80*second, 5*second)
		b.after(10*second - time.Nanosecond)
		if r, _ := b.Record(b.now, "w"); r.Live != hivebeat.Late {
			t.Errorf("%s before its own deadline", r.Live)
		}
		b.after(time.Nanosecond)
		if r, _ := b.Record(b.now, "w"); r.Live != hivebeat.Lost || r.Cause != hivebeat.CauseHive {
			t.Errorf("%s (%s) at its own deadline, want lost, cause hive", r.Live, r.Cause)
		}
		b.TakeSteps()
		f.Seq += 3 // it advanced meanwhile
		b.after(7 * second)
		b.mustFeed(f.Next(t))
		if s := b.TakeSteps(); len(s) != 1 || !s[0].CutOff || s[0].Margin != 7*second || b.stats.CutOff != 1 || b.stats.FalseDead != 0 {
			t.Errorf("back with its seq gone on: %+v, %+v", s, b.stats)
		}
	})
	t.Run("is asked first", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		seed(b, f, hivebeat.Late, 500*second, 5*second)
		b.after(5*second - time.Nanosecond)
		if r, _ := b.Record(b.now, "w"); r.Live != hivebeat.Late {
			t.Errorf("%s before anybody asked it", r.Live)
		}
		b.after(time.Nanosecond)
		if r, _ := b.Record(b.now, "w"); r.Live != hivebeat.Lost {
			t.Errorf("%s, want lost", r.Live)
		}
	})
	t.Run("was heard elsewhere", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		seed(b, f, hivebeat.Alive, 80*second, 5*second)
		for _, c := range []struct {
			id   string
			seq  uint64
			want bool
		}{{"w", 17, false}, {"w", 20, true}, {"x", 20, false}} { // only what is higher, of a known worker
			if got := b.Elsewhere(b.now, c.id, hivebeat.Facts{Inc: f.Inc, Seq: c.seq}); got != c.want {
				t.Errorf("%s at seq %d is news: %t, want %t", c.id, c.seq, got, c.want)
			}
		}
		if r, _ := b.Record(b.now, "w"); r.Live != hivebeat.Alive || r.Seq != 20 || r.Model != f.Model {
			t.Errorf("%+v", r)
		}
		b.Drop(b.now, "w")
		if _, ok := b.Record(b.now, "w"); ok {
			t.Error("dropped, and still there")
		}
	})
	t.Run("took another one's place", func(t *testing.T) {
		b, f, gone := newBench(t), newFake("w"), newFake("w")
		f.Seq, gone.Inc = 17, f.Inc+5
		b.Seed(b.now, Seed{Worker: "w", Live: hivebeat.Alive, Facts: f.Facts, Heard: b.now, Prior: gone.Inc, PriorSeq: 30})
		gone.Seq = 28
		if err := b.feed(gone.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Errorf("a late beat of the one before: %v", err)
		}
		if err := b.feed(f.Next(t)); err != nil {
			t.Error(err)
		}
		if r, _ := b.Record(b.now, "w"); r.Live != hivebeat.Alive || r.Inc != f.Inc {
			t.Errorf("%+v", r)
		}
	})
	t.Run("left for good", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		seed(b, f, hivebeat.Left, 80*second, 5*second)
		if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Errorf("a beat after its goodbye: %v", err)
		}
	})
}

func TestHistogram(t *testing.T) {
	var h Histogram
	if got := h.Buckets(); got != nil {
		t.Errorf("an empty one has buckets: %v", got)
	}
	for _, d := range []time.Duration{-second, time.Millisecond, 2 * time.Millisecond, 50 * time.Millisecond, time.Hour} {
		h.Add(d)
	}
	b := h.Buckets()
	if h.N != 5 || h.Max != time.Hour || len(b) != 4 || b["1"] != 2 || b["5"] != 1 || b["50"] != 1 || b["more"] != 1 {
		t.Errorf("%+v: %v", h, b)
	}
}
