package hivecore

import (
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
)

// No worker is judged by silence until a token that was sent after its deadline is
// back: the connection may be dead.
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

	// A token that does not come back begins a doubt, and the verdict must wait.
	r.forget()
	r.pass(10 * time.Minute)
	r.is("w", hivebeat.Late)
	if len(r.tokens) < 100 {
		t.Errorf("%d tokens in 10 minutes: they are not sent again", len(r.tokens))
	}
	if n := r.said(slog.LevelWarn, "no messages arrive, and NATS does not answer"); n != 1 {
		t.Errorf("says so %d times", n)
	}
	// The credit is the time since the last proof that messages reach the hive, plus
	// 5 s: the worker had 44 of its 90 s left at that proof.
	r.deaf = false
	r.back()
	r.is("w", hivebeat.Late)
	r.wantRolls(hivebeat.WorkerRollSpread)
	r.pass(48 * second)
	r.is("w", hivebeat.Late)
	r.pass(2 * second)
	r.is("w", hivebeat.Lost)
}

// A beat proves as well that messages reach the hive, so the other workers are judged
// at once.
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

// Dropped messages begin a doubt: the beat of a silent worker may have been dropped.
func TestDropsAreDoubted(t *testing.T) {
	r := connected(t, Config{})
	r.beat(newFake("w"))
	r.pass(40 * second)
	r.deaf, r.dropped = true, 3
	r.pass(time.Minute)
	r.is("w", hivebeat.Alive)
	if n := r.said(slog.LevelWarn, "messages arrived faster"); n != 1 {
		t.Errorf("says so %d times", n)
	}
	r.deaf = false
	r.back()
	r.is("w", hivebeat.Alive)
	r.wantRolls() // the answers would only add to the load
	r.pass(3 * second)
	r.is("w", hivebeat.Alive)
	r.pass(4 * second) // 45 s, without the minute
	r.is("w", hivebeat.Late)
}

// A token proves nothing if messages were dropped before it came back.
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

// Drops are counted even while many messages arrive, which is when they happen.
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

// The hive calls the roll at the start and after a cut. After a cut, one more snapshot
// follows once the answers have arrived.
func TestRollCallAfterACut(t *testing.T) {
	r := newRig(t, Config{})
	r.down()
	if n := r.said(slog.LevelWarn, "NATS is not available yet"); n != 1 || r.Figures(r.now).Connected {
		t.Errorf("says %d times that NATS is not available", n)
	}
	r.pass(10 * second)
	r.up()
	r.wantRolls(hivebeat.WorkerRollSpread)
	if n := r.said(slog.LevelInfo, "listening to workers"); n != 1 {
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
	r.down() // reported again
	if n := r.said(slog.LevelWarn, "NATS is away"); n != 1 || r.Figures(r.now).Connected {
		t.Errorf("says %d times that NATS is away", n)
	}
	r.deaf = false
	r.up()
	r.wantUrges("reconnected")
	r.wantRolls(700 * time.Millisecond) // 1 ms per worker
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

// If some answers are missing, the snapshot follows when the time for them is over, or
// with the first later answer. While NATS is away again, there is none.
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
		r.pass(second / 4) // the spread, plus the time for an answer under way
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

// A connection that was down for a moment counts as down.
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

// A hive that was stopped treats what it reads afterwards as old as the start of the
// stop.
func TestAHiveThatWasStopped(t *testing.T) {
	r := connected(t, Config{})
	f := newFake("w")
	r.beat(f)
	r.pass(20 * second)
	r.deaf = true
	r.now = r.now.Add(time.Minute) // the hive did not run
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

// A snapshot that is built right after a stop does not claim that an absent worker is
// evidence: its beat may still wait.
func TestAHiveThatWasStoppedIsNotWarm(t *testing.T) {
	r := connected(t, Config{})
	r.pass(detector.WarmAfter - second)
	r.now = r.now.Add(10 * second) // the hive did not run
	if r.Figures(r.now).Warm {
		t.Error("warm right after the stop")
	}
	r.pass(0) // credits the time, once the token is back
	if r.Figures(r.now).Warm {
		t.Error("warm before it has heard for long enough")
	}
	r.pass(second)
	if !r.Figures(r.now).Warm {
		t.Error("not warm")
	}
}

// A batch is several beats before one Ready, which covers them all.
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
	if n := r.said(slog.LevelWarn, "messages refused"); n != 2 { // one per reason except stale
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

// A snapshot has a number even if it cannot be sent.
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

// After any inputs in any order, the core wants to be woken later than now and within
// liveness.LookEvery, and no worker is lost by silence while messages may not reach the
// hive.
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
				r.Exited(r.now, 0, []detector.Exit{{Process: r.watchedProcess(f), At: r.now}})
			},
			"drop":   func(*rapid.T) { r.dropped++ },
			"up":     func(*rapid.T) { r.Connection(r.now, core.Connection{Up: true}) },
			"down":   func(*rapid.T) { r.Connection(r.now, core.Connection{Unnoticed: 30 * second}) },
			"flap":   func(*rapid.T) { r.Connection(r.now, core.Connection{Up: true, Flapped: true}) },
			"system": func(t *rapid.T) { r.System(r.now, rapid.Bool().Draw(t, "up")) },
			"closed": func(t *rapid.T) { r.Closed(r.now, closedConn(list[any1.Draw(t, "who")])) },
			"settle": func(*rapid.T) { r.Settled(r.now, liveness.Path{Server: "NDXS"}) },
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
