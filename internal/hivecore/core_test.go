package hivecore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/sample"
)

// Nobody is judged by a silence until a token is back that was sent when it was over:
// the connection may be dead.
func TestASilenceIsAVerdictOnceATokenIsBack(t *testing.T) {
	r := connected(t, Config{})
	r.beat(newFake("w"))
	r.pass(44 * second)
	if len(r.tokens) > 0 {
		t.Fatalf("%d tokens before anything is due", len(r.tokens))
	}
	r.deaf = true
	r.pass(2 * second)
	r.is("w", hivebeat.Alive)
	if len(r.tokens) != 1 {
		t.Fatalf("%d tokens, want one", len(r.tokens))
	}
	r.back()
	r.is("w", hivebeat.Late)

	// One that does not come back begins a doubt: then it is never.
	r.forget()
	r.pass(10 * time.Minute)
	r.is("w", hivebeat.Late)
	if len(r.tokens) < 100 {
		t.Errorf("%d tokens in 10 minutes: they are not sent again", len(r.tokens))
	}
	if n := r.said(slog.LevelWarn, "nobody is heard, and NATS does not answer"); n != 1 {
		t.Errorf("says so %d times", n)
	}
	// The time is credited since the last proof that it hears, and 5 s more: of the 90 s
	// 44 were left then.
	r.deaf = false
	r.back()
	r.is("w", hivebeat.Late)
	r.wantRolls(hivebeat.WorkerRollSpread)
	r.pass(48 * second)
	r.is("w", hivebeat.Late)
	r.pass(2 * second)
	r.is("w", hivebeat.Lost)
}

// A beat proves as well that the hive hears, and then the others are judged at once.
func TestABeatProvesThatSilenceIsEvidence(t *testing.T) {
	r := connected(t, Config{})
	going, gone := newFake("going"), newFake("gone")
	r.beat(gone)
	r.pass(44 * second)
	r.beat(going)
	r.deaf = true
	r.pass(1200 * time.Millisecond)
	r.is("gone", hivebeat.Alive)
	r.beat(going)
	if r.wake.After(r.now) {
		t.Errorf("wants to be woken in %v, want at once", r.wake.Sub(r.now))
	}
	r.pass(0)
	r.is("gone", hivebeat.Late)
}

// Dropped messages begin a doubt: who was not heard may have been dropped.
func TestDropsAreDoubted(t *testing.T) {
	r := connected(t, Config{})
	r.beat(newFake("w"))
	r.pass(40 * second)
	r.deaf, r.dropped = true, 3
	r.pass(time.Minute)
	r.is("w", hivebeat.Alive)
	if n := r.said(slog.LevelWarn, "messages came faster"); n != 1 {
		t.Errorf("says so %d times", n)
	}
	r.deaf = false
	r.back()
	r.is("w", hivebeat.Alive)
	r.wantRolls() // the answers would come on top
	r.pass(3 * second)
	r.is("w", hivebeat.Alive)
	r.pass(4 * second) // 45 s, not counting the minute
	r.is("w", hivebeat.Late)
}

// A token proves nothing where messages were dropped before it came back.
func TestATokenDoesNotHealWhatIsDroppedBeforeItIsBack(t *testing.T) {
	r := connected(t, Config{})
	r.beat(newFake("w"))
	r.pass(40 * second)
	r.deaf, r.dropped = true, 1
	r.pass(second)
	if len(r.tokens) != 1 {
		t.Fatalf("%d tokens, want one", len(r.tokens))
	}
	r.dropped++
	r.back()
	if len(r.tokens) != 2 || r.hear.Trusts() {
		t.Fatalf("%d tokens, trusts %t: the drop that came last is believed to be healed", len(r.tokens), r.hear.Trusts())
	}
	r.back()
	if !r.hear.Trusts() {
		t.Error("does not trust itself though nothing was dropped since")
	}
}

// Drops are counted however many messages come meanwhile: that is when there are any.
func TestManyMessagesDoNotHideDrops(t *testing.T) {
	r := connected(t, Config{})
	r.deaf, r.dropped = true, 7
	f := newFake("w")
	ticks := 0
	for end := r.now.Add(3 * second); r.now.Before(end); r.now = r.now.Add(second / 100) {
		if r.beat(f); !r.wake.After(r.now) {
			ticks++
			r.Tick(r.now, r.dropped)
			r.do()
		}
	}
	if ticks < 3 || r.hear.Trusts() {
		t.Errorf("woken %d times in 3 s, trusts %t", ticks, r.hear.Trusts())
	}
}

// At the start the roll is called, and after a cut: then there is one more snapshot once
// the answers are in.
func TestRollCallAfterACut(t *testing.T) {
	r := newRig(t, Config{})
	r.down()
	if n := r.said(slog.LevelWarn, "NATS is not there yet"); n != 1 || r.Figures(r.now).Connected {
		t.Errorf("says %d times that NATS is not there", n)
	}
	r.pass(10 * second)
	r.up()
	r.wantRolls(hivebeat.WorkerRollSpread)
	if n := r.said(slog.LevelInfo, "hears workers"); n != 1 {
		t.Errorf("says %d times that it hears", n)
	}
	list := names(700)
	for _, f := range list {
		r.beat(f)
	}
	r.pass(10 * second)
	r.forget()

	r.deaf = true
	r.down()
	r.pass(time.Minute)
	r.down() // told again
	if n := r.said(slog.LevelWarn, "NATS is away"); n != 1 || r.Figures(r.now).Connected {
		t.Errorf("says %d times that NATS is away", n)
	}
	r.deaf = false
	r.up()
	r.wantUrges("reconnected")
	r.wantRolls(700 * time.Millisecond) // 1 ms for each
	r.pass(time.Second / 2)
	for _, f := range list[1:] {
		r.beat(f)
	}
	r.wantUrges()
	r.beat(list[0])
	r.wantUrges("touch")
	r.beat(list[0])
	r.pass(5 * second)
	r.wantUrges()
}

// Where not all answer it is told when the time for it is over, or by the first answer
// that comes later. While NATS is away again nobody is there to be told.
func TestAnswersAreToldOnce(t *testing.T) {
	cut := func(t *testing.T) (*rig, *fake) {
		r := connected(t, Config{})
		f := newFake("a")
		r.beat(f)
		r.beat(newFake("b"))
		r.down()
		r.pass(time.Minute)
		r.up()
		r.forget()
		return r, f
	}
	t.Run("some in time", func(t *testing.T) {
		r, f := cut(t)
		r.pass(second / 2)
		r.beat(f)
		r.wantUrges()
		r.pass(second / 4) // the spread, and the time for an answer that is on its way
		r.wantUrges("touch")
	})
	t.Run("one too late", func(t *testing.T) {
		r, f := cut(t)
		r.pass(3 * second)
		r.wantUrges()
		r.beat(f)
		r.wantUrges("touch")
	})
	t.Run("NATS is away again", func(t *testing.T) {
		r, f := cut(t)
		r.beat(f)
		r.down()
		r.pass(5 * second)
		r.wantUrges()
	})
}

// A connection that was gone for a moment is one that was gone.
func TestAConnectionThatFlapped(t *testing.T) {
	r := connected(t, Config{})
	r.deaf = true
	r.Connection(r.now, core.Connection{Up: true, Flapped: true})
	r.do()
	r.wantUrges("reconnected")
	if r.hear.Trusts() || len(r.tokens) != 1 || !r.Figures(r.now).Connected {
		t.Errorf("trusts %t, %d tokens, %+v", r.hear.Trusts(), len(r.tokens), r.Figures(r.now))
	}
}

func TestAClosedConnectionEndsTheHive(t *testing.T) {
	r := connected(t, Config{})
	r.Connection(r.now, core.Connection{Closed: true})
	r.do()
	if !r.closed || r.Figures(r.now).Connected {
		t.Errorf("closed %t, %+v", r.closed, r.Figures(r.now))
	}
}

// A hive that was stopped takes what it reads then for as old as the stop.
func TestAHiveThatWasStopped(t *testing.T) {
	r := connected(t, Config{})
	f := newFake("w")
	r.beat(f)
	r.pass(20 * second)
	r.deaf = true
	r.now = r.now.Add(time.Minute) // nothing ran
	r.beat(f)
	if age := r.record("w").Age.Duration(); age < time.Minute {
		t.Errorf("shown as %v old, and it may have waited for a minute", age)
	}
	if s := r.Figures(r.now).Stats; s.SelfPause < 60_000 || s.SelfPause > 61_000 {
		t.Errorf("self_pause %v", s.SelfPause.Duration())
	}
	r.wantRolls()
	r.deaf = false
	r.back()
	r.is("w", hivebeat.Alive)
	r.wantRolls(hivebeat.WorkerRollSpread)
	r.beat(f)
	if age := r.record("w").Age; age != 0 {
		t.Errorf("%d ms old, and the hive hears again", age)
	}
}

// A batch is several beats before one Ready, which then says everything.
func TestABatch(t *testing.T) {
	r := connected(t, Config{NS: "boot/4026531836", PID: 1, PushFacts: second})
	a, b := newFake("a"), newFake("b")
	r.beat(a)
	r.pass(2 * second)
	r.forget()
	a.Busy++
	for _, msg := range [][]byte{a.Next(t), b.Next(t), []byte("garbage")} {
		r.Beat(r.now, subject, msg)
	}
	a.State = hivebeat.Stopped
	r.Beat(r.now, subject+".a", a.Next(t))
	r.do()
	r.wantUrges("changed", "ended", "touch")
	if len(r.steps) != 2 || r.steps[0].Worker != "b" || r.steps[1].To != "left" {
		t.Errorf("steps %+v", r.steps)
	}
	if len(r.watches) != 2 || r.watches[0].Worker != "b" || !r.watches[1].Stop {
		t.Errorf("watches %+v", r.watches)
	}
	if n := r.said(slog.LevelInfo, "worker verdict"); n != len(r.steps) {
		t.Errorf("%d lines for %d steps", n, len(r.steps))
	}
	r.forget()
	r.do()
	if len(r.steps)+len(r.urges)+len(r.watches)+len(r.logs) > 0 {
		t.Errorf("all is told again: %+v", r)
	}
}

func TestRefusals(t *testing.T) {
	r := connected(t, Config{})
	f := newFake("w")
	r.beat(f)
	for range 5 {
		if r.Beat(r.now, subject+".other", f.Next(t)) {
			t.Error("a beat of another worker is accepted")
		}
		r.Refused(r.now, "queen.rollcall", &hivebeat.Refusal{Reason: hivebeat.RefusedMalformed})
		r.Beat(r.now, subject, []byte("garbage"))
		f.Seq = 0
		r.beat(f) // stale
	}
	r.do()
	got := r.Figures(r.now)
	want := map[hivebeat.Reason]uint64{hivebeat.RefusedForeign: 5, hivebeat.RefusedMalformed: 10, hivebeat.RefusedStale: 5}
	if fmt.Sprint(got.Reasons) != fmt.Sprint(want) || got.Stats.Stale != 5 || got.Stats.Refused != 15 {
		t.Errorf("refused %v, %+v, want %v", got.Reasons, got.Stats, want)
	}
	if n := r.said(slog.LevelWarn, "messages refused"); n != 2 { // one for each reason but stale
		t.Errorf("%d lines", n)
	}
	if n := r.said(slog.LevelDebug, "message refused"); n != 20 {
		t.Errorf("%d lines for debugging", n)
	}
	r.pass(core.LogAgain)
	r.forget()
	r.Beat(r.now, subject, []byte("garbage"))
	r.do()
	last := r.logs[len(r.logs)-1]
	if text := fmt.Sprint(last.Attrs); last.Level != slog.LevelWarn || !strings.Contains(text, "count=10") || !strings.Contains(text, "err=") {
		t.Errorf("a minute later: %v", last)
	}
}

func TestRollCallsOfQueens(t *testing.T) {
	r := connected(t, Config{})
	r.RollCall(r.now, 2*second)
	r.RollCall(r.now, second)
	r.RollCall(r.now, 3*second)
	r.do()
	if r.wantUrges("answer"); r.spread != second {
		t.Errorf("answers within %v", r.spread)
	}
	r.RollCall(r.now, 0)
	r.do()
	if r.wantUrges("answer"); r.spread != 0 {
		t.Errorf("answers within %v", r.spread)
	}
}

func TestFactsArePushedAtTheirPace(t *testing.T) {
	const pace = 1300 * time.Millisecond
	for _, push := range []time.Duration{0, pace} {
		r := connected(t, Config{PushFacts: push})
		f := newFake("w")
		r.beat(f)
		r.pass(10 * second)
		r.forget()
		told := func(want int) {
			t.Helper()
			if push == 0 {
				want = 0
			}
			if len(r.urges) != want {
				t.Errorf("push %v: %v, want %d", push, r.urges, want)
			}
		}
		for range 3 {
			f.Busy++
			r.beat(f)
			told(1)
			f.Busy++
			r.beat(f)
			r.pass(pace - 1)
			told(1)
			r.pass(1) // the second change
			told(2)
			r.pass(10 * second)
			told(2)
			r.forget()
		}
	}
}

func TestExits(t *testing.T) {
	r := connected(t, Config{NS: "boot/4026531836", PID: 1})
	f := newFake("w")
	r.beat(f)
	if len(r.watches) != 1 || r.watches[0].PID != f.PID {
		t.Fatalf("watches %+v", r.watches)
	}
	r.forget()
	r.deaf = true // the kernel needs no NATS
	r.down()
	r.Exited(r.now, []detector.Exit{{Process: r.watchedProcess(f), At: r.now}})
	r.do()
	r.is("w", hivebeat.Lost)
	r.wantUrges("ended")
	r.Exited(r.now, []detector.Exit{{Process: r.watchedProcess(f), At: r.now}})
	r.do()
	r.wantUrges()

	for name, cfg := range map[string]Config{"no namespace": {PID: 1}, "no watch": {NS: f.NS}, "its own": {NS: f.NS, PID: f.PID}} {
		r := connected(t, cfg)
		if r.beat(newFake("w")); len(r.watches) > 0 {
			t.Errorf("%s: watches %+v", name, r.watches)
		}
		if n := len(r.Pids()) + len(r.Running()); cfg.NS == "" && n != 0 || cfg.NS != "" && n != 2 {
			t.Errorf("%s: %d processes of its namespace", name, n)
		}
	}
}

func (r *rig) watchedProcess(f *fake) detector.Process {
	return detector.Process{Worker: f.Worker, Inc: f.Inc, PID: f.PID}
}

func closedConn(f *fake) liveness.Disconnect {
	return liveness.Disconnect{Server: "NDXS", Conn: f.Conn, Reason: "Client Closed", Evidence: true}
}

// A worker whose connection closed is asked before its window is over, and a beat over
// the closed connection saves it only if it cannot have been on its way.
func TestAConnectionOfAWorkerCloses(t *testing.T) {
	t.Run("lost", func(t *testing.T) {
		r := connected(t, Config{})
		r.beat(newFake("w"))
		r.forget()
		r.Closed(r.now, closedConn(newFake("w")))
		r.do()
		if r.settles != 1 {
			t.Fatalf("%d asks whether all has come in", r.settles)
		}
		r.pass(liveness.FastWindow - liveness.AskBefore)
		r.wantRolls(hivebeat.WorkerRollSpread)
		r.pass(liveness.AskBefore - 1)
		r.is("w", hivebeat.Alive)
		r.pass(1)
		r.is("w", hivebeat.Lost)
		r.wantUrges("ended")
		r.wantRolls()
	})
	t.Run("on its way", func(t *testing.T) {
		r := connected(t, Config{})
		f := newFake("w")
		r.beat(f)
		r.deaf = true
		r.Closed(r.now, closedConn(f))
		r.do()
		r.beat(f) // was sent before
		r.deaf = false
		r.pass(liveness.FastWindow)
		r.is("w", hivebeat.Lost)
	})
	t.Run("settled", func(t *testing.T) {
		r := connected(t, Config{})
		f := newFake("w")
		r.beat(f)
		r.Closed(r.now, closedConn(f))
		r.do()
		r.beat(f) // after the token of the hive: so it was sent later
		r.pass(liveness.FastWindow)
		r.is("w", hivebeat.Alive)
	})
	t.Run("settled anew", func(t *testing.T) {
		r := connected(t, Config{})
		a, b := newFake("a"), newFake("b")
		b.Conn = "NDXS/18"
		r.beat(a)
		r.beat(b)
		r.deaf = true
		r.Closed(r.now, closedConn(a))
		r.do()
		r.now = r.now.Add(1)
		r.Closed(r.now, closedConn(b)) // while the first is not answered
		r.do()
		if r.settles != 1 {
			t.Fatalf("%d asks at a time", r.settles)
		}
		r.Settled(r.now)
		r.do()
		r.beat(b) // not settled yet
		if r.settles != 2 {
			t.Fatalf("%d asks, want one for each", r.settles)
		}
		r.Settled(r.now)
		r.Settled(r.now) // too many of it mean nothing
		r.do()
		r.beat(a)
		r.deaf = false
		r.pass(liveness.FastWindow)
		r.is("a", hivebeat.Alive)
		r.is("b", hivebeat.Lost)
	})
	for name, cut := range map[string]func(r *rig){
		"the system connection is gone": func(r *rig) { r.System(r.now, false); r.System(r.now, true) },
		"cut off itself":                func(r *rig) { r.down(); r.up() },
		"many close at once": func(r *rig) {
			for i := range liveness.MassDisconnects {
				f := newFake("")
				f.Conn = fmt.Sprint("NDXS/9", i)
				r.Closed(r.now, closedConn(f))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := connected(t, Config{})
			f := newFake("w")
			r.beat(f)
			r.Closed(r.now, closedConn(f))
			cut(r)
			r.do()
			r.pass(10 * second)
			r.is("w", hivebeat.Alive)
		})
	}
}

// The roll is called once in a while for those whose window is about to end, and not
// where very many would answer.
func TestAskingThoseWhoMayBeBack(t *testing.T) {
	for _, many := range []int{10, askMost, askMost + 1} {
		r := connected(t, Config{})
		list := names(many)
		for i, f := range list {
			f.Conn = fmt.Sprint("NDXS/", i)
			r.beat(f)
		}
		r.forget()
		for _, f := range list[:3] { // one a second
			r.Closed(r.now, closedConn(f))
			r.do()
			r.pass(second)
		}
		r.pass(3 * second)
		if many > askMost {
			r.wantRolls()
		} else {
			r.wantRolls(hivebeat.WorkerRollSpread)
		}
		r.pass(2 * second)
		r.forget()
		r.Closed(r.now, closedConn(list[3]))
		r.do()
		r.pass(3 * second)
		if many <= askMost {
			r.wantRolls(hivebeat.WorkerRollSpread)
		}
	}
}

// The last snapshot that a queen kept is worth something if it is whole, and of a hive
// that was warm.
func TestRecall(t *testing.T) {
	page := func(n, of uint64, change func(*hivebeat.Snapshot)) []byte {
		lost := sample.Record(fmt.Sprint("lost", n))
		lost.Live, lost.Cause = hivebeat.Lost, hivebeat.CauseMissed
		s := sample.Snapshot(sample.Hive, 1, 9, sample.Record(fmt.Sprint("w", n)), lost)
		s.Page, s.Pages = n, of
		if change != nil {
			change(s)
		}
		return sample.Encode(t, s)
	}
	for _, c := range []struct {
		name  string
		pages [][]byte
		taken bool
	}{
		{"one page", [][]byte{page(0, 1, nil)}, true},
		{"two pages", [][]byte{page(0, 2, nil), page(1, 2, nil)}, true},
		{"the second is missing", [][]byte{page(0, 2, nil)}, false},
		{"the first is missing", [][]byte{page(1, 2, nil), page(0, 2, nil)}, false},
		{"not warm", [][]byte{page(0, 1, func(s *hivebeat.Snapshot) { s.Warm = false })}, false},
		{"of another hive", [][]byte{page(0, 1, func(s *hivebeat.Snapshot) { s.Hive = "other" })}, false},
		{"of two snapshots", [][]byte{page(0, 2, nil), page(1, 2, func(s *hivebeat.Snapshot) { s.Seq++ })}, false},
		{"of two lives", [][]byte{page(0, 2, nil), page(1, 2, func(s *hivebeat.Snapshot) { s.Inc++ })}, false},
		{"of another number of pages", [][]byte{page(0, 2, nil), page(1, 3, nil)}, false},
		{"garbage", [][]byte{{0xdf, 0xff, 0xff, 0xff, 0xff}}, false},
		{"good after garbage", [][]byte{{}, page(0, 1, nil)}, false},
	} {
		r := newRig(t, Config{})
		for i, p := range c.pages {
			more := r.Recall(p)
			if last := i == len(c.pages)-1; more && last && c.name != "the second is missing" || !more && !last && c.taken {
				t.Errorf("%s: wants more after page %d: %t", c.name, i, more)
			}
		}
		r.up()
		if n := r.said(slog.LevelInfo, "knows its last snapshot"); (n == 1) != c.taken {
			t.Errorf("%s: taken %d times, want %t", c.name, n, c.taken)
		}
		for i := range c.pages {
			if r.Figures(r.now).Warm {
				t.Errorf("%s: warm before all were heard", c.name)
			}
			r.beat(newFake(fmt.Sprint("w", i)))
		}
		if warm := r.Figures(r.now).Warm; warm != c.taken {
			t.Errorf("%s: warm %t, want %t", c.name, warm, c.taken)
		}
		r.pass(detector.WarmAfter)
		if !r.Figures(r.now).Warm {
			t.Errorf("%s: not warm after %v", c.name, detector.WarmAfter)
		}
	}
}

// A snapshot has a number also where it cannot be sent.
func TestSnapshotsAreNumbered(t *testing.T) {
	r := connected(t, Config{})
	r.beat(newFake("b"))
	r.beat(newFake("a"))
	r.Number()
	r.Number()
	var s hivebeat.Snapshot
	r.Fill(r.now, &s)
	if s.Seq != 2 || len(s.Workers) != 2 || s.Workers[0].Worker != "a" || s.Stats.Beats != 2 || s.Warm {
		t.Errorf("%+v", s)
	}
	lives, states := r.Mix()
	if lives[hivebeat.Alive] != 2 || states[hivebeat.Ready] != 2 {
		t.Errorf("%v, %v", lives, states)
	}
}

// Whatever comes, in whatever order: the core wants to be woken later than now, and
// within liveness.LookEvery; and nobody is given up for silence while it does not hear.
func TestAnyInputs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(nil, Config{NS: "boot/4026531836", PID: 1, PushFacts: second, StallAfter: 20 * second})
		list := names(4)
		for i, f := range list {
			f.Every = hivebeat.MillisOf(time.Duration(1+i) * second)
			f.Conn = fmt.Sprint("NDXS/", i)
		}
		any1 := rapid.IntRange(0, len(list)-1)
		bytes := func(f *fake) []byte {
			f.Seq++
			return encode(t, f)
		}
		inputs := map[string]func(*rapid.T){
			"beat": func(t *rapid.T) { r.Beat(r.now, subject, bytes(list[any1.Draw(t, "who")])) },
			"batch": func(t *rapid.T) {
				for _, f := range list {
					r.Beat(r.now, subject, bytes(f))
				}
			},
			"garbage": func(*rapid.T) { r.Beat(r.now, subject, []byte("x")) },
			"call":    func(*rapid.T) { r.RollCall(r.now, second) },
			"refused": func(*rapid.T) { r.Refused(r.now, "x", errors.New("x")) },
			"exit": func(t *rapid.T) {
				f := list[any1.Draw(t, "who")]
				r.Exited(r.now, []detector.Exit{{Process: r.watchedProcess(f), At: r.now}})
			},
			"drop":   func(*rapid.T) { r.dropped++ },
			"up":     func(*rapid.T) { r.Connection(r.now, core.Connection{Up: true}) },
			"down":   func(*rapid.T) { r.Connection(r.now, core.Connection{Unnoticed: 30 * second}) },
			"flap":   func(*rapid.T) { r.Connection(r.now, core.Connection{Up: true, Flapped: true}) },
			"system": func(t *rapid.T) { r.System(r.now, rapid.Bool().Draw(t, "up")) },
			"closed": func(t *rapid.T) { r.Closed(r.now, closedConn(list[any1.Draw(t, "who")])) },
			"settle": func(*rapid.T) { r.Settled(r.now) },
			"deaf":   func(*rapid.T) { r.deaf = !r.deaf },
			"token": func(*rapid.T) {
				if len(r.tokens) > 0 {
					r.back()
				}
			},
			"time": func(t *rapid.T) {
				r.now = r.now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			},
		}
		for name, f := range inputs {
			inputs[name] = func(t *rapid.T) {
				f(t)
				r.do()
			}
		}
		inputs[""] = func(t *rapid.T) {
			hears := r.hear.Trusts()
			r.forgetSteps()
			r.Tick(r.now, r.dropped)
			r.do()
			if !r.wake.After(r.now) || r.wake.After(r.now.Add(liveness.LookEvery)) {
				t.Fatalf("wants to be woken in %v", r.wake.Sub(r.now))
			}
			for _, s := range r.steps {
				if s.Cause == hivebeat.CauseMissed && !hears && r.deaf {
					t.Fatalf("judged while it did not hear: %+v", s)
				}
			}
		}
		t.Repeat(inputs)
	})
}

func (r *rig) forgetSteps() { r.steps = nil }

// steady is a core with n workers, and beats of them that change nothing.
func steady(t testing.TB, n int) (c *Core, beat func()) {
	c = New(Config{ID: sample.Hive, Subject: subject, NS: "boot/1", PID: 1, PushFacts: second})
	now := time.Now()
	c.Connection(now, core.Connection{Up: true})
	msgs, seqs := make([][]byte, n), make([][]byte, n)
	for i, f := range names(n) {
		f.Seq = 1 << 40
		msgs[i] = f.Next(t)
		at := strings.Index(string(msgs[i]), "\xa3seq\xcf") + 5
		seqs[i] = msgs[i][at : at+8]
		c.Beat(now, subject, msgs[i])
	}
	c.Tick(now, 0)
	c.Ready()
	seq, i := uint64(1<<40)+1, 0
	return c, func() {
		if i%n == 0 {
			seq++
		}
		binary.BigEndian.PutUint64(seqs[i%n], seq)
		now = now.Add(sample.Every / time.Duration(n+1))
		if !c.Beat(now, subject, msgs[i%n]) {
			t.Fatal("refused")
		}
		i++
	}
}

func TestAnUnchangedBeatAllocatesNothing(t *testing.T) {
	c, beat := steady(t, 100)
	if n := testing.AllocsPerRun(10_000, func() { beat(); c.Ready() }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// BenchmarkBeat is one beat through the core, Ready included.
func BenchmarkBeat(b *testing.B) {
	for _, n := range []int{100, 1000, hivebeat.MaxWorkers} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) {
			c, beat := steady(b, n)
			b.ReportAllocs()
			for b.Loop() {
				beat()
				if r := c.Ready(); len(r.Steps) > 0 {
					b.Fatalf("not a steady state: %+v", r.Steps)
				}
			}
		})
	}
}
