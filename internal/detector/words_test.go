package detector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

// says lets f send its last beat, in which its supervisor says how its process ended.
func (b *bench) says(f *fake, exit, reason string) error {
	f.Exit, f.Reason, f.State = exit, reason, hivebeat.Degraded
	return b.sendsNow(f)
}

// A supervisor sees the end of a process, and says how it ended. The hive may or may not see
// the end itself, before or after that: the verdict, its cause and the record are the same.
func TestLastBeatSaysHowTheProcessEnded(t *testing.T) {
	for _, c := range []struct {
		name       string
		exit       string
		cause      hivebeat.Cause
		sees, then bool // the hive sees the end before, or after the beat
	}{
		{"only the beat", "code 3", hivebeat.CauseExit, false, false},
		{"the beat first", "code 3", hivebeat.CauseExit, false, true},
		{"the hive first", "code 3", hivebeat.CauseExit, true, false},
		{"killed for want of memory", hivebeat.ExitOOM, hivebeat.CauseOOM, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := watching(t), newFake("w")
			if err := b.sendsNow(f); err != nil {
				t.Fatal(err)
			}
			b.after(second).told()
			if c.sees && !b.ends(f) {
				t.Error("the hive's own observation changes nothing")
			}
			if err := b.says(f, c.exit, "CUDA error: out of memory; starts again in 2s"); err != nil {
				t.Fatalf("the last beat is refused: %v", err)
			}
			if c.then && b.ends(f) {
				t.Error("the end is reported twice")
			}
			tells(t, b, "lost:alive>lost("+string(c.cause)+")")
			r, _ := b.record("w")
			if r.Live != hivebeat.Lost || r.Cause != c.cause || r.Exit != c.exit || r.Reason != "CUDA error: out of memory; starts again in 2s" || r.Ended == 0 {
				t.Errorf("record: live %s, cause %s, exit %q, reason %q, ended %d", r.Live, r.Cause, r.Exit, r.Reason, r.Ended)
			}
			f.Exit = ""
			b.after(second)
			if err := b.sendsNow(f); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
				t.Errorf("a beat after the last one: %v, want stale", err)
			}
			f.Inc, f.Seq, f.PID, f.State = f.Inc+1, 0, f.PID+1, hivebeat.Loading
			if err := b.sendsNow(f); err != nil {
				t.Fatal(err)
			}
			tells(t, b, "restarted:lost>alive")
			if r, _ := b.record("w"); r.Exit != "" || r.Restarts != 1 {
				t.Errorf("the next incarnation has exit %q and %d restarts, want none and 1", r.Exit, r.Restarts)
			}
		})
	}
}

// A hive that hears of a worker only when it has ended lists it as lost.
func TestOnlyTheLastBeatIsHeard(t *testing.T) {
	b, f := newBench(t), newFake("w")
	if err := b.says(f, "signal 9", ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"joined:>alive", "lost:alive>lost(exit)"}, b.told()); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
}

func TestPace(t *testing.T) {
	b, f := newBench(t), newFake("w")
	beat := func(after time.Duration, busy, done, tokens uint64) hivebeat.Record {
		b.after(after)
		f.Busy, f.Done, f.Tokens = busy, done, tokens
		b.mustFeed(f.Next(t))
		r, _ := b.record("w")
		return r
	}
	if r := beat(0, 2, 100, 5000); r.Rate != 0 || r.TPS != 0 {
		t.Errorf("after one beat: rate %v, tps %v, want none", r.Rate, r.TPS)
	}
	if r := beat(10*time.Second, 2, 120, 25_000); r.Rate != 2 || r.TPS != 2000 {
		t.Errorf("20 requests and 20000 tokens in 10 s: rate %v, tps %v, want 2 and 2000", r.Rate, r.TPS)
	}
	if r := beat(30*time.Second, 0, 150, 55_000); r.Rate <= 1 || r.Rate >= 2 || r.TPS <= 1000 || r.TPS >= 2000 {
		t.Errorf("half as fast for 30 s: rate %v, tps %v, want an average of old and new", r.Rate, r.TPS)
	}
	before, _ := b.record("w")
	if r := beat(10*time.Minute, 0, 150, 55_000); r.Rate != before.Rate {
		t.Errorf("10 minutes without work changed the rate from %v to %v", before.Rate, r.Rate)
	}
	f.Inc, f.Seq = f.Inc+1, 0
	if r := beat(second, 1, 3, 10); r.Rate != 0 || r.TPS != 0 {
		t.Errorf("after a restart: rate %v, tps %v, want none", r.Rate, r.TPS)
	}
}

// Tokens are progress, and so is not having anything to do; waiting requests are work.
func TestStallByQueueAndTokens(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.SetStallAfter(time.Minute)
	beat := func(busy, queue, tokens uint64) bool {
		b.after(40 * time.Second)
		f.Busy, f.Queue, f.Tokens = busy, queue, tokens
		b.mustFeed(f.Next(t))
		r, _ := b.record("w")
		return r.Stalled
	}
	for i, c := range []struct {
		busy, queue, tokens uint64
		want                bool
	}{{0, 3, 0, false}, {0, 3, 0, false}, {0, 3, 0, true}, {0, 3, 1, false}, {1, 0, 1, false}, {1, 0, 1, true}, {0, 0, 1, false}} {
		if got := beat(c.busy, c.queue, c.tokens); got != c.want {
			t.Errorf("beat %d: stalled %v, want %v", i, got, c.want)
		}
	}
}

// A goodbye that gives a reason was somebody's decision: a worker that hands its engine over and
// gets it back is no crash loop. One without a reason counts.
func TestHandOversAreNoRestarts(t *testing.T) {
	for reason, want := range map[string]uint64{"worker mine beats for its process already": 0, "": 4} {
		b, f := newBench(t), newFake("w")
		b.TellLoops()
		b.mustFeed(f.Next(t))
		for range 4 {
			b.after(10 * time.Second)
			f.State, f.Reason = hivebeat.Stopped, reason
			b.mustFeed(f.Next(t))
			f.Inc, f.Seq, f.State, f.Reason = f.Inc+1, 0, hivebeat.Ready, ""
			b.mustFeed(f.Next(t))
		}
		if r, _ := b.record("w"); r.Restarts != want || r.Looping != (want > 0) {
			t.Errorf("goodbyes with the reason %q: %d restarts, looping %v; want %d", reason, r.Restarts, r.Looping, want)
		}
	}
}
