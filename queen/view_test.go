package queen

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

func mustFeed(t testing.TB, v *view, s *hivebeat.Snapshot, now time.Time) {
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

// lives returns "w1=alive w2=lost", by what the records say.
func lives(v *view, hive string) string {
	var b strings.Builder
	for _, w := range v.hives[hive].byID() {
		fmt.Fprintf(&b, "%s=%s ", w.rec.Worker, w.rec.Live)
	}
	return strings.TrimSpace(b.String())
}

func TestVerdictsOfOneHive(t *testing.T) {
	v := newView(45 * time.Second)
	hive := func() *hive { return v.hives["h"] }
	steps := func() (s []string) {
		for _, x := range v.steps {
			s = append(s, string(x.kind))
		}
		v.steps = nil
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
	start := func() (*view, check) {
		v := newView(45 * time.Second)
		mustFeed(t, v, snapshotOf("h", 100, 5), at(0))
		v.tick(at(22.5))
		if len(v.checks) != 1 || v.hives["h"].live != hivebeat.Alive {
			t.Fatalf("%d checks, %s", len(v.checks), v.hives["h"].live)
		}
		return v, v.checks[0]
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
			v.checked(chk, c.inc, c.seq, at(23))
			h := v.hives["h"]
			if h.live != c.want {
				t.Errorf("%s, want %s", h.live, c.want)
			}
			if age := v.hiveInfo(h, at(23)).Age; age != 23_000 {
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
		v.checked(chk, 0, 0, at(24))
		if h := v.hives["h"]; h.live != hivebeat.Alive {
			t.Errorf("%s: a late answer counted", h.live)
		}
	})
	t.Run("its content comes after its number", func(t *testing.T) {
		v, chk := start()
		v.checked(chk, 100, 6, at(23))
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
	v := newView(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1), at(0))
	v.blindFor(100 * time.Second)
	settleChecks(v, at(122.4))
	if h := v.hives["h"]; h.live != hivebeat.Alive {
		t.Fatalf("%s", h.live)
	}
	settleChecks(v, at(122.5))
	h := v.hives["h"]
	if h.live != hivebeat.Late || !strings.Contains(h.why.reason, "for 100.0s of that this queen was cut off") {
		t.Errorf("%s: %s", h.live, h.why.reason)
	}
	if age := v.hiveInfo(h, at(122.5)).Age; age != 122_500 {
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
	v := newView(45 * time.Second)
	first := snapshotOf("h", 100, 1, workersOf(6)...)
	for _, i := range []int{2, 0, 1} { // in any order
		mustFeed(t, v, pagesOf(first, 3)[i], at(0))
	}
	if n := len(v.hives["h"].workers); n != 6 || !v.hives["h"].asm.complete() {
		t.Fatalf("%d workers", n)
	}
	if err := feed(t, v, pagesOf(first, 3)[1], at(0)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
		t.Errorf("a page twice: %v", err)
	}

	// Seq 2 has lost w05 and, on the wire, its page 1: that proves nothing.
	second := snapshotOf("h", 100, 2, workersOf(5)...)
	for i := range second.Workers {
		second.Workers[i].State = hivebeat.Busy
	}
	mustFeed(t, v, pagesOf(second, 3)[0], at(1))
	mustFeed(t, v, pagesOf(second, 3)[2], at(1))
	if got := v.hives["h"].workers["w05"].rec.Live; got != hivebeat.Alive {
		t.Errorf("w05 is %s by an incomplete snapshot", got)
	}
	if got := v.hives["h"].workers["w00"].rec.State; got != hivebeat.Busy {
		t.Errorf("w00 is %s: a page is taken over as it arrives", got)
	}
	if got := v.hives["h"].workers["w02"].rec.State; got != hivebeat.Ready {
		t.Errorf("w02 is %s, of a page that never came", got)
	}
	// An old page must not go over newer ones.
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
	}{
		{"complete and warm", func() []*hivebeat.Snapshot { return pagesOf(snapshotOf("h", 100, 2, workersOf(2)...), 1) }, "w00=alive w01=alive w02=lost", "h.100.w02.2"},
		{"complete in pages", func() []*hivebeat.Snapshot { return pagesOf(snapshotOf("h", 100, 2, workersOf(2)...), 2) }, "w00=alive w01=alive w02=lost", "h.100.w02.2"},
		{"a page is missing", func() []*hivebeat.Snapshot {
			return pagesOf(snapshotOf("h", 100, 2, workersOf(2)...), 2)[:1]
		}, all, ""},
		{"not warm: a hive that has just begun", func() []*hivebeat.Snapshot {
			s := snapshotOf("h", 200, 1)
			s.Warm = false
			return []*hivebeat.Snapshot{s}
		}, all, ""},
		{"warm, of the next incarnation", func() []*hivebeat.Snapshot {
			return []*hivebeat.Snapshot{snapshotOf("h", 200, 3, workersOf(2)...)}
		}, "w00=alive w01=alive w02=lost", "h.200.w02.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newView(45 * time.Second)
			mustFeed(t, v, snapshotOf("h", 100, 1, workersOf(3)...), at(0))
			v.events = nil
			for _, s := range c.next() {
				mustFeed(t, v, s, at(10))
			}
			if got := lives(v, "h"); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			switch {
			case c.event == "" && len(v.events) > 0:
				t.Errorf("events: %+v", v.events)
			case c.event != "":
				if len(v.events) != 1 || v.events[0].id != c.event {
					t.Fatalf("events: %+v, want %s", v.events, c.event)
				}
				d := v.events[0].data
				if d.Kind != hivebeat.KindLost || d.Cause != hivebeat.CauseMissed || d.Via != hivebeat.ViaQueen || d.AgeMS != 15_000 {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	t.Run("gone for good", func(t *testing.T) {
		v := newView(45 * time.Second)
		list := workersOf(3)
		list[1].Live, list[2].Live = hivebeat.Lost, hivebeat.Left
		mustFeed(t, v, snapshotOf("h", 100, 2, list...), at(0))
		mustFeed(t, v, snapshotOf("h", 100, 3, list[:1]...), at(1))
		if got := lives(v, "h"); got != "w00=alive" || len(v.events) != 0 {
			t.Errorf("%s, events %+v", got, v.events)
		}
		mustFeed(t, v, snapshotOf("h", 100, 4), at(2)) // lost
		mustFeed(t, v, snapshotOf("h", 100, 5), at(3)) // and gone
		if got := lives(v, "h"); got != "" || len(v.events) != 1 {
			t.Errorf("%s, events %+v", got, v.events)
		}
	})
}

func TestTooManyWorkersAreRefused(t *testing.T) {
	v := newView(45 * time.Second)
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

func TestAgesAreEffective(t *testing.T) {
	v := newView(45 * time.Second)
	s := snapshotOf("h", 100, 1, workerOf("w"))
	s.GPUs = []hivebeat.GPU{{UUID: "g", Total: 80, Used: 50, Ours: 30, Age: 2000}}
	s.Workers[0].Tr = []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, Inc: 7, Ago: 1000}}
	mustFeed(t, v, s, at(0))
	ask := func(sec float64) (WorkerInfo, HiveInfo, Summary) {
		a := v.answer(VerbWorker, Request{Hive: "h", Worker: "w"}, at(sec))
		b := v.answer(VerbHive, Request{Hive: "h"}, at(sec))
		c := v.answer(VerbSummary, Request{}, at(sec))
		if len(a.Workers) != 1 || len(b.Hives) != 1 || c.Summary == nil {
			t.Fatalf("%+v %+v %+v", a, b, c)
		}
		return a.Workers[0], b.Hives[0], *c.Summary
	}
	w, h, sum := ask(40) // 5 s old when it was received
	if w.Age != 45_000 || !w.Fresh || w.Live != hivebeat.Alive || w.Since != 140_000 || w.Tr[0].Ago != 41_000 || w.Zone != "eu" || w.Via != "hive" {
		t.Errorf("at 40 s: %+v", w)
	}
	if h.Age != 40_000 || !h.Fresh || h.GPUs[0].Age != 42_000 || h.Workers[hivebeat.Alive] != 1 {
		t.Errorf("at 40 s: %+v", h)
	}
	if sum.Workers[hivebeat.Alive] != 1 || sum.States[hivebeat.Ready] != 1 || sum.VRAMTotal != 80 || sum.VRAMUsed != 50 || sum.VRAMOurs != 30 || sum.GPUs != 1 {
		t.Errorf("at 40 s: %+v", sum)
	}
	steps := len(v.steps)
	w, h, sum = ask(40.001)
	if w.Age != 45_001 || w.Fresh || w.Live != hivebeat.Late || h.Workers[hivebeat.Late] != 1 || sum.Workers[hivebeat.Late] != 1 || len(sum.States) != 0 {
		t.Errorf("past 45 s: %+v %+v %+v", w, h, sum)
	}
	if len(v.steps) != steps || len(v.events) != 0 && v.events[0].data.Kind != hivebeat.KindJoined {
		t.Errorf("that was a transition: %v %v", v.steps, v.events)
	}
	_, h, sum = ask(45.001)
	if h.Fresh || sum.VRAMTotal != 0 {
		t.Errorf("facts past 45 s are used: %+v %+v", h, sum)
	}
	if v.hives["h"].head.GPUs[0].Age != 2000 || v.hives["h"].workers["w"].rec.Tr[0].Ago != 1000 {
		t.Error("an answer changed the view")
	}
	mustFeed(t, v, snapshotOf("h", 100, 2, workerOf("w")), at(46))
	bye := snapshotOf("h", 100, 3, workerOf("w"))
	bye.Bye = "bye"
	mustFeed(t, v, bye, at(47))
	if w, _, _ := ask(47); w.Live != hivebeat.Late {
		t.Errorf("the hive left, and its worker is shown as %s", w.Live)
	}
}

func TestUnknownWordsAreKept(t *testing.T) {
	v := newView(45 * time.Second)
	w := workerOf("w")
	w.Live, w.Cause, w.State = "zombie", "moon", "dreaming"
	mustFeed(t, v, snapshotOf("h", 100, 1, w), at(0))
	got := v.answer(VerbWorker, Request{Hive: "h", Worker: "w"}, at(1)).Workers[0]
	if got.Live != "zombie" || got.Cause != "moon" || got.State != "dreaming" {
		t.Errorf("%+v", got)
	}
	if s := v.summary(at(1)); s.Workers[hivebeat.Late] != 1 || len(s.Workers) != 1 || len(s.States) != 0 {
		t.Errorf("counted as %+v", s)
	}
}

func TestRequests(t *testing.T) {
	v := newView(45 * time.Second)
	for i := range 5 {
		mustFeed(t, v, snapshotOf(fmt.Sprintf("h%d", i), 100, 1, workersOf(i)...), at(0))
	}
	for _, c := range []struct {
		verb string
		req  Request
		code string
	}{
		{"nonsense", Request{}, CodeBadRequest},
		{VerbHive, Request{}, CodeBadRequest},
		{VerbHive, Request{Hive: "a b"}, CodeBadRequest},
		{VerbHive, Request{Hive: "h9"}, CodeNotFound},
		{VerbWorker, Request{Hive: "h1"}, CodeBadRequest},
		{VerbWorker, Request{Hive: "h1", Worker: "w09"}, CodeNotFound},
		{VerbWorkers, Request{Hive: "h9"}, CodeNotFound},
		{VerbWorkers, Request{Limit: 1001}, CodeBadRequest},
		{VerbWorkers, Request{Limit: -1}, CodeBadRequest},
		{VerbWorkers, Request{After: "h1/w 1"}, CodeBadRequest},
	} {
		if a := v.answer(c.verb, c.req, at(1)); a.Error == nil || a.Error.Code != c.code || a.Error.Message == "" {
			t.Errorf("%s %+v: %+v", c.verb, c.req, a.Error)
		}
	}
	for limit := range 12 {
		var got []string
		for req := (Request{Limit: limit}); ; {
			a := v.answer(VerbWorkers, req, at(1))
			for _, w := range a.Workers {
				got = append(got, w.Hive+"/"+w.Worker)
			}
			if req.After = a.Next; a.Next == "" {
				break
			}
		}
		if len(got) != 10 || !slices.IsSorted(got) {
			t.Errorf("by %d: %v", limit, got)
		}
		got = nil
		for req := (Request{Limit: limit}); ; {
			a := v.answer(VerbHives, req, at(1))
			for _, h := range a.Hives {
				got = append(got, h.Hive)
			}
			if req.After = a.Next; a.Next == "" {
				break
			}
		}
		if !slices.Equal(got, []string{"h0", "h1", "h2", "h3", "h4"}) {
			t.Errorf("by %d: %v", limit, got)
		}
	}
	if a := v.answer(VerbWorkers, Request{Hive: "h3", After: "h3/w00"}, at(1)); len(a.Workers) != 2 || a.Workers[0].Worker != "w01" || a.Next != "" {
		t.Errorf("of one hive: %+v", a)
	}
}

func TestRefusalsAreCountedByReason(t *testing.T) {
	v := newView(45 * time.Second)
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

// A hive that was started a second time by mistake, and ended in order, must not
// take the one it doubled along.
func TestDuplicateHiveLeaves(t *testing.T) {
	v := newView(45 * time.Second)
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

// What a record is shown as late for began when it was shown so, not when its
// hive last called it alive.
func TestSinceOfWhatIsShownLate(t *testing.T) {
	v := newView(45 * time.Second)
	mustFeed(t, v, snapshotOf("h", 100, 1, workerOf("w")), at(0)) // alive for 100 s, heard 5 s ago
	settleChecks(v, at(22.5))
	settleChecks(v, at(45))
	w := v.answer(VerbWorker, Request{Hive: "h", Worker: "w"}, at(55)).Workers[0]
	if w.Live != hivebeat.Late || w.Since != 15_000 {
		t.Errorf("%s for %d ms, want late for the 15 s that it has been too old", w.Live, w.Since)
	}
	w = v.answer(VerbWorker, Request{Hive: "h", Worker: "w"}, at(42)).Workers[0]
	if w.Since > 45_000 {
		t.Errorf("late for %d ms", w.Since)
	}
}

// A queen that began after a hive was given up knows who was on it.
func TestRosterRemembersWorkers(t *testing.T) {
	v := newView(45 * time.Second)
	v.learn("h", ledger.RosterItem{Revision: 1, Stored: time.Minute, RosterEntry: ledger.RosterEntry{
		V: 1, N: 3, Live: hivebeat.Lost, Cause: hivebeat.CauseMissed, Inc: 100, Seq: 9, Every: 15000,
		Workers: map[string]ledger.RosterWorker{
			"w": {Inc: 7, Live: hivebeat.Alive, State: hivebeat.Ready, Model: "llama"}, "gone": {Inc: 8, Live: hivebeat.Left},
		},
	}}, at(0))
	a := v.answer(VerbWorkers, Request{}, at(1))
	if len(a.Workers) != 2 {
		t.Fatalf("%d workers, want 2", len(a.Workers))
	}
	w := a.Workers[1]
	if w.Worker != "w" || w.Live != hivebeat.Late || w.Fresh || w.Age < 105_000 || w.Model != "llama" {
		t.Errorf("%+v; want it late, and older than its hive has been lost", w)
	}
	if h := v.answer(VerbHive, Request{Hive: "h"}, at(1)).Hives[0]; h.Live != hivebeat.Lost || h.Since < 60_000 {
		t.Errorf("hive %s for %d ms, want lost for a minute", h.Live, h.Since)
	}
	if s := v.summary(at(1)); s.Workers[hivebeat.Late] != 1 || s.Workers[hivebeat.Left] != 1 {
		t.Errorf("counted %v", s.Workers)
	}
}
