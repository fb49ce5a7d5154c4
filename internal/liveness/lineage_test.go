package liveness

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"

	"pgregory.net/rapid"
)

// step is one message and its expected outcome.
type step struct {
	inc, seq uint64
	dead     bool // the known incarnation is not alive
	want     Outcome
}

func TestLineage(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
		lost  uint64
	}{
		{"goes on", []step{{10, 1, false, First}, {10, 2, false, Next}, {10, 3, false, Next}}, 0},
		{"a replay is stale", []step{{10, 1, false, First}, {10, 2, false, Next}, {10, 1, false, Stale}, {10, 2, false, Same}}, 0},
		{"what came before us is not missed", []step{{10, 50, false, First}, {10, 49, false, Stale}, {10, 51, false, Next}}, 0},
		{"a restart has a higher incarnation", []step{{10, 7, false, First}, {11, 1, false, Restarted}, {10, 8, false, Stale}, {11, 2, false, Next}}, 0},
		{
			"a lower one waits until the known one is not alive",
			[]step{{10, 1, false, First}, {9, 1, false, Older}, {9, 1, true, Stale}, {9, 2, true, TakenOver}, {10, 2, true, Stale}, {9, 3, false, Next}},
			0,
		},
		{
			"the superseded do not come back, dead or alive",
			[]step{{10, 1, false, First}, {11, 1, false, Restarted}, {10, 9, true, Stale}, {12, 1, false, Restarted}, {10, 99, true, Stale}, {11, 2, true, Stale}},
			0,
		},
		{
			"a higher one that was superseded does not come back either",
			[]step{{10, 1, false, First}, {9, 1, true, TakenOver}, {10, 2, false, Stale}, {10, 3, true, Stale}},
			0,
		},
		{"a gap filled out of order is not loss", []step{
			{10, 1, false, First}, {10, 4, false, Next}, {10, 3, false, Stale}, {10, 2, false, Stale}, {10, 30, false, Next}, {11, 1, false, Restarted},
		}, 25},
		{"a gap is proved when the eighth after it is heard", []step{
			{10, 1, false, First},
			{10, 3, false, Next},
			{10, 4, false, Next},
			{10, 5, false, Next},
			{10, 6, false, Next},
			{10, 7, false, Next},
			{10, 8, false, Next},
			{10, 9, false, Next},
			{10, 10, false, Next},
		}, 1},
		{"a gap is open until then", []step{{10, 1, false, First}, {10, 3, false, Next}, {10, 9, false, Next}}, 0},
		{"the end of the incarnation proves it", []step{{10, 1, false, First}, {10, 4, false, Next}, {11, 1, false, Restarted}}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l Lineage
			for i, s := range c.steps {
				if got := l.Hear(s.inc, s.seq, !s.dead); got != s.want {
					t.Fatalf("step %d: Hear(%d, %d, alive %t) = %s, want %s", i, s.inc, s.seq, !s.dead, got, s.want)
				}
			}
			if got := l.TakeLost(); got != c.lost {
				t.Errorf("%d lost, want %d", got, c.lost)
			}
		})
	}
}

func TestGoodbyeIsFinal(t *testing.T) {
	var l Lineage
	l.Hear(10, 1, true)
	l.Hear(10, 3, true)
	l.End()
	if got := l.TakeLost(); got != 1 {
		t.Errorf("%d lost at the goodbye, want 1", got)
	}
	if got := l.Hear(10, 4, false); got != Stale {
		t.Errorf("after its goodbye: %s", got)
	}
	if got := l.Hear(10, 3, false); got != Same {
		t.Errorf("another page of the goodbye: %s", got)
	}
	if got := l.Hear(11, 1, false); got != Restarted || l.Ended() {
		t.Errorf("a higher incarnation: %s, ended %t", got, l.Ended())
	}
}

func TestLastEightSupersededAreRemembered(t *testing.T) {
	var l Lineage
	for inc := uint64(1); inc <= 10; inc++ {
		l.Hear(inc, 1, true)
	}
	for inc := uint64(2); inc <= 9; inc++ {
		if got := l.Hear(inc, 100, false); got != Stale {
			t.Errorf("incarnation %d of 10: %s, want stale", inc, got)
		}
	}
	if got := l.Hear(1, 100, false); got != TakenOver {
		t.Errorf("incarnation 1 of 10 is past memory: %s, want taken over", got)
	}
}

func TestForgedLowIncarnationsDoNotPushOutTheSuperseded(t *testing.T) {
	var l Lineage
	l.Hear(1000, 1, true)
	l.Hear(2000, 1, true)
	for inc := uint64(1); inc <= 100; inc++ {
		if got := l.Hear(inc, 1, true); got != Older {
			t.Fatalf("incarnation %d: %s, want older", inc, got)
		}
	}
	if got := l.Hear(1000, 2, false); got != Stale {
		t.Errorf("the superseded one: %s, want stale", got)
	}
	if n := len(l.others); n != 4+1 {
		t.Errorf("%d others remembered, want the superseded one and the last 4", n)
	}
}

// hearMute hears a message that does not say when it was sent, from a sender beside a
// live one.
func hearMute(l *Lineage, inc, seq uint64) (o Outcome, conflict bool) {
	o = l.Hear(inc, seq, true)
	other, _ := l.Beside(o, Message{Inc: inc, Seq: seq}, true)
	return o, other != 0
}

func TestConflictIsToldOnceForAPair(t *testing.T) {
	for _, superseded := range []bool{true, false} {
		t.Run(fmt.Sprintf("superseded=%t", superseded), func(t *testing.T) {
			var l Lineage
			low, high := uint64(1), uint64(1)
			if superseded {
				hearMute(&l, 10, low)
				hearMute(&l, 20, high)
			} else {
				hearMute(&l, 20, high)
				hearMute(&l, 10, low)
			}
			conflicts := 0
			for range 50 {
				low, high = low+1, high+1
				hearMute(&l, 20, high)
				got, conflict := hearMute(&l, 10, low)
				if conflict {
					conflicts++
				}
				if got != Stale && got != Older {
					t.Fatalf("the refused one: %s", got)
				}
			}
			if conflicts != 1 {
				t.Errorf("%d conflicts told, want 1", conflicts)
			}
			if l.Inc() != 20 {
				t.Errorf("incarnation %d is valid, want 20", l.Inc())
			}
		})
	}
}

func TestOldBeatsInFlightAreNoConflict(t *testing.T) {
	var l Lineage
	hearMute(&l, 10, 1)
	hearMute(&l, 20, 1)
	seq := uint64(2)
	for n := uint64(2); n < 2+rounds-1; n++ { // a few bunches, with an advance of the new one between them
		hearMute(&l, 20, n)
		for range 5 {
			if got, conflict := hearMute(&l, 10, seq); got != Stale || conflict {
				t.Fatalf("old beat: %s, conflict %t, want stale", got, conflict)
			}
			seq++
		}
	}
	for n := uint64(10); n < 30; n++ { // a replay of them never causes a conflict
		hearMute(&l, 20, n)
		if got, conflict := hearMute(&l, 10, n%seq); got != Stale || conflict {
			t.Fatalf("replay: %s, conflict %t, want stale", got, conflict)
		}
	}
}

// model is the simplest form of Lineage: it remembers everything.
type model struct {
	inc        uint64
	heard      map[uint64]map[uint64]bool // by incarnation
	first, max map[uint64]uint64
	superseded []uint64
}

func (m *model) lost(inc uint64) (n uint64) {
	for s := m.first[inc]; s < m.max[inc]; s++ {
		if !m.heard[inc][s] {
			n++
		}
	}
	return n
}

func TestLineageAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l Lineage
		m := model{heard: map[uint64]map[uint64]bool{}, first: map[uint64]uint64{}, max: map[uint64]uint64{}}
		var accepted []uint64
		for i := range rapid.IntRange(1, 80).Draw(t, "steps") {
			inc := rapid.Uint64Range(1, 6).Draw(t, "inc")
			seq := rapid.Uint64Range(1, 14).Draw(t, "seq")
			alive := rapid.Bool().Draw(t, "alive")
			before := l
			got := l.Hear(inc, seq, alive)

			wasSuperseded := false
			for _, s := range m.superseded {
				wasSuperseded = wasSuperseded || s == inc
			}
			switch {
			case m.inc == 0:
				expect(t, i, got, First)
			case inc == m.inc && seq > m.max[inc]:
				expect(t, i, got, Next)
			case inc == m.inc && seq == m.max[inc]:
				expect(t, i, got, Same)
			case inc == m.inc:
				expect(t, i, got, Stale)
				if seq >= m.first[inc] && m.max[inc]-seq < reorder {
					m.heard[inc][seq] = true
				}
			case wasSuperseded:
				expect(t, i, got, Stale, Conflict)
			case inc > m.inc:
				expect(t, i, got, Restarted)
			case alive:
				expect(t, i, got, Older, Conflict)
			default:
				expect(t, i, got, TakenOver, Stale)
			}
			if !got.Accepted() {
				if l.Inc() != before.Inc() || l.Seq() != before.Seq() || l.Ended() != before.Ended() {
					t.Fatalf("step %d: %s moved the lineage", i, got)
				}
				continue
			}
			if got.Begins() {
				if m.inc != 0 {
					m.superseded = append(m.superseded, m.inc)
				}
				m.inc, m.first[inc], m.heard[inc] = inc, seq, map[uint64]bool{}
				accepted = append(accepted, inc)
			}
			m.max[inc], m.heard[inc][seq] = seq, true
			if l.Inc() != inc || l.Seq() != seq {
				t.Fatalf("step %d: at (%d, %d) after accepting (%d, %d)", i, l.Inc(), l.Seq(), inc, seq)
			}
		}
		l.End()
		var want uint64
		for _, inc := range accepted {
			want += m.lost(inc)
		}
		if got := l.TakeLost(); got != want {
			t.Fatalf("%d lost, want %d", got, want)
		}
	})
}

func expect(t *rapid.T, i int, got Outcome, want ...Outcome) {
	for _, w := range want {
		if got == w {
			return
		}
	}
	t.Fatalf("step %d: %s, want one of %s", i, got, want)
}

func BenchmarkLineageNext(b *testing.B) {
	var l Lineage
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		seq++
		l.Hear(1, seq, true)
	}
}

// A duplicate started beside a process, and ended: the process continues.
func TestRevive(t *testing.T) {
	began := time.Unix(1_000_000, 0)
	late := began.Add(46 * time.Second)
	var l Lineage
	revive := func(inc, seq uint64, gone bool, heard time.Time) Outcome {
		return l.Revive(Message{Inc: inc, Seq: seq, Heard: heard}, gone, began, 45*time.Second)
	}
	for _, s := range []struct {
		inc, seq uint64
		alive    bool
		want     Outcome
	}{{10, 5, false, First}, {11, 1, true, Restarted}, {10, 6, true, Stale}} {
		if got := l.Hear(s.inc, s.seq, s.alive); got != s.want {
			t.Fatalf("%+v: %s", s, got)
		}
	}
	l.End()
	l.Hear(10, 6, false)
	for _, of := range [][2]uint64{{10, 6}, {9, 1}, {11, 1}} { // a replay, and two that were not superseded
		if got := revive(of[0], of[1], true, late); got != Stale {
			t.Errorf("revived incarnation %d at seq %d: %s, want stale", of[0], of[1], got)
		}
	}
	if got := l.Hear(10, 7, false); got != Stale {
		t.Fatalf("by itself: %s, want stale", got)
	}
	if got := revive(10, 7, false, late); got != Stale {
		t.Errorf("the duplicate is not gone: %s, want stale", got)
	}
	if got := revive(10, 7, true, began.Add(45*time.Second)); got != Stale {
		t.Errorf("a message from before the duplicate may still be in flight: %s, want stale", got)
	}
	if got := revive(10, 7, true, late); got != TakenOver || l.Inc() != 10 || l.Seq() != 7 || l.Ended() {
		t.Fatalf("%s, and valid is %d/%d", got, l.Inc(), l.Seq())
	}
	if got := l.Hear(10, 8, true); got != Next {
		t.Errorf("then: %s", got)
	}
	if got := l.Hear(11, 2, true); got != Stale {
		t.Errorf("the duplicate: %s, want stale", got)
	}
}

// A process that ended does not come back, whatever arrives of it.
func TestReviveNotAfterItsEnd(t *testing.T) {
	var l Lineage
	l.Hear(10, 5, false)
	l.Died(true)
	l.Hear(11, 1, false)
	l.End()
	l.Hear(10, 6, false)
	began := time.Unix(1_000_000, 0)
	if got := l.Revive(Message{Inc: 10, Seq: 6, Heard: began.Add(time.Minute)}, true, began, 45*time.Second); got != Stale {
		t.Errorf("%s, and valid is %d", got, l.Inc())
	}
}

// Take follows the decision of another observer, even back to a superseded incarnation.
func TestTakeFollows(t *testing.T) {
	var l Lineage
	l.Hear(10, 5, false)
	l.Hear(20, 1, true)
	if !l.Superseded(10) || l.Superseded(20) {
		t.Fatalf("superseded: the first %t, the second %t", l.Superseded(10), l.Superseded(20))
	}
	if got := l.Hear(10, 6, false); got != Stale {
		t.Fatalf("the first, which is superseded: %s, want stale", got)
	}
	l.Take(10, 7)
	if l.Inc() != 10 || l.Seq() != 7 || l.Superseded(10) || !l.Superseded(20) {
		t.Errorf("at %d/%d", l.Inc(), l.Seq())
	}
	if o := l.Hear(10, 8, true); o != Next {
		t.Errorf("the next one is %s", o)
	}
	if o := l.Hear(20, 2, true); o != Stale {
		t.Errorf("the one that was left is %s", o)
	}
}

// A delayed message of a lower incarnation supersedes one that is late, until that one
// continues.
func TestLateMailTakesNoPlaceForLong(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Unix(1_000_000, 0).Add(d) }
	for name, c := range map[string]struct {
		lower bool // the lower one was never seen before
		sent  time.Duration
		want  bool
	}{
		"goes on":                {true, 45 * time.Second, true},
		"is late mail too":       {true, 35 * time.Second, false},
		"was known, and is back": {false, 45 * time.Second, false},
	} {
		var l Lineage
		hear := func(inc, seq uint64, sent, heard time.Duration, alive bool) Message {
			m := Message{Inc: inc, Seq: seq, Sent: at(sent).UnixMilli(), Heard: at(heard)}
			o := l.Hear(inc, seq, alive)
			if o == Stale && !alive {
				o = l.Revive(m, true, at(time.Second), 30*time.Second)
			}
			l.Beside(o, m, alive)
			return m
		}
		if !c.lower {
			hear(10, 1, 0, 0, true)
		}
		hear(20, 1, time.Second, time.Second, true)
		hear(20, 2, 11*time.Second, 20*time.Second, true) // itself a bit delayed
		if hear(10, 5, 30*time.Second, 40*time.Second, false); l.Inc() != 10 {
			t.Fatalf("%s: %d is valid", name, l.Inc())
		}
		m := hear(20, 3, c.sent, 46*time.Second, true)
		want := Stale
		if c.want {
			want = TakenOver
		}
		if got := l.Revive(m, false, at(40*time.Second), 30*time.Second); got != want {
			t.Errorf("the higher one %s: %s, want %s", name, got, want)
		}
		if got := l.Revive(m, false, at(0), 30*time.Second); got != Stale {
			t.Errorf("%s: then %s, want stale", name, got)
		}
	}
}

// Messages that an incarnation sent before it was superseded, or before it was refused,
// do not show that it lives, however many come and however far apart. Messages sent
// later do.
func TestLateMailDoesNotInsist(t *testing.T) {
	const gap = 5 * time.Second
	at := func(d time.Duration) time.Time { return time.Unix(1_000_000, 0).Add(d) }
	for name, c := range map[string]struct {
		inc   uint64 // the refused one, beside 20; 10 was the valid one before
		seqs  []uint64
		sent  time.Duration // of the first one; each next one is sent two gaps later
		heard time.Duration // after it was sent
		want  int           // the first message that is a conflict; -1: none
	}{
		"of one whose place was taken": {10, []uint64{5, 6, 7, 8, 9}, 10 * time.Second, 50 * time.Second, -1},
		"of one that lives":            {10, []uint64{5, 6, 7, 8, 9}, 61 * time.Second, 0, 2},
		"of one that was never seen":   {9, []uint64{5, 6, 7, 8, 9}, 61 * time.Second, 0, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var l Lineage
			hear := func(inc, seq uint64, sent, heard time.Duration) Outcome {
				m := Message{Inc: inc, Seq: seq, Sent: at(sent).UnixMilli(), Heard: at(heard)}
				o := l.Hear(inc, seq, true)
				if o == Stale || o == Older {
					o = l.Insists(m, gap, true, o)
				}
				l.Beside(o, m, true)
				return o
			}
			hear(10, 1, 0, 0)
			hear(20, 1, 60*time.Second, 60*time.Second)
			for i, seq := range c.seqs {
				sent := c.sent + time.Duration(i)*2*gap
				if o := hear(c.inc, seq, sent, sent+c.heard); (o == Conflict) != (i == c.want) {
					t.Errorf("message %d: %s", i, o)
				}
			}
		})
	}
}

func TestInsists(t *testing.T) {
	const gap = 5 * time.Second
	type said struct {
		after time.Duration
		seq   uint64 // of the refused one; 0: the valid one advances
		want  Outcome
	}
	row := func(n int, apart time.Duration, want ...Outcome) (list []said) {
		for i := range n {
			w := Stale
			if i < len(want) {
				w = want[i]
			}
			list = append(list, said{apart, uint64(11 + i), w})
		}
		return list
	}
	join := func(lists ...[]said) (all []said) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	valid := []said{{after: time.Second}}
	long := join(row(60, 2*gap), []said{{2 * gap, 71, Back}, {2 * gap, 72, Next}})
	for name, c := range map[string]struct {
		ended, learned, near bool
		list                 []said
	}{
		"goes back":              {list: row(4, 2*gap, Stale, Stale, Back, Next)},
		"in a bunch":             {list: row(20, gap/10)},
		"now and then":           {list: row(20, inARow*gap+1)},
		"beside one that lives":  {list: join(row(2, gap), valid, []said{{gap, 13, Conflict}}, valid, []said{{gap, 14, Stale}}, valid, []said{{gap, 15, Stale}})},
		"and that one is silent": {list: join(row(2, gap), valid, []said{{gap, 13, Conflict}, {gap, 14, Stale}, {gap, 15, Next}, {gap, 16, Next}})},
		"a replay":               {list: []said{{gap, 11, Stale}, {gap, 11, Stale}, {gap, 10, Stale}, {gap, 11, Stale}, {gap, 9, Stale}}},
		"after a goodbye":        {ended: true, list: row(5, 2*gap, Stale, Stale, Conflict)},
		"somebody else heard":    {learned: true, list: long},
		"it may be late":         {near: true, list: long},
		"late after a goodbye":   {near: true, ended: true, list: join(row(60, 2*gap), []said{{2 * gap, 71, Conflict}, {2 * gap, 72, Stale}})},
	} {
		t.Run(name, func(t *testing.T) {
			var l Lineage
			high := uint64(10 + leap + 1)
			if c.near {
				high--
			}
			l.Hear(7, 10, false)
			l.Hear(7, high, true)
			if c.ended {
				l.End()
			}
			now := time.Unix(1_000_000, 0)
			for i, s := range c.list {
				now = now.Add(s.after)
				if s.seq == 0 {
					if o := l.Hear(7, l.Seq()+1, true); o != Next {
						t.Fatalf("step %d: %s", i, o)
					}
					continue
				}
				o := l.Hear(7, s.seq, true)
				if o == Stale {
					o = l.Insists(Message{Inc: 7, Seq: s.seq, Heard: now}, gap, !c.learned, o)
				}
				if o != s.want {
					t.Fatalf("step %d, seq %d: %s, want %s", i, s.seq, o, s.want)
				}
				if o.Accepted() != (l.Seq() == s.seq) {
					t.Fatalf("step %d: %s, and at seq %d", i, o, l.Seq())
				}
			}
		})
	}
	if hivebeat.KeepGone != 60*2*gap {
		t.Error("the test goes by another time")
	}
}
