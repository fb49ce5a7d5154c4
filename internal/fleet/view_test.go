package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
)

func mustFeed(t testing.TB, v *View, s *hivebeat.Snapshot, now time.Time) {
	t.Helper()
	if err := feed(t, v, s, now); err != nil {
		t.Fatalf("%s %d.%d page %d: %v", s.Hive, s.Inc, s.Seq, s.Page, err)
	}
}

// pagesOf cuts s into n pages.
func pagesOf(s *hivebeat.Snapshot, n int) []*hivebeat.Snapshot {
	pages := make([]*hivebeat.Snapshot, n)
	for i := range n {
		p := *s
		p.Page, p.Pages = uint64(i), uint64(n)
		p.Workers = s.Workers[i*len(s.Workers)/n : (i+1)*len(s.Workers)/n]
		pages[i] = &p
	}
	return pages
}

func workersOf(n int) (list []hivebeat.Record) {
	for i := range n {
		list = append(list, workerOf(fmt.Sprintf("w%02d", i)))
	}
	return list
}

// lives returns the verdicts in the records, as "w1=alive w2=lost".
func lives(v *View, hive string) string {
	var b strings.Builder
	for _, w := range v.hives[hive].Workers() {
		fmt.Fprintf(&b, "%s=%s ", w.ID(), w.Record().Live)
	}
	return strings.TrimSpace(b.String())
}

func TestVerdictsOfOneHive(t *testing.T) {
	v := New(45 * time.Second)
	hive := func() *Hive { return v.hives["h"] }
	steps := func() (s []string) {
		for _, x := range v.ready.Steps {
			s = append(s, string(x.Kind))
		}
		v.ready.Steps = nil
		return s
	}
	expect := func(what string, live hivebeat.Live, kinds ...string) {
		t.Helper()
		if got := steps(); hive().live != live || !slices.Equal(got, kinds) {
			t.Fatalf("%s: %s after %v, want %s after %v", what, hive().live, got, live, kinds)
		}
	}
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	expect("first", hivebeat.Alive, "joined")
	settleChecks(v, at(22.4))
	expect("E + 0.5 × every is not over", hivebeat.Alive)
	settleChecks(v, at(22.5))
	expect("late", hivebeat.Late, "late")
	if e := hive().why; e.reason != "no snapshot for 22.5s, 1 was due" || e.age != 22500 {
		t.Errorf("evidence: %+v", e)
	}
	mustFeed(t, v, snapshotOf("h", 100, 2), at(30))
	expect("heard again", hivebeat.Alive, "recovered")
	if m := hive().why.margin; m == nil || *m != 7500 {
		t.Errorf("margin: %v", m)
	}
	settleChecks(v, at(60))
	expect("late again", hivebeat.Late, "late")
	settleChecks(v, at(74.9))
	expect("E + 2 × every is not over", hivebeat.Late)
	settleChecks(v, at(75))
	expect("lost", hivebeat.Lost, "lost")
	if e := hive().why; e.reason != "no snapshot for 45.0s, 3 were due" || hive().cause != hivebeat.CauseMissed {
		t.Errorf("evidence: %+v", e)
	}
	mustFeed(t, v, snapshotOf("h", 100, 5), at(80))
	expect("back", hivebeat.Alive, "recovered")
	mustFeed(t, v, snapshotOf("h", 200, 1), at(90))
	expect("higher incarnation", hivebeat.Alive, "restarted")
	if err := feed(t, v, snapshotOf("h", 100, 6), at(91)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("superseded: %v", err)
	}
	if err := feed(t, v, snapshotOf("h", 50, 1), at(91)); hivebeat.ReasonOf(err) != hivebeat.RefusedOlder {
		t.Errorf("lower, while the higher is alive: %v", err)
	}
	bye := snapshotOf("h", 200, 2)
	bye.Bye = "maintenance"
	mustFeed(t, v, bye, at(92))
	expect("goodbye", hivebeat.Left, "left")
	if hive().cause != hivebeat.CauseGoodbye || hive().why.reason != "maintenance" {
		t.Errorf("left: %s %+v", hive().cause, hive().why)
	}
	if err := feed(t, v, snapshotOf("h", 200, 3), at(93)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("after its goodbye: %v", err)
	}
	settleChecks(v, at(1000))
	expect("who left is not lost", hivebeat.Left)
	mustFeed(t, v, snapshotOf("h", 60, 1), at(1001))
	expect("a clock that was set back", hivebeat.Alive, "restarted")
	settleChecks(v, at(1001).Add(22500*time.Millisecond))
	settleChecks(v, at(1001).Add(45*time.Second))
	expect("lost at last", hivebeat.Lost, "late", "lost")
	settleChecks(v, at(1001).Add(45*time.Second+forgetAfter))
	if len(v.hives) != 0 || len(v.order) != 0 || v.due.Len() != 0 {
		t.Errorf("not forgotten: %d hives, %d deadlines", len(v.hives), v.due.Len())
	}
}

func TestCheckBeforeVerdict(t *testing.T) {
	start := func() (*View, Check) {
		v := New(45 * time.Second)
		mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
		v.Tick(at(22.5))
		if len(v.ready.Checks) != 1 || v.hives["h"].live != hivebeat.Alive {
			t.Fatalf("%d checks, %s", len(v.ready.Checks), v.hives["h"].live)
		}
		return v, v.ready.Checks[0]
	}
	for _, c := range []struct {
		name     string
		inc, seq uint64
		want     hivebeat.Live
	}{
		{"no key", 0, 0, hivebeat.Late},
		{"as old as ours", 100, 5, hivebeat.Late},
		{"older", 100, 4, hivebeat.Late},
		{"older incarnation", 90, 50, hivebeat.Late},
		{"we missed one", 100, 6, hivebeat.Alive},
		{"we missed a restart", 101, 1, hivebeat.Alive},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, chk := start()
			v.Checked(chk, c.inc, c.seq, at(23))
			h := v.hives["h"]
			if h.live != c.want {
				t.Errorf("%s, want %s", h.live, c.want)
			}
			if age := index.EffectiveAge(0, h.received, at(23)); age != 23_000 {
				t.Errorf("its facts are shown %d ms old", age)
			}
			if c.want == hivebeat.Alive { // heard now: the deadline counts from here
				settleChecks(v, at(45.4))
				if h.live != hivebeat.Alive {
					t.Errorf("%s before its new deadline", h.live)
				}
				settleChecks(v, at(45.5))
				if h.live != hivebeat.Late {
					t.Errorf("%s after its new deadline", h.live)
				}
			}
		})
	}
	t.Run("heard meanwhile", func(t *testing.T) {
		v, chk := start()
		mustFeed(t, v, snapshotOf("h", 100, 6), at(22.8))
		v.Checked(chk, 0, 0, at(24))
		if h := v.hives["h"]; h.live != hivebeat.Alive {
			t.Errorf("%s: a late answer counted", h.live)
		}
	})
	t.Run("its content comes after its number", func(t *testing.T) {
		v, chk := start()
		v.Checked(chk, 100, 6, at(23))
		mustFeed(t, v, snapshotOf("h", 100, 6, workerOf("w")), at(23.1))
		if lives(v, "h") != "w=alive" {
			t.Errorf("workers: %s", lives(v, "h"))
		}
		if err := feed(t, v, snapshotOf("h", 100, 6), at(23.2)); err == nil {
			t.Error("taken twice")
		}
	})
}

func TestBlindTimeIsNobodysSilence(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	v.BlindFor(100 * time.Second)
	settleChecks(v, at(122.4))
	if h := v.hives["h"]; h.live != hivebeat.Alive {
		t.Fatalf("%s", h.live)
	}
	settleChecks(v, at(122.5))
	h := v.hives["h"]
	if h.live != hivebeat.Late || !strings.Contains(h.why.reason, "for 100.0s of that this queen was blind") {
		t.Errorf("%s: %s", h.live, h.why.reason)
	}
	if age := index.EffectiveAge(0, h.received, at(122.5)); age != 122_500 {
		t.Errorf("shown %d ms old", age)
	}
	settleChecks(v, at(144.9))
	if h.live != hivebeat.Late {
		t.Errorf("%s before its deadline", h.live)
	}
	settleChecks(v, at(145))
	if h.live != hivebeat.Lost {
		t.Errorf("%s after its deadline", h.live)
	}
}

func TestPages(t *testing.T) {
	v := New(45 * time.Second)
	first := snapshotOf("h", 100, 1, workersOf(6)...)
	for _, i := range []int{2, 0, 1} { // in any order
		mustFeed(t, v, pagesOf(first, 3)[i], at(0))
	}
	if n := len(v.hives["h"].workers); n != 6 || !v.hives["h"].assembly.complete() {
		t.Fatalf("%d workers", n)
	}
	if err := feed(t, v, pagesOf(first, 3)[1], at(0)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("a page twice: %v", err)
	}

	// The snapshot with seq 2 does not list w05, but its page 1 was lost: that proves nothing.
	second := snapshotOf("h", 100, 2, workersOf(5)...)
	for i := range second.Workers {
		second.Workers[i].State = hivebeat.Busy
	}
	mustFeed(t, v, pagesOf(second, 3)[0], at(1))
	mustFeed(t, v, pagesOf(second, 3)[2], at(1))
	if got := v.hives["h"].workers["w05"].rec().Live; got != hivebeat.Alive {
		t.Errorf("w05 is %s by an incomplete snapshot", got)
	}
	if got := v.hives["h"].workers["w00"].rec().State; got != hivebeat.Busy {
		t.Errorf("w00 is %s: a page is taken over as it arrives", got)
	}
	if got := v.hives["h"].workers["w02"].rec().State; got != hivebeat.Ready {
		t.Errorf("w02 is %s, of a page that never came", got)
	}
	// An old page must not overwrite newer ones.
	mustFeed(t, v, pagesOf(snapshotOf("h", 100, 3, workersOf(6)...), 3)[0], at(2))
	if err := feed(t, v, pagesOf(second, 3)[1], at(2)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("a page of an older seq: %v", err)
	}
	if err := feed(t, v, pagesOf(snapshotOf("h", 100, 3, workersOf(6)...), 2)[1], at(2)); hivebeat.ReasonOf(err) != hivebeat.RefusedLimit {
		t.Errorf("another number of pages: %v", err)
	}
	if v.incomplete != 1 {
		t.Errorf("%d incomplete snapshots counted", v.incomplete)
	}
}

func TestAbsence(t *testing.T) {
	const all = "w00=alive w01=alive w02=alive"
	for _, c := range []struct {
		name  string
		next  func() []*hivebeat.Snapshot
		want  string
		event string
		after int // seconds; 10 by default
	}{
		{"complete and warm", func() []*hivebeat.Snapshot { return pagesOf(snapshotOf("h", 100, 2, workersOf(2)...), 1) }, "w00=alive w01=alive w02=lost", "h.100.w02.2", 10},
		{"complete in pages", func() []*hivebeat.Snapshot { return pagesOf(snapshotOf("h", 100, 2, workersOf(2)...), 2) }, "w00=alive w01=alive w02=lost", "h.100.w02.2", 10},
		{"a page is missing", func() []*hivebeat.Snapshot {
			return pagesOf(snapshotOf("h", 100, 2, workersOf(2)...), 2)[:1]
		}, all, "", 10},
		{"not warm: a hive that has just begun", func() []*hivebeat.Snapshot {
			s := snapshotOf("h", 200, 1)
			s.Warm = false
			return []*hivebeat.Snapshot{s}
		}, all, "", 10},
		{"warm, of the next incarnation, before it could have missed anybody", func() []*hivebeat.Snapshot {
			return []*hivebeat.Snapshot{snapshotOf("h", 200, 3, workersOf(2)...)}
		}, all, "", 10},
		{"warm, of the next incarnation", func() []*hivebeat.Snapshot {
			return []*hivebeat.Snapshot{snapshotOf("h", 200, 1, workersOf(2)...), snapshotOf("h", 200, 3, workersOf(2)...)}
		}, "w00=alive w01=alive w02=lost", "h.200.w02.0", 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := New(45 * time.Second)
			mustFeed(t, v, snapshotOf("h", 100, 1, workersOf(3)...), at(0))
			v.ready.Events = nil
			next := c.next()
			for i, s := range next {
				when := at(float64(c.after))
				if c.after > 10 && i < len(next)-1 {
					when = at(10) // its first message
				}
				mustFeed(t, v, s, when)
				if i < len(next)-1 {
					v.ready.Events = nil
				}
			}
			if got := lives(v, "h"); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			switch {
			case c.event == "" && len(v.ready.Events) > 0:
				t.Errorf("events: %+v", v.ready.Events)
			case c.event != "":
				if len(v.ready.Events) != 1 || v.ready.Events[0].ID != c.event {
					t.Fatalf("events: %+v, want %s", v.ready.Events, c.event)
				}
				d := v.ready.Events[0].Data
				if d.Kind != hivebeat.KindLost || d.Cause != hivebeat.CauseMissed || d.Via != hivebeat.ViaQueen || d.AgeMS != hivebeat.Millis(5+c.after)*1000 {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	t.Run("gone for good", func(t *testing.T) {
		v := New(45 * time.Second)
		list := workersOf(3)
		list[1].Live, list[2].Live = hivebeat.Lost, hivebeat.Left
		list[1].Since, list[2].Since = 599_000, 599_000
		mustFeed(t, v, snapshotOf("h", 100, 2, list...), at(0))
		mustFeed(t, v, snapshotOf("h", 100, 3, list[:1]...), at(1))
		if got := lives(v, "h"); got != "w00=alive" || len(v.ready.Events) != 0 {
			t.Errorf("%s, events %+v", got, v.ready.Events)
		}
		mustFeed(t, v, snapshotOf("h", 100, 4), at(2))   // lost
		mustFeed(t, v, snapshotOf("h", 100, 5), at(602)) // and gone
		if got := lives(v, "h"); got != "" || len(v.ready.Events) != 1 {
			t.Errorf("%s, events %+v", got, v.ready.Events)
		}
	})
}

func TestTooManyWorkersAreRefused(t *testing.T) {
	v := New(45 * time.Second)
	s := snapshotOf("h", 100, 1)
	for i := range hivebeat.MaxWorkers {
		s.Workers = append(s.Workers, workerOf(fmt.Sprintf("w%d", i)))
	}
	mustFeed(t, v, s, at(0))
	more := snapshotOf("h", 100, 2, workerOf("one-more"))
	more.Pages = 2
	mustFeed(t, v, more, at(1))
	if n := len(v.hives["h"].workers); n != hivebeat.MaxWorkers || v.refused[hivebeat.RefusedFull] != 1 {
		t.Errorf("%d workers, %d refused", n, v.refused[hivebeat.RefusedFull])
	}
}

func TestRefusalsAreCountedByReason(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
	for seq := range uint64(3) {
		err := feed(t, v, snapshotOf("h", 100, seq+1), at(1))
		if !errors.Is(err, hivebeat.ErrRefused) {
			t.Errorf("%v", err)
		}
	}
	_ = feed(t, v, snapshotOf("h", 50, 1), at(1))
	if v.refused[hivebeat.RefusedStale] != 3 || v.refused[hivebeat.RefusedOlder] != 1 || v.accepted != 1 {
		t.Errorf("%v, %d accepted", v.refused, v.accepted)
	}
}

// A duplicate of a hive that was started by mistake, and ended in order, must not end the
// original.
func TestDuplicateHiveLeaves(t *testing.T) {
	v := New(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	mustFeed(t, v, snapshotOf("h", 200, 1), at(5))
	bye := snapshotOf("h", 200, 2)
	bye.Bye = "stopped"
	mustFeed(t, v, bye, at(10))
	for seq, when := uint64(2), 15.0; when <= 50; seq, when = seq+1, when+15 {
		if err := feed(t, v, snapshotOf("h", 100, seq), at(when)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Fatalf("at %v s: %v; it may still be under way, want stale", when, err)
		}
	}
	mustFeed(t, v, snapshotOf("h", 100, 9), at(60))
	if h := v.hives["h"]; h.live != hivebeat.Alive || h.line.Inc() != 100 {
		t.Errorf("%s, incarnation %d; want the one that never ended, alive", h.live, h.line.Inc())
	}
}

// A hive that restarted may not know all its workers until it is warm, and the queen says
// so. A hive that starts for the first time had none before.
func TestWarmingHivesAreCounted(t *testing.T) {
	v := New(45 * time.Second)
	hear := func(inc, seq uint64, warm bool, second float64, want int) {
		t.Helper()
		s := snapshotOf("h", inc, seq)
		s.Warm = warm
		mustFeed(t, v, s, at(second))
		v.Settle(at(second))
		if got := v.index.Totals().Warming; got != want {
			t.Errorf("after %d/%d, warm %v: %d, want %d", inc, seq, warm, got, want)
		}
		if err := verify(v, at(second)); err != nil {
			t.Error(err)
		}
	}
	hear(100, 1, false, 0, 0)
	hear(100, 2, true, 45, 0)
	hear(200, 1, false, 50, 1)
	hear(200, 2, false, 51, 1)
	hear(200, 3, true, 52, 0)
	hear(300, 1, false, 60, 1)
	v.leave(v.Hive("h"), at(61))
	v.Settle(at(61))
	if got := v.index.Totals().Warming; got != 0 {
		t.Errorf("one that left: %d", got)
	}
}
