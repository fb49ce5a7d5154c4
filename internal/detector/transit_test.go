package detector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
)

func TestTransitions(t *testing.T) {
	beat := func(state hivebeat.State) func(*bench, *fake) {
		return func(b *bench, f *fake) {
			f.State = state
			b.mustFeed(f.Next(b.t))
		}
	}
	pass := func(d time.Duration) func(*bench, *fake) { return func(b *bench, _ *fake) { b.after(d) } }
	restart := func(by int64) func(*bench, *fake) {
		return func(b *bench, f *fake) {
			f.Inc, f.Seq, f.State = uint64(int64(f.Inc)+by), 0, hivebeat.Starting
			b.mustFeed(f.Next(b.t))
		}
	}
	type do = func(*bench, *fake)
	for _, c := range []struct {
		name string
		do   []do
		want []string
		live hivebeat.Live
	}{
		{"a first beat", []do{beat(hivebeat.Starting)}, []string{"joined:>alive"}, hivebeat.Alive},
		{
			"a life",
			[]do{beat(hivebeat.Starting), beat(hivebeat.Loading), beat(hivebeat.Ready), beat(hivebeat.Draining), beat(hivebeat.Stopped)},
			[]string{"joined:>alive", "state:starting>loading", "state:loading>ready", "state:ready>draining", "left:alive>left(goodbye)"},
			hivebeat.Left,
		},
		{
			"ready and busy are one",
			[]do{beat(hivebeat.Ready), beat(hivebeat.Busy), beat(hivebeat.Ready), beat("strange"), beat(hivebeat.Busy)},
			[]string{"joined:>alive", "state:ready>strange", "state:strange>busy"},
			hivebeat.Alive,
		},
		{"not late at 45 s", []do{beat(hivebeat.Ready), pass(45*second - time.Nanosecond)}, []string{"joined:>alive"}, hivebeat.Alive},
		{"late at 45 s", []do{beat(hivebeat.Ready), pass(45 * second)}, []string{"joined:>alive", "late:alive>late(missed)"}, hivebeat.Late},
		{
			"not lost before 90 s",
			[]do{beat(hivebeat.Ready), pass(45 * second), pass(45*second - time.Nanosecond)},
			[]string{"joined:>alive", "late:alive>late(missed)"},
			hivebeat.Late,
		},
		{
			"lost at 90 s",
			[]do{beat(hivebeat.Ready), pass(50 * second), pass(40 * second)},
			[]string{"joined:>alive", "late:alive>late(missed)", "lost:late>lost(missed)"},
			hivebeat.Lost,
		},
		{
			"late and lost at once, where nobody looked",
			[]do{beat(hivebeat.Ready), pass(90 * second)},
			[]string{"joined:>alive", "late:alive>late(missed)", "lost:late>lost(missed)"},
			hivebeat.Lost,
		},
		{
			"back from late",
			[]do{beat(hivebeat.Ready), pass(50 * second), beat(hivebeat.Ready), pass(44 * second)},
			[]string{"joined:>alive", "late:alive>late(missed)", "recovered:late>alive"},
			hivebeat.Alive,
		},
		{
			"back from lost, in another state",
			[]do{beat(hivebeat.Ready), pass(90 * second), beat(hivebeat.Degraded)},
			[]string{"joined:>alive", "late:alive>late(missed)", "lost:late>lost(missed)", "recovered:lost>alive", "state:ready>degraded"},
			hivebeat.Alive,
		},
		{
			"a goodbye from lost",
			[]do{beat(hivebeat.Ready), pass(90 * second), beat(hivebeat.Failed)},
			[]string{"joined:>alive", "late:alive>late(missed)", "lost:late>lost(missed)", "left:lost>left(goodbye)"},
			hivebeat.Left,
		},
		{"the first word is goodbye", []do{beat(hivebeat.Stopped)}, []string{"joined:>alive", "left:alive>left(goodbye)"}, hivebeat.Left},
		{"a restart", []do{beat(hivebeat.Ready), restart(1)}, []string{"joined:>alive", "restarted:alive>alive"}, hivebeat.Alive},
		{
			"a restart after goodbye",
			[]do{beat(hivebeat.Stopped), restart(1)},
			[]string{"joined:>alive", "left:alive>left(goodbye)", "restarted:left>alive"},
			hivebeat.Alive,
		},
		{
			"a restart with the clock set back, once it is late",
			[]do{beat(hivebeat.Ready), pass(45 * second), restart(-1)},
			[]string{"joined:>alive", "late:alive>late(missed)", "restarted:late>alive"},
			hivebeat.Alive,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			for _, do := range c.do {
				do(b, f)
			}
			if diff := cmp.Diff(c.want, b.told()); diff != "" {
				t.Errorf("transitions (-want +got):\n%s", diff)
			}
			r, ok := b.record("w")
			if !ok || r.Live != c.live || r.N != uint64(len(c.want)) || r.Inc != f.Inc {
				t.Errorf("record %+v, want live %s, n %d, inc %d", r, c.live, len(c.want), f.Inc)
			}
		})
	}
}

func TestQuietIsNoSilence(t *testing.T) {
	b, f := newBench(t), newFake("w")
	f.State, f.Quiet = hivebeat.Loading, hivebeat.MillisOf(5*time.Minute)
	b.mustFeed(f.Next(t)).after(5*time.Minute + 14*second)
	if r, _ := b.record("w"); r.Live != hivebeat.Alive || r.Missed != 1 {
		t.Errorf("%s and %d missed, 14 s after its quiet", r.Live, r.Missed)
	}
	b.after(2 * second)
	if r, _ := b.record("w"); r.Live != hivebeat.Late {
		t.Errorf("%s, want late: half an interval after its quiet", r.Live)
	}
	f.Quiet, f.State = 0, hivebeat.Ready
	b.mustFeed(f.Next(t)).after(45 * second)
	if r, _ := b.record("w"); r.Live != hivebeat.Late {
		t.Errorf("%s, want late: the beat without quiet ends it", r.Live)
	}
}

func TestScore(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.mustFeed(f.Next(t)).after(100 * second).told()
	b.mustFeed(f.Next(t)) // no beat in between: the verdict was false
	if s := b.TakeSteps(); len(s) != 1 || s[0].Margin != 10*second || s[0].CutOff {
		t.Errorf("steps %+v, want one with a margin of 10 s", s)
	}
	b.after(100 * second).told()
	f.Seq += 3 // beats that were never heard: the network lost them
	b.mustFeed(f.Next(t))
	if s := b.TakeSteps(); len(s) != 1 || !s[0].CutOff {
		t.Errorf("steps %+v, want one that was cut off", s)
	}
	if b.stats.FalseDead != 1 || b.stats.CutOff != 1 {
		t.Errorf("stats %+v, want one falsely dead and one cut off", b.stats)
	}
}

// A broken link holds the beats of a worker and then delivers them all at once: the
// first one was sent when the worker was alive. The first beat of a worker that was
// stopped was not.
func TestScoreOfBeatsThatWereHeld(t *testing.T) {
	for what, held := range map[string]bool{"held": true, "stopped": false} {
		b, f := newBench(t), newFake("w")
		clock := int64(1_795_435_200_000)
		next := func(later int64) {
			clock += later
			f.Seq++
			f.Sent = clock
			b.mustFeed(f.Bytes(t))
		}
		next(0)
		b.after(125 * second).told()
		if held {
			for range 4 { // it kept beating
				next(30_000)
			}
		} else {
			next(125_000)
			next(1)
		}
		s := b.TakeSteps()
		if len(s) != 1 || s[0].CutOff != held || s[0].Margin != 35*second {
			t.Errorf("%s: steps %+v", what, s)
		}
		if n := b.stats; (n.CutOff == 1) != held || n.CutOff+n.FalseDead != 1 {
			t.Errorf("%s: stats %+v", what, n)
		}
	}
}

func TestGoneRecordsAreForgottenAfterTenMinutes(t *testing.T) {
	for _, last := range []hivebeat.State{hivebeat.Ready, hivebeat.Stopped} {
		b, f := newBench(t), newFake("w")
		f.State = last
		b.mustFeed(f.Next(t))
		if last == hivebeat.Ready {
			b.after(90 * second)
		}
		b.after(hivebeat.KeepGone - time.Nanosecond)
		gone, ok := b.record("w")
		if !ok {
			t.Fatalf("%s: gone before 10 minutes", last)
		}
		b.told()
		b.after(time.Nanosecond)
		if _, ok := b.record("w"); ok || len(b.sorted) != 0 || b.deadlines.Len() != 0 {
			t.Errorf("%s: still there after 10 minutes", last)
		}
		if told := b.told(); len(told) != 0 {
			t.Errorf("%s: the record went with %q", last, told)
		}
		// It may come back, and used numbers are not used again.
		f.Inc++
		f.State = hivebeat.Ready
		b.mustFeed(f.Next(t))
		if r, _ := b.record("w"); r.N != gone.N+1 {
			t.Errorf("%s: n is %d after %d", last, r.N, gone.N)
		}
	}
}

// The record is gone but the worker is not: the same incarnation is back after hours.
// That is reported and scored as it is within ten minutes.
func TestBackAfterItWasForgotten(t *testing.T) {
	for _, c := range []struct {
		name    string
		missing uint64 // beats that were sent and not heard
	}{{"it went on, unheard", 100}, {"it was stopped", 0}} {
		t.Run(c.name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			f.Labels, f.PID, f.NS = map[string]string{"zone": "eu"}, 4711, "here"
			b.WatchExits("here", 1)
			b.mustFeed(f.Next(t)).mustFeed(f.Next(t)).Unwatched(Process{"w", f.Inc, f.PID})
			b.after(90 * second).after(hivebeat.KeepGone).after(5 * time.Hour)
			if n := b.Len(); n != 0 {
				t.Fatalf("%d records", n)
			}
			b.TakeSteps()
			b.TakeWatches()
			if w := b.departed["w"].last; w.facts.Labels != nil || w.tr != nil || w.conn != "" {
				t.Errorf("what is remembered costs too much: %+v", w.facts)
			}
			replay := *f
			for _, seq := range []uint64{0, 1} { // from before it was lost
				replay.Seq = seq
				if err := b.feed(replay.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
					t.Fatalf("a replay of %d: %v, want stale", seq+1, err)
				}
			}
			if n := b.Len(); n != 0 {
				t.Fatalf("a replay brought the record back: %d workers", n)
			}
			f.Seq += c.missing
			b.mustFeed(f.Next(t))
			s := b.TakeSteps()
			want := hivebeat.KeepGone + 5*time.Hour
			if len(s) != 1 || s[0].Kind != hivebeat.KindRecovered || s[0].From != "lost" || s[0].N != 4 || s[0].Margin != want ||
				s[0].Transition.Margin != hivebeat.MillisOf(want) || s[0].CutOff != (c.missing > 0) {
				t.Fatalf("steps %+v", s)
			}
			if b.stats.CutOff+b.stats.FalseDead != 1 || (b.stats.CutOff == 1) != (c.missing > 0) {
				t.Errorf("scored %+v", b.stats)
			}
			r, _ := b.record("w")
			if r.Live != hivebeat.Alive || r.Labels["zone"] != "eu" || len(r.Tr) != 1 || r.Stalled || r.Age != 0 {
				t.Errorf("record %+v", r)
			}
			if w := b.TakeWatches(); len(w) != 1 || w[0].PID != 4711 {
				t.Errorf("watches %+v", w)
			}
			b.mustFeed(f.Next(t)).after(90 * second) // and everything continues as usual
			if r, _ := b.record("w"); r.Live != hivebeat.Lost || r.N != 6 {
				t.Errorf("record %+v", r)
			}
		})
	}
}

// An incarnation that said goodbye is over, even when its record is gone. This does not
// affect another incarnation.
func TestForgottenIncarnations(t *testing.T) {
	b, f := newBench(t), newFake("w")
	f.State = hivebeat.Stopped
	b.mustFeed(f.Next(t)).after(hivebeat.KeepGone)
	b.TakeSteps()
	f.State = hivebeat.Ready
	if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale || b.Len() != 0 {
		t.Errorf("after its goodbye: %v, want stale; %d records", err, b.Len())
	}
	f.Inc, f.Seq = f.Inc+1, 0
	b.mustFeed(f.Next(t))
	if diff := cmp.Diff([]string{"joined:>alive"}, b.told()); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
	// A worker that was handed over is judged elsewhere: its later fate is unknown.
	b.Drop(b.now, "w")
	b.mustFeed(f.Next(t))
	if diff := cmp.Diff([]string{"joined:>alive"}, b.told()); diff != "" {
		t.Errorf("after Drop (-want +got):\n%s", diff)
	}
}

// Ten thousand workers come, go and are forgotten, over and over.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	b := newBench(t)
	for i := range 3*maxRemembers/2 + 1 {
		f := newFake(fmt.Sprint("w", i))
		f.State = hivebeat.Stopped
		b.mustFeed(f.Next(t))
		if i%1000 == 999 {
			b.after(hivebeat.KeepGone)
		}
	}
	b.after(hivebeat.KeepGone)
	if n := len(b.departed); n != maxRemembers || len(b.departures) != n {
		t.Errorf("%d and %d are remembered", n, len(b.departures))
	}
	if b.departed["w0"] != nil {
		t.Error("the oldest is remembered")
	}
}

func TestDepartedAreRememberedForSomeTimeOnly(t *testing.T) {
	b, f := newBench(t), newFake("w")
	f.State = hivebeat.Stopped
	b.mustFeed(f.Next(t)).after(hivebeat.KeepGone)
	if len(b.departed) != 1 {
		t.Fatalf("departed: %v", b.departed)
	}
	b.after(rememberFor)
	other := newFake("x")
	other.State = hivebeat.Stopped
	b.mustFeed(other.Next(t)).after(hivebeat.KeepGone)
	if len(b.departed) != 1 || len(b.departures) != 1 || b.departed["x"] == nil {
		t.Errorf("departed %v, %v: want x only", b.departed, b.departures)
	}
}

func TestTransitionsAreCarriedForAMinute(t *testing.T) {
	b, f := newBench(t), newFake("w")
	for i := range 12 {
		f.State = []hivebeat.State{hivebeat.Ready, hivebeat.Degraded}[i%2]
		b.mustFeed(f.Next(t)).after(second)
	}
	r, _ := b.record("w")
	if r.N != 12 || len(r.Tr) != hivebeat.MaxTransitions || r.Tr[0].N != 5 || r.Tr[7].N != 12 || r.Tr[7].Ago != 1000 || r.Tr[0].Ago != 8000 {
		t.Errorf("n %d, tr %+v", r.N, r.Tr)
	}
	b.after(40 * second)
	b.mustFeed(f.Next(t)).after(20 * second) // 61 s after the last transition
	if r, _ = b.record("w"); len(r.Tr) != 0 || r.N != 12 {
		t.Errorf("a minute later: n %d, tr %+v", r.N, r.Tr)
	}
}

func TestAgesAndSince(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.mustFeed(f.Next(t)).after(20 * second)
	b.mustFeed(f.Next(t)).after(31 * second)
	if r, _ := b.record("w"); r.Age != 31_000 || r.Since != 51_000 || r.Missed != 1 {
		t.Errorf("age %d, since %d, missed %d", r.Age, r.Since, r.Missed)
	}
	b.after(17 * second)
	if r, _ := b.record("w"); r.Age != 48_000 || r.Since != 0 || r.Live != hivebeat.Late {
		t.Errorf("late: age %d, since %d, %s", r.Age, r.Since, r.Live)
	}
}

// Blind time is credited to all workers, and a message that is read meanwhile is shown
// at its greatest possible age.
func TestBlindTimeIsCredited(t *testing.T) {
	b, f, g := newBench(t), newFake("w"), newFake("x")
	b.mustFeed(f.Next(t))
	b.mustFeed(g.Next(t)).after(40 * second)
	b.Doubt(b.now)
	b.now = b.now.Add(2 * time.Minute) // without a verdict
	b.mustFeed(g.Next(t))              // it may have waited all that time
	if r, _ := b.record("x"); r.Age != 120_000 {
		t.Errorf("read after a pause of 2 minutes, and shown as %d ms old", r.Age)
	}
	b.Credit(2 * time.Minute)
	b.Detect(b.now)
	if r, _ := b.record("w"); r.Live != hivebeat.Alive || r.Age != 160_000 {
		t.Errorf("%s at %d ms: the time was not credited, or the age lies", r.Live, r.Age)
	}
	b.after(5 * second)
	if r, _ := b.record("w"); r.Live != hivebeat.Late {
		t.Errorf("%s, want late: its time goes on", r.Live)
	}
	if r, _ := b.record("x"); r.Live != hivebeat.Alive {
		t.Errorf("the one that was heard: %s", r.Live)
	}
	b.after(45 * second)
	if r, _ := b.record("w"); r.Live != hivebeat.Lost {
		t.Errorf("%s, want lost", r.Live)
	}
	b.mustFeed(f.Next(t))
	if s := b.TakeSteps(); s[len(s)-1].Margin != 0 {
		t.Errorf("margin %s, want 0: heard at its deadline", s[len(s)-1].Margin)
	}
	if r, _ := b.record("w"); r.Age != 0 {
		t.Errorf("%d ms old, when nothing is in doubt", r.Age)
	}
}

func TestConflictChangesNoVerdict(t *testing.T) {
	b, old, young := newBench(t), newFake("w"), newFake("w")
	young.Inc++
	young.Model = "other"
	b.mustFeed(old.Next(t))
	for range 20 {
		b.after(10 * second)
		b.mustFeed(young.Next(t))
		if err := b.feed(old.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Fatalf("the superseded one: %v", err)
		}
	}
	steps := b.steps
	if diff := cmp.Diff([]string{"joined:>alive", "restarted:alive>alive", "conflict:>"}, b.told()); diff != "" {
		t.Fatalf("transitions (-want +got):\n%s", diff)
	}
	if steps[2].Inc != old.Inc {
		t.Errorf("the conflict names %d, want the other one, %d", steps[2].Inc, old.Inc)
	}
	if want := fmt.Sprintf(`two workers beat as "gpu-01/w": incarnation %d (began `, young.Inc); !strings.HasPrefix(steps[2].Reason, want) {
		t.Errorf("the conflict says %q", steps[2].Reason)
	}
	r, _ := b.record("w")
	if r.Rival != old.Inc {
		t.Errorf("the record names %d as the other one, want %d", r.Rival, old.Inc)
	}
	for range 4 { // it is shown until the believed one would be lost
		b.after(30 * second)
		b.mustFeed(young.Next(t))
	}
	if r, _ := b.record("w"); r.Rival != 0 {
		t.Errorf("the record names %d, which is gone", r.Rival)
	}
	if r.Live != hivebeat.Alive || r.Inc != young.Inc || r.Model != "other" || r.N != 3 {
		t.Errorf("record %+v", r)
	}
}

// TestDetectorAgainstFullSweep compares the lazy detector with one that checks every
// worker at every step.
func TestDetectorAgainstFullSweep(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type truth struct {
			f     *fake
			heard time.Time
			left  bool
		}
		b := newBench(t)
		model, forgotten := map[string]*truth{}, map[string]*truth{}
		ids := []string{"a", "b", "c", "d"}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			id := rapid.SampledFrom(ids).Draw(rt, "id")
			switch rapid.IntRange(0, 3).Draw(rt, "do") {
			case 0, 1:
				m := model[id]
				if m == nil {
					if m = forgotten[id]; m == nil {
						m = &truth{f: newFake(id)}
					} else if rapid.Bool().Draw(rt, "restarts") {
						m.f.Inc, m.f.Seq, m.left = m.f.Inc+1, 0, false
					}
					m.f.Every = hivebeat.Millis(rapid.SampledFrom([]int{100, 1000, 30_000}).Draw(rt, "every"))
					model[id] = m
				}
				m.f.Quiet = hivebeat.Millis(rapid.SampledFrom([]int{0, 0, 60_000}).Draw(rt, "quiet"))
				goodbye := rapid.IntRange(0, 9).Draw(rt, "goodbye") == 0
				if m.left {
					m.f.Inc, m.f.Seq, m.left = m.f.Inc+1, 0, false
				}
				m.f.State = hivebeat.Ready
				if goodbye {
					m.f.State, m.left = hivebeat.Stopped, true
				}
				b.mustFeed(m.f.Next(t))
				m.heard = b.now
			default:
				b.after(time.Duration(rapid.SampledFrom([]int{10, 150, 1500, 15_000, 100_000, 400_000}).Draw(rt, "ms")) * time.Millisecond)
			}
			for id, m := range model {
				e, silent := m.f.Every.Duration(), b.now.Sub(m.heard)
				quiet := max(e, m.f.Quiet.Duration())
				want := hivebeat.Alive
				switch {
				case m.left:
					want = hivebeat.Left
				case silent >= quiet+2*e:
					want = hivebeat.Lost
				case silent >= quiet+e/2:
					want = hivebeat.Late
				}
				r, ok := b.record(id)
				if !ok { // forgotten 10 minutes after it was noticed
					if want != hivebeat.Left && want != hivebeat.Lost {
						rt.Fatalf("%s has no record and should be %s", id, want)
					}
					delete(model, id)
					forgotten[id] = m
					continue
				}
				if r.Live != want {
					rt.Fatalf("%s is %s after %s with every %s, want %s", id, r.Live, silent, e, want)
				}
			}
			if !slices.IsSortedFunc(b.sorted, func(x, y *worker) int { return byID(x, y.id) }) || len(b.sorted) != len(b.workers) {
				var ids []string
				for _, w := range b.sorted {
					ids = append(ids, w.id)
				}
				rt.Fatalf("%d workers, in the order %v", len(b.workers), ids)
			}
		}
	})
}

// A worker that left owes no beats, however long ago it left.
func TestLeftMissesNothing(t *testing.T) {
	b := newBench(t)
	f := newFake("w")
	b.mustFeed(f.Next(t))
	f.State = hivebeat.Stopped
	b.mustFeed(f.Next(t))
	b.after(5 * time.Minute)
	if r, ok := b.record("w"); !ok || r.Live != hivebeat.Left || r.Missed != 0 {
		t.Errorf("listed %v, %s with %d missed, want left with 0", ok, r.Live, r.Missed)
	}
}

// A duplicate that was started by mistake and ended in order must not take its original
// with it.
func TestDuplicateLeaves(t *testing.T) {
	b := newBench(t)
	f, dup := newFake("w"), newFake("w")
	dup.Inc = f.Inc + 1
	b.mustFeed(f.Next(t)).mustFeed(dup.Next(t))
	dup.State = hivebeat.Stopped
	b.mustFeed(dup.Next(t))
	for range 3 { // messages of an ended process that may still be in flight
		b.after(every)
		if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Fatalf("%v, want stale", err)
		}
	}
	b.after(every)
	b.mustFeed(f.Next(t))
	if r, _ := b.record("w"); r.Live != hivebeat.Alive || r.Inc != f.Inc {
		t.Errorf("%s, inc %d; want the one that never ended, alive", r.Live, r.Inc)
	}
	if err := b.feed(dup.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("the duplicate again: %v, want stale", err)
	}
}

// A message that waited while the hive was stopped may have been sent before the
// duplicate left, by a process that has ended since.
func TestOldMailRevivesNobody(t *testing.T) {
	b := newBench(t)
	f, dup := newFake("w"), newFake("w")
	dup.Inc = f.Inc + 1
	b.mustFeed(f.Next(t)).mustFeed(dup.Next(t))
	b.Doubt(b.now)
	b.after(4 * every)
	dup.State = hivebeat.Stopped
	b.mustFeed(dup.Next(t))
	if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("%v, want stale", err)
	}
	b.Credit(4 * every)
	b.mustFeed(f.Next(t))
	if r, _ := b.record("w"); r.Live != hivebeat.Alive || r.Inc != f.Inc {
		t.Errorf("%s, inc %d; want the one that never ended, alive", r.Live, r.Inc)
	}
}
