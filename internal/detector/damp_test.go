package detector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

// flap makes the worker late and lets it recover, the given number of times.
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
	if got := b.Damped(); got["w"] != 20 {
		t.Errorf("damped %v, want 20", got)
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
		flap(b, f, 2) // six are reported, the last of them recovered
		f.Quiet = hivebeat.MillisOf(9 * time.Minute)
		b.after(1500 * time.Millisecond) // late, damped
		b.told()
		b.w("w").heard = b.now // it announced its silence
		b.deadlines.Remove(b.w("w"))
		b.after(flapWithin)
		r, _ := b.record("w")
		if last := r.Tr[len(r.Tr)-1]; last.Kind != hivebeat.KindLate || last.From != "alive" || last.To != "late" || last.N != r.N || r.N != 9 {
			t.Errorf("%+v", r)
		}
	})
}

func (b *bench) w(id string) *worker { return b.workers[id] }

// looper returns a worker whose process is watched by its hive.
func looper(b *bench) *fake {
	b.WatchExits("boot/4026531836", 1)
	b.TellLoops()
	f := newFake("w")
	b.mustFeed(f.Next(b.t))
	return f
}

// restart ends the process of a worker and starts another one.
func restart(b *bench, f *fake) {
	b.t.Helper()
	p := Process{Worker: f.Worker, Inc: f.Inc, PID: f.PID}
	if !b.Exit(b.now, Exit{Process: p, At: b.now}) {
		b.t.Fatalf("the end of %+v is no news", p)
	}
	f.Inc, f.PID, f.Seq = f.Inc+1, f.PID+1, 0
	b.mustFeed(f.Next(b.t))
}

// A worker that restarts every 3 s for 75 s is reported as looping once at its
// beginning, and once when it has been quiet for 10 minutes. Its deaths in between are
// true and counted.
func TestALoopIsToldOnce(t *testing.T) {
	b := newBench(t)
	f := looper(b)
	want := []string{"joined:>alive"}
	const lost, again = "lost:alive>lost(exit)", "restarted:lost>alive"
	for i := range 25 {
		b.after(3 * time.Second)
		restart(b, f)
		if r, _ := b.record("w"); r.Restarts != uint64(i+1) || r.Looping != (i >= 2) || r.Live != hivebeat.Alive {
			t.Fatalf("after %d restarts: %d, looping %t, %s", i+1, r.Restarts, r.Looping, r.Live)
		}
		if i < 3 {
			want = append(want, lost, again)
		}
	}
	want = append(want, "looping:>looping")
	told := func() (list []string, damped int) {
		for _, s := range b.TakeSteps() {
			if s.Damped {
				damped++
				if s.N != 0 {
					t.Errorf("it is not told, and has a number: %+v", s)
				}
			} else {
				list = append(list, string(s.Kind)+":"+s.From+">"+s.To+map[bool]string{true: "(" + string(s.Cause) + ")"}[s.Cause != ""])
			}
		}
		return list, damped
	}
	list, damped := told()
	if diff := cmp.Diff(want, list); diff != "" || damped != 2*22 {
		t.Errorf("%d were damped, and told were (-want +got):\n%s", damped, diff)
	}
	if n := b.Lost()[hivebeat.CauseExit]; n != 25 {
		t.Errorf("%d deaths are counted, want 25", n)
	}
	if b.Looping() != 1 || b.Damped()["w"] != 2*22 {
		t.Errorf("%d loop, damped %v", b.Looping(), b.Damped())
	}
	began := b.now
	for b.now.Sub(began) < loopQuiet-time.Second {
		b.after(time.Second)
		b.mustFeed(f.Next(t))
	}
	if list, _ := told(); list != nil || b.Looping() != 1 {
		t.Errorf("a second too early: %v", list)
	}
	if next, ok := b.Next(); !ok || next.After(began.Add(loopQuiet)) {
		t.Errorf("to be looked at %v after that", next.Sub(began))
	}
	b.after(time.Second)
	if diff := cmp.Diff([]string{"looping:looping>"}, b.told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	r, _ := b.record("w")
	if r.Looping || r.Restarts != 25 || r.N != 9 || r.Tr[len(r.Tr)-1].N != 9 {
		t.Errorf("looping %t, %d restarts, n %d", r.Looping, r.Restarts, r.N)
	}
	for b.now.Sub(began) < time.Hour+time.Minute {
		b.mustFeed(f.Next(t)).after(30 * time.Second)
	}
	if r, _ := b.record("w"); r.Restarts != 0 {
		t.Errorf("%d restarts after an hour without any", r.Restarts)
	}
}

func TestAnEndOfALoopTellsWhatBecameOfIt(t *testing.T) {
	const over = "looping:looping>"
	for _, c := range []struct {
		name string
		do   func(*bench, *fake)
		want []string
	}{
		{"it lives", func(*bench, *fake) {}, []string{over}},
		{"it died", func(b *bench, f *fake) { b.Exit(b.now, Exit{Process: Process{"w", f.Inc, f.PID}, At: b.now}) }, []string{over, "lost:alive>lost(exit)"}},
		{"it left", func(b *bench, f *fake) {
			f.State = hivebeat.Failed
			b.mustFeed(f.Next(b.t))
		}, []string{over, "left:alive>left(goodbye)"}},
		{"it is late", func(b *bench, f *fake) {
			f.Quiet = hivebeat.MillisOf(9*time.Minute + 30*time.Second)
			b.mustFeed(f.Next(b.t))
		}, []string{over, "late:alive>late(missed)"}},
		{"its state is another", func(b *bench, f *fake) {
			f.State = hivebeat.Draining
			b.mustFeed(f.Next(b.t))
		}, []string{over}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			f := looper(b)
			for range 4 {
				b.after(time.Second)
				restart(b, f)
			}
			b.TakeSteps()
			c.do(b, f)
			for _, s := range b.TakeSteps() {
				if !s.Damped {
					t.Errorf("told while it loops: %+v", s)
				}
			}
			gone := b.w("w").live
			for range int(loopQuiet / time.Second) {
				b.TakeSteps() // late and recovered, both damped
				b.after(time.Second)
				if c.name == "it lives" || c.name == "its state is another" {
					b.mustFeed(f.Next(t))
				}
			}
			if diff := cmp.Diff(c.want, b.told()); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			// A worker that is gone stays listed after this report like any other.
			b.after(hivebeat.KeepGone - time.Second)
			if r, ok := b.record("w"); !ok || (gone == hivebeat.Lost || gone == hivebeat.Left) && r.Live != gone {
				t.Errorf("listed: %t, %s", ok, r.Live)
			}
		})
	}
}

func TestWhatIsNoLoop(t *testing.T) {
	t.Run("three restarts in more than 5 minutes", func(t *testing.T) {
		b := newBench(t)
		f := looper(b)
		for range 9 {
			restart(b, f)
			b.after(loopWithin/2 + time.Second)
			b.mustFeed(f.Next(t))
		}
		for _, s := range b.TakeSteps() {
			if s.Damped || s.Kind == hivebeat.KindLooping {
				t.Errorf("%+v", s)
			}
		}
		if r, _ := b.record("w"); r.Restarts != 9 || r.Looping {
			t.Errorf("%d restarts, looping %t", r.Restarts, r.Looping)
		}
	})
	t.Run("to a queen", func(t *testing.T) {
		b := newBench(t)
		f := looper(b)
		b.loops = false
		for range 5 {
			restart(b, f)
		}
		for _, s := range b.TakeSteps() {
			if s.Damped || s.Kind == hivebeat.KindLooping {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A queen that judges in place of a hive damps the loops that the hive reported.
func TestALoopThatIsTakenOver(t *testing.T) {
	b := newBench(t)
	f := newFake("w")
	f.Seq = 1
	b.Seed(b.now, Seed{Worker: "w", Live: hivebeat.Alive, Facts: f.Facts, Heard: b.now, Restarts: 7, Looping: true})
	b.after(time.Second)
	for range 2 {
		f.Inc, f.Seq = f.Inc+1, 0
		b.mustFeed(f.Next(t))
	}
	for _, s := range b.TakeSteps() {
		if !s.Damped {
			t.Errorf("%+v", s)
		}
	}
	if r, _ := b.Record(b.now, "w"); r.Restarts != 9 || !r.Looping {
		t.Errorf("%d restarts, looping %t", r.Restarts, r.Looping)
	}
	for range 3 * 10 {
		b.after(20 * time.Second)
		b.mustFeed(f.Next(t))
	}
	if r, _ := b.Record(b.now, "w"); r.Looping {
		t.Errorf("it loops still: %+v", r)
	}
	b.TakeSteps()
	f.Inc, f.Seq = f.Inc+1, 0
	b.mustFeed(f.Next(t))
	if diff := cmp.Diff([]string{"restarted:alive>alive"}, b.told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestRestartsOfTheLastHour(t *testing.T) {
	var s *restarts
	if n := s.count(t0); n != 0 {
		t.Errorf("%d of one that never did", n)
	}
	s = &restarts{base: t0}
	at := func(d time.Duration) uint64 { return s.count(t0.Add(d)) }
	at(0)
	s.minutes[0] = 3
	if n := at(59 * time.Minute); n != 3 {
		t.Errorf("%d after 59 minutes, want 3", n)
	}
	s.minutes[s.minute%60] = 2
	for _, c := range []struct {
		d    time.Duration
		want uint64
	}{{time.Hour, 2}, {118 * time.Minute, 2}, {119 * time.Minute, 0}, {1000 * time.Hour, 0}} {
		if n := at(c.d); n != c.want {
			t.Errorf("%d after %v, want %d", n, c.d, c.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { at(1000 * time.Hour) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

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
