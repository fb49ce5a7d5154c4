package bus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return t0.Add(d) }

// middle is a random source that always draws the middle.
func middle() float64 { return 0.5 }

// fire is one pulse of a schedule that was played.
type fire struct {
	at  time.Duration
	why Why
}

func (f fire) String() string { return fmt.Sprintf("%s %s", f.at, f.why) }

// play fires every pulse that is due before end, each exactly when it is due.
func play(s *Schedule, from, end time.Duration) (fires []fire, now time.Duration) {
	now = from
	for {
		next, _ := s.Next()
		due := max(next.Sub(t0), now)
		if due >= end {
			return fires, end
		}
		now = due
		why, _ := s.Begin(at(now))
		s.Sent()
		fires = append(fires, fire{now, why})
	}
}

const ms = time.Millisecond

func TestSchedule(t *testing.T) {
	t.Parallel()
	type step struct {
		at time.Duration
		do func(*Schedule, time.Time)
	}
	ended := (*Schedule).Ended
	changed := (*Schedule).Changed
	touch := (*Schedule).Touch
	back := (*Schedule).Reconnected
	call := func(spread time.Duration) func(*Schedule, time.Time) {
		return func(s *Schedule, now time.Time) { s.Call(now, spread) }
	}
	const sec = time.Second
	for _, tc := range []struct {
		name  string
		steps []step
		end   time.Duration
		want  []fire
	}{
		{"the promise alone", nil, 60 * sec, []fire{{0, WhyStart}, {27 * sec, WhyInterval}, {54 * sec, WhyInterval}}},
		{
			"a change goes out at once and restarts the interval",
			[]step{{10 * sec, changed}},
			38 * sec,
			[]fire{{0, WhyStart}, {10 * sec, WhyChanged}, {37 * sec, WhyInterval}},
		},
		{
			"changes that follow are gathered",
			[]step{{10 * sec, changed}, {10*sec + 10*ms, changed}, {10*sec + 40*ms, changed}},
			11 * sec,
			[]fire{{0, WhyStart}, {10 * sec, WhyChanged}, {10*sec + 50*ms, WhyChanged}},
		},
		{
			"an end does not wait for the change before it",
			[]step{{10 * sec, changed}, {10*sec + 10*ms, ended}, {10*sec + 20*ms, ended}},
			11 * sec,
			[]fire{{0, WhyStart}, {10 * sec, WhyChanged}, {10*sec + 10*ms, WhyEnded}, {10*sec + 60*ms, WhyEnded}},
		},
		{
			"a change rides on an end",
			[]step{{10 * sec, changed}, {10*sec + 10*ms, changed}, {10*sec + 20*ms, ended}},
			11 * sec,
			[]fire{{0, WhyStart}, {10 * sec, WhyChanged}, {10*sec + 20*ms, WhyEnded}},
		},
		{
			"what is both is an end, and leaves the changes their burst",
			[]step{{10 * sec, changed}, {10 * sec, ended}, {10*sec + 10*ms, changed}},
			11 * sec,
			[]fire{{0, WhyStart}, {10 * sec, WhyEnded}, {10*sec + 10*ms, WhyChanged}},
		},
		{
			"facts wait for a second after the pulse before",
			[]step{{200 * ms, touch}, {500 * ms, touch}, {5 * sec, touch}},
			10 * sec,
			[]fire{{0, WhyStart}, {sec, WhyTouched}, {5 * sec, WhyTouched}},
		},
		{
			"facts ride on a change that comes first",
			[]step{{200 * ms, touch}, {300 * ms, changed}},
			10 * sec,
			[]fire{{0, WhyStart}, {300 * ms, WhyChanged}},
		},
		{
			"a roll call is answered within its spread",
			[]step{{10 * sec, call(4 * sec)}},
			20 * sec,
			[]fire{{0, WhyStart}, {12 * sec, WhyCalled}},
		},
		{
			"a pulse due sooner is the answer",
			[]step{{26 * sec, call(4 * sec)}},
			40 * sec,
			[]fire{{0, WhyStart}, {27 * sec, WhyInterval}},
		},
		{
			"roll calls in a row get one answer a gap, and the last one is not forgotten",
			[]step{{10 * sec, call(0)}, {11 * sec, call(0)}, {12 * sec, call(0)}},
			20 * sec,
			[]fire{{0, WhyStart}, {10 * sec, WhyCalled}, {15 * sec, WhyCalled}},
		},
		{
			"of two roll calls the sooner one counts",
			[]step{{10 * sec, call(20 * sec)}, {11 * sec, call(2 * sec)}},
			14 * sec,
			[]fire{{0, WhyStart}, {12 * sec, WhyCalled}},
		},
		{
			"a spread without end does not delay the promise",
			[]step{{sec, call(1000 * time.Hour)}},
			29 * sec,
			[]fire{{0, WhyStart}, {16 * sec, WhyCalled}}, // cut to every, and half of that
		},
		{
			"a flapping connection gets one pulse a second",
			[]step{{10 * sec, back}, {10*sec + 200*ms, back}, {10*sec + 400*ms, back}, {10*sec + 600*ms, back}},
			15 * sec,
			[]fire{{0, WhyStart}, {10*sec + 125*ms, WhyReconnected}, {11*sec + 125*ms, WhyReconnected}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := NewSchedule(t0, 30*sec, 5*sec, middle)
			var got []fire
			var now time.Duration
			for _, st := range tc.steps {
				var f []fire
				f, now = play(s, now, st.at)
				got = append(got, f...)
				st.do(s, at(now))
			}
			f, _ := play(s, now, tc.end)
			if got = append(got, f...); !slices.Equal(got, tc.want) {
				t.Errorf("pulses:\n got %v\nwant %v", got, tc.want)
			}
		})
	}
}

// Changes use up their whole budget, and an end is still sent at once: twenty ends go
// out 50 ms apart, and then two a second.
func TestScheduleEndsWaitForNoChanges(t *testing.T) {
	t.Parallel()
	s := NewSchedule(t0, time.Minute, 0, middle)
	var now time.Duration
	storm := func(until time.Duration, ends bool) (told []time.Duration) {
		for ; now < until; now += ms {
			s.Changed(at(now))
			if ends {
				s.Ended(at(now))
			}
			fires, _ := play(s, now, now+ms)
			for _, f := range fires {
				if f.why == WhyEnded {
					told = append(told, f.at)
				}
			}
		}
		return told
	}
	storm(10*time.Second, false)
	if next, why := s.Next(); why != WhyChanged || next.Sub(t0) <= now {
		t.Fatalf("%s is due at %s: the storm has left something of the burst", why, next.Sub(t0))
	}
	begun := now
	told := storm(begun+3*time.Second, true)
	var want []time.Duration
	for i := range 20 + 2 { // two of the burst are available again when it is used up
		want = append(want, begun+time.Duration(i)*50*ms)
	}
	for d := begun + 3*time.Second/2; d < begun+3*time.Second; d += time.Second / 2 {
		want = append(want, d)
	}
	if !slices.Equal(told, want) {
		t.Errorf("ends went out at\n%v, want\n%v", told, want)
	}
}

// A late timer is followed by one pulse, not by the missed ones.
func TestScheduleAfterPause(t *testing.T) {
	t.Parallel()
	s := NewSchedule(t0, 10*time.Second, 0, middle)
	play(s, 0, time.Second)
	if _, late := s.Begin(at(10 * time.Minute)); !late {
		t.Error("a pulse 10 minutes after the one before is not called late")
	}
	s.Sent()
	fires, _ := play(s, 10*time.Minute, 10*time.Minute+20*time.Second)
	want := []fire{{10*time.Minute + 9*time.Second, WhyInterval}, {10*time.Minute + 18*time.Second, WhyInterval}}
	if !slices.Equal(fires, want) {
		t.Errorf("after a pause of 10 minutes: got %v, want %v", fires, want)
	}
}

// While sending fails, only a reconnect brings the next attempt forward, and no request
// is forgotten.
func TestScheduleFailure(t *testing.T) {
	t.Parallel()
	s := NewSchedule(t0, 30*time.Second, 0, middle)
	s.Begin(t0)
	s.Failed(t0)
	now := time.Duration(0)
	for range 1000 { // a hot caller
		now += 100 * time.Microsecond
		s.Ended(at(now))
		s.Changed(at(now))
		s.Touch(at(now))
		s.Ask(at(now))
		s.Call(at(now), 0)
	}
	if next, _ := s.Next(); next.Sub(t0) != 900*ms {
		t.Fatalf("after a failure at 0 s: next try at %s, want 900ms", next.Sub(t0))
	}
	s.Reconnected(at(now)) // at 100 ms
	next, _ := s.Next()
	if want := now + 125*ms; next.Sub(t0) != want {
		t.Fatalf("reconnected at %s: next try at %s, want %s", now, next.Sub(t0), want)
	}
	s.Begin(next)
	s.Sent()
	if next, why := s.Next(); why != WhyInterval {
		t.Errorf("the pulse took everything along, but %s is due at %s", why, next.Sub(t0))
	}
}

func TestScheduleFailureKeepsWhatCameMeanwhile(t *testing.T) {
	t.Parallel()
	for why, ask := range map[Why]func(*Schedule, time.Time){WhyChanged: (*Schedule).Changed, WhyEnded: (*Schedule).Ended} {
		s := NewSchedule(t0, 30*time.Second, 0, middle)
		play(s, 0, time.Second)
		ask(s, at(2*time.Second))
		s.Begin(at(2 * time.Second))
		s.Touch(at(2*time.Second + 1)) // while the pulse is being sent
		s.Failed(at(2*time.Second + 2))
		fires, _ := play(s, 2*time.Second, 10*time.Second)
		if len(fires) != 1 || fires[0].why != why {
			t.Errorf("after a failure of one that was %s: got %v, want it once more", why, fires)
		}
	}
}

// Hostile callers, at random times: the rules of Schedule hold together.
func TestScheduleProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.Int64Range(100, 60_000).Draw(t, "every ms")) * ms
		rollGap := time.Duration(rapid.Int64Range(1, 10_000).Draw(t, "roll gap ms")) * ms
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		s := NewSchedule(t0, every, rollGap, rnd.Float64)
		hot := rapid.Bool().Draw(t, "hot") // hardly any time between the calls

		var fires []fire
		var now time.Duration
		for range rapid.IntRange(1, 300).Draw(t, "calls") {
			gap := time.Duration(rapid.Int64Range(0, 3*int64(every)).Draw(t, "gap"))
			if hot {
				gap %= 20 * ms
			}
			var f []fire
			f, now = play(s, now, now+gap)
			fires = append(fires, f...)
			if len(f) > 10_000 {
				t.Fatalf("%d pulses in %s", len(f), gap)
			}
			switch rapid.IntRange(0, 5).Draw(t, "call") {
			case 0:
				s.Changed(at(now))
			case 1:
				s.Touch(at(now))
			case 2:
				s.Call(at(now), time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "spread")))
			case 3:
				s.Reconnected(at(now))
			case 4:
				s.Ask(at(now))
			case 5:
				s.Ended(at(now))
			}
			// No request waits longer than the promise.
			if next, why := s.Next(); !s.waiting.ended.IsZero() && next.After(at(now+endedPace)) {
				t.Fatalf("%s is due at %s, and at %s an end was asked for", why, next.Sub(t0), now)
			}
			if next, why := s.Next(); len(fires) > 0 && next.After(at(fires[len(fires)-1].at+every)) {
				t.Fatalf("%s is due at %s, %s after the last pulse: the promise is %s", why, next.Sub(t0), next.Sub(at(fires[len(fires)-1].at)), every)
			}
		}
		f, _ := play(s, now, now+2*every)
		fires = append(fires, f...)
		check(t, fires, every, rollGap)
	})
}

func check(t *rapid.T, fires []fire, every, rollGap time.Duration) {
	urgent := map[Why][]time.Duration{}
	lastOf := map[Why]time.Duration{}
	for i, f := range fires {
		if i > 0 {
			gap := f.at - fires[i-1].at
			if gap > every {
				t.Fatalf("%s came %s after %s: the promise is %s", f, gap, fires[i-1], every)
			}
			if f.why == WhyInterval && gap < every*84/100 {
				t.Fatalf("interval pulse %s came only %s after %s", f, gap, fires[i-1])
			}
			if f.why == WhyTouched && gap < factsPace {
				t.Fatalf("facts %s came only %s after %s", f, gap, fires[i-1])
			}
		}
		least := map[Why]time.Duration{
			WhyEnded: urgentGather, WhyChanged: urgentGather, WhyAsked: askedPace, WhyCalled: rollGap, WhyReconnected: backPace,
		}[f.why]
		if last, ok := lastOf[f.why]; ok && f.at-last < least {
			t.Fatalf("%s came %s after the one before of its kind, at least %s were promised", f, f.at-last, least)
		}
		lastOf[f.why] = f.at
		urgent[f.why] = append(urgent[f.why], f.at)
	}
	// In any stretch from change i to change j: at most 5 + 1 a second. For ends: 20 +
	// 2.
	for why, of := range map[Why]struct {
		burst int
		pace  time.Duration
	}{WhyChanged: {5, time.Second}, WhyEnded: {20, time.Second / 2}} {
		for i, first := range urgent[why] {
			for j, last := range urgent[why][i:] {
				if n, most := j+1, of.burst+int((last-first)/of.pace); n > most {
					t.Fatalf("%d %s within %s, at most %d are allowed", n, why, last-first, most)
				}
			}
		}
	}
}

func BenchmarkScheduleChanged(b *testing.B) {
	s := NewSchedule(t0, 30*time.Second, 0, middle)
	play(s, 0, time.Second)
	for b.Loop() {
		s.Changed(at(2 * time.Second))
		s.Next()
	}
}
