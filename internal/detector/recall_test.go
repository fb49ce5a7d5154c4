package detector

import (
	"slices"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// recall gives a registry the record of f in the last kept snapshot, which is 20 s old.
func recall(b *bench, f *fake, change func(*hivebeat.Record)) {
	rec := hivebeat.Record{Worker: f.Worker, Live: hivebeat.Alive, N: 7, Facts: f.Facts, Age: 5_000, Since: 180_000}
	if change != nil {
		change(&rec)
	}
	b.Recall(b.now, &rec, 20*second)
}

func lost(cause hivebeat.Cause, ended uint64) func(*hivebeat.Record) {
	return func(r *hivebeat.Record) { r.Live, r.Cause, r.Ended = hivebeat.Lost, cause, ended }
}

func tells(t *testing.T, b *bench, want ...string) {
	t.Helper()
	if got := b.told(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// A worker that was lost or left when its hive restarted stays so for the rest of its
// time, without a transition.
func TestTheGoneAreRecalled(t *testing.T) {
	b, f, left := newBench(t), newFake("w"), newFake("left")
	f.Seq, f.Boot, left.Seq, left.State = 17, 1000, 4, hivebeat.Stopped
	recall(b, f, lost(hivebeat.CauseExit, 5000))
	recall(b, left, func(r *hivebeat.Record) { r.Live, r.Cause = hivebeat.Left, hivebeat.CauseGoodbye })
	recall(b, newFake("long ago"), func(r *hivebeat.Record) { r.Live, r.Since = hivebeat.Lost, 580_001 })
	r, ok := b.record("w")
	if !ok || r.Live != hivebeat.Lost || r.Cause != hivebeat.CauseExit || r.Since != 200_000 || r.Age != 25_000 || r.N != 0 || r.Model != f.Model || r.Ended != 5000 {
		t.Errorf("recalled as %+v, %t", r, ok)
	}
	if r, ok = b.record("left"); !ok || r.Live != hivebeat.Left || r.Cause != hivebeat.CauseGoodbye || r.Since != 200_000 {
		t.Errorf("recalled as %+v, %t", r, ok)
	}
	if b.Len() != 2 {
		t.Errorf("%d workers, want 2", b.Len())
	}
	if err := b.feed(left.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("it comes back after its goodbye: %v, want stale", err)
	}
	f.Boot = 4999
	if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("what was sent before its process ended brings it back: %v, want stale", err)
	}
	b.after(hivebeat.KeepGone - 200*second - time.Millisecond)
	if b.Len() != 2 {
		t.Errorf("%d workers before their time was over", b.Len())
	}
	if b.after(time.Millisecond).Len() != 0 {
		t.Errorf("%d workers after it", b.Len())
	}
	tells(t, b)
	f.Boot = 5001
	b.mustFeed(f.Next(t))
	tells(t, b, "recovered:lost>alive")
}

func TestTheLostComeBackAfterTheirHiveBeganAgain(t *testing.T) {
	t.Run("recovered", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		recall(b, f, lost(hivebeat.CauseMissed, 0))
		b.mustFeed(f.Next(t))
		if s := b.TakeSteps(); len(s) != 1 || s[0].Kind != hivebeat.KindRecovered || s[0].N != 1 || s[0].Margin != 200*second {
			t.Errorf("told %+v", s)
		}
	})
	t.Run("an old beat", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		recall(b, f, lost(hivebeat.CauseMissed, 0))
		f.Seq = 15
		if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Errorf("%v, want stale", err)
		}
	})
	t.Run("restarted", func(t *testing.T) {
		b, f := newBench(t), newFake("w")
		f.Seq = 17
		recall(b, f, lost(hivebeat.CauseExit, 0))
		f.Seq, f.Inc = 0, f.Inc+1
		b.mustFeed(f.Next(t))
		tells(t, b, "restarted:lost>alive")
	})
}

// A worker that was present continues and does not join again.
func TestThoseThatWereThereAreRecalled(t *testing.T) {
	joined := func(r *hivebeat.Record) {
		r.Tr = []hivebeat.Transition{{N: 7, Kind: hivebeat.KindJoined, Inc: r.Inc}}
	}
	late := func(r *hivebeat.Record) { r.Live, r.Cause = hivebeat.Late, hivebeat.CauseMissed }
	restart := func(f *fake) { f.Inc++ }
	stop := func(f *fake) { f.State = hivebeat.Stopped }
	for _, c := range []struct {
		name   string
		was    func(*hivebeat.Record)
		then   func(*fake)
		after  time.Duration
		want   []string
		since  hivebeat.Millis
		number uint64
	}{
		{"goes on", nil, nil, second, nil, 201_000, 0},
		{"was late", late, nil, second, []string{"recovered:late>alive"}, 0, 1},
		{"is another process", nil, restart, second, []string{"restarted:alive>alive"}, 0, 1},
		{"says goodbye", nil, stop, second, []string{"left:alive>left(goodbye)"}, 0, 1},
		{"may not have been told", joined, nil, second, []string{"joined:>alive"}, 0, 1},
		{"is heard when others may have given it up", nil, nil, WarmAfter, []string{"joined:>alive"}, 0, 1},
		{"is another process then", nil, restart, WarmAfter, []string{"joined:>alive"}, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			f.Seq = 17
			recall(b, f, c.was)
			b.RecalledAll()
			if _, ok := b.record("w"); ok || b.Warm(b.now) {
				t.Errorf("listed %t, warm %t, before it was heard", ok, b.Warm(b.now))
			}
			b.after(c.after)
			b.Warm(b.now) // as a snapshot does
			if c.then != nil {
				c.then(f)
			}
			b.mustFeed(f.Next(t))
			tells(t, b, c.want...)
			if r, _ := b.record("w"); r.Since != c.since || r.N != c.number || !b.Warm(b.now) {
				t.Errorf("warm %t, and %+v", b.Warm(b.now), r)
			}
		})
	}
}

// A restarted hive knows how often a worker restarted, and whether it loops.
func TestRestartsAreRecalled(t *testing.T) {
	b := newBench(t)
	b.TellLoops()
	f, gone := newFake("w"), newFake("gone")
	f.Seq, gone.Seq = 17, 17
	loops := func(r *hivebeat.Record) { r.Restarts, r.Looping = 4, true }
	recall(b, f, func(r *hivebeat.Record) { r.Restarts = 4 })
	recall(b, gone, func(r *hivebeat.Record) {
		lost(hivebeat.CauseExit, 0)(r)
		loops(r)
	})
	f.Inc++
	b.mustFeed(f.Next(t))
	tells(t, b, "restarted:alive>alive")
	for id, want := range map[string]uint64{"w": 5, "gone": 4} {
		if r, _ := b.record(id); r.Restarts != want || r.Looping != (id == "gone") {
			t.Errorf("%s: %d restarts, looping %t; want %d", id, r.Restarts, r.Looping, want)
		}
	}
	b.after(loopQuiet - 200*second)                                                                                                                      // since its process ended
	if got := b.told(); !slices.Equal(got, []string{"looping:looping>", "lost:alive>lost(exit)", "late:alive>late(missed)", "lost:late>lost(missed)"}) { // the last two are from w
		t.Errorf("told %q", got)
	}
	if r, _ := b.record("gone"); r.Live != hivebeat.Lost || r.Looping {
		t.Errorf("its end was told just now, and it is %+v", r)
	}
}

// An incarnation that was over when its hive restarted stays refused while the
// incarnation that superseded it may still be heard.
func TestAnIncarnationBeforeTheRecalledOne(t *testing.T) {
	b, f, old := newBench(t), newFake("w"), newFake("w")
	f.Seq, f.Inc = 17, old.Inc+5
	recall(b, f, nil)
	if err := b.feed(old.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedOlder {
		t.Errorf("heard before the one that was there: %v", err)
	}
	b.mustFeed(f.Next(t))
	if err := b.feed(old.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedOlder {
		t.Errorf("heard after it: %v", err)
	}
	tells(t, b)

	b = newBench(t)
	recall(b, f, nil)
	refused := old.Next(t)
	if err := b.feed(refused); hivebeat.ReasonOf(err) != hivebeat.RefusedOlder {
		t.Errorf("heard before the one that was there: %v", err)
	}
	b.after(WarmAfter)
	b.Warm(b.now)
	if err := b.feed(refused); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("a replay of what was refused: %v", err)
	}
	b.mustFeed(old.Next(t)) // a clock was set back
}
