package verdict

import (
	"testing"

	"pgregory.net/rapid"
)

// step is one message and its expected outcome.
type step struct {
	inc, seq uint64
	dead     bool // the valid incarnation is not alive
	want     Outcome
}

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"it goes on", []step{{10, 5, false, First}, {10, 6, false, Next}, {10, 9, false, Next}, {10, 7, false, Stale}, {10, 9, true, Same}}},
		{"a higher incarnation takes over from a living one", []step{{10, 7, false, First}, {11, 1, false, Restarted}, {11, 2, false, Next}}},
		{
			"the superseded do not come back, dead or alive",
			[]step{{10, 1, false, First}, {11, 1, false, Restarted}, {10, 9, false, Stale}, {10, 99, true, Stale}, {12, 1, true, Restarted}, {11, 2, true, Stale}},
		},
		{"a lower one waits until the valid one is not alive", []step{{10, 1, false, First}, {9, 1, false, Older}, {9, 2, true, TakenOver}, {9, 3, false, Next}}},
		{
			"a replay does not take over",
			[]step{{10, 1, false, First}, {9, 4, false, Older}, {9, 4, true, Stale}, {9, 3, true, Stale}, {9, 5, true, TakenOver}},
		},
		{"a higher one that was superseded does not come back", []step{{10, 1, false, First}, {9, 1, true, TakenOver}, {10, 2, false, Stale}, {10, 3, true, Stale}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var g Guard
			for i, s := range c.steps {
				if got := g.Hear(s.inc, s.seq, !s.dead); got != s.want {
					t.Fatalf("step %d: Hear(%d, %d, alive %t) = %s, want %s", i, s.inc, s.seq, !s.dead, got, s.want)
				}
			}
		})
	}
}

func TestGuardAfterAGoodbye(t *testing.T) {
	var g Guard
	g.Hear(10, 3, true)
	g.End()
	if got := g.Hear(10, 4, false); got != Stale || !g.Ended() {
		t.Errorf("after its goodbye: %s, ended %t", got, g.Ended())
	}
	if got := g.Hear(10, 3, false); got != Same {
		t.Errorf("another page of the goodbye: %s", got)
	}
	if got := g.Hear(11, 1, false); got != Restarted || g.Ended() {
		t.Errorf("a higher incarnation: %s, ended %t", got, g.Ended())
	}
}

func TestGuardTakes(t *testing.T) {
	var g Guard
	g.Take(10, 3) // restored
	if got := g.Hear(10, 3, false); got != Same {
		t.Errorf("the restored message: %s", got)
	}
	g.Hear(11, 1, true)
	g.End()
	g.Take(10, 3) // another receiver believes the lower one
	if got := g.Hear(10, 4, true); got != Next || g.Ended() {
		t.Errorf("the incarnation that was taken: %s, ended %t", got, g.Ended())
	}
	if seq, superseded, ok := g.Other(11); seq != 1 || !superseded || !ok {
		t.Errorf("the one before: seq %d, superseded %t, known %t", seq, superseded, ok)
	}
	if _, _, ok := g.Other(10); ok {
		t.Error("the valid incarnation is also another one")
	}
}

func TestGuardRemembersALimitedNumber(t *testing.T) {
	var g Guard
	for inc := uint64(1001); inc <= 1010; inc++ {
		g.Hear(inc, 1, true)
	}
	for inc := uint64(1); inc <= 100; inc++ {
		if got := g.Hear(inc, 1, true); got != Older {
			t.Fatalf("incarnation %d: %s, want older", inc, got)
		}
	}
	if n := len(g.others); n != remembered+rivals {
		t.Errorf("%d others remembered, want %d", n, remembered+rivals)
	}
	for inc := uint64(1002); inc <= 1009; inc++ {
		if got := g.Hear(inc, 100, false); got != Stale {
			t.Errorf("incarnation %d of 1001 to 1010: %s, want stale", inc, got)
		}
	}
	if got := g.Hear(1001, 100, false); got != TakenOver {
		t.Errorf("incarnation 1001 is past memory: %s, want taken over", got)
	}
}

// TestGuardProperties checks that a refused message changes nothing, and that the last
// superseded incarnations stay refused.
func TestGuardProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g Guard
		superseded := make(map[uint64]bool)
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			inc := rapid.Uint64Range(1, 8).Draw(t, "inc") // no more than Guard remembers
			seq := rapid.Uint64Range(1, 9).Draw(t, "seq")
			before, last, ended := g.Inc(), g.Seq(), g.Ended()
			if before != 0 && rapid.IntRange(0, 9).Draw(t, "end") == 0 {
				g.End()
				ended = true
			}
			o := g.Hear(inc, seq, rapid.Bool().Draw(t, "alive"))
			switch {
			case o.Accepted() && superseded[inc]:
				t.Fatalf("step %d: superseded incarnation %d is %s", i, inc, o)
			case o.Accepted() && inc == before && (seq <= last || ended):
				t.Fatalf("step %d: seq %d after %d, ended %t, is %s", i, seq, last, ended, o)
			case o.Accepted() && (g.Inc() != inc || g.Seq() != seq):
				t.Fatalf("step %d: at (%d, %d) after %s of (%d, %d)", i, g.Inc(), g.Seq(), o, inc, seq)
			case !o.Accepted() && (g.Inc() != before || g.Seq() != last || g.Ended() != ended):
				t.Fatalf("step %d: %s moved the guard from (%d, %d) to (%d, %d)", i, o, before, last, g.Inc(), g.Seq())
			}
			if o.Begins() != (o.Accepted() && inc != before) {
				t.Fatalf("step %d: %s of incarnation %d after %d", i, o, inc, before)
			}
			if o.Begins() && before != 0 {
				superseded[before] = true
			}
		}
	})
}
