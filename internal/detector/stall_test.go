package detector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

func TestStalled(t *testing.T) {
	// A beat every 30 s, with these numbers.
	type beat struct {
		busy, done uint64
		change     func(*bench, *fake)
		want       string
	}
	const stalls, goesOn = "stalled:>stalled", "stalled:stalled>"
	const limit = time.Minute
	label := func(text string) func(*bench, *fake) {
		return func(_ *bench, f *fake) { f.Labels = map[string]string{StallLabel: text} }
	}
	joined := beat{busy: 1, done: 5, want: "joined:>alive"}
	for _, c := range []struct {
		name  string
		limit time.Duration
		beats []beat
	}{
		{"no limit", 0, []beat{joined, {1, 5, nil, ""}, {1, 5, nil, ""}, {1, 5, nil, ""}, {1, 5, nil, ""}}},
		{"for the limit", limit, []beat{joined, {1, 5, nil, ""}, {1, 5, nil, stalls}, {1, 5, nil, ""}, {1, 6, nil, goesOn}, {1, 6, nil, ""}, {1, 6, nil, stalls}}},
		{"it finishes something", limit, []beat{joined, {1, 5, nil, ""}, {1, 6, nil, ""}, {1, 6, nil, ""}, {1, 7, nil, ""}}},
		{"it has nothing to do", limit, []beat{{0, 5, nil, "joined:>alive"}, {0, 5, nil, ""}, {0, 5, nil, ""}, {0, 5, nil, ""}}},
		{"it has had something to do for too short a time", limit, []beat{{0, 5, nil, "joined:>alive"}, {0, 5, nil, ""}, {0, 5, nil, ""}, {1, 5, nil, ""}, {2, 5, nil, ""}, {1, 5, nil, stalls}}},
		{"it gives the work up", limit, []beat{joined, {1, 5, nil, ""}, {1, 5, nil, stalls}, {0, 5, nil, goesOn}}},
		{"its own limit", 0, []beat{{1, 5, label("30s"), "joined:>alive"}, {1, 5, nil, stalls}}},
		{"its own limit instead of the hive's", 30 * second, []beat{{1, 5, label("1m"), "joined:>alive"}, {1, 5, nil, ""}, {1, 5, nil, stalls}}},
		{"its own word that there is none", limit, []beat{{1, 5, label("0"), "joined:>alive"}, {1, 5, nil, ""}, {1, 5, nil, ""}, {1, 5, nil, ""}}},
		{"its own word, changed", limit, []beat{joined, {1, 5, nil, ""}, {1, 5, nil, stalls}, {1, 5, label("1h"), ""}, {1, 5, label("0s"), goesOn}}},
		{"its own word is no duration", limit, []beat{{1, 5, label("soon"), "joined:>alive"}, {1, 5, nil, ""}, {1, 5, nil, stalls}}},
		{"its own word is negative", limit, []beat{{1, 5, label("-1s"), "joined:>alive"}, {1, 5, nil, ""}, {1, 5, nil, stalls}}},
		{"an announced silence is none", limit, []beat{joined, {1, 5, nil, ""}, {1, 5, func(_ *bench, f *fake) { f.Quiet = 60_000 }, ""}, {1, 5, nil, ""}}},
		{"a restart ends it", limit, []beat{joined, {1, 5, nil, ""}, {1, 5, nil, stalls}, {1, 5, func(_ *bench, f *fake) { f.Inc++ }, "restarted:alive>alive"}, {1, 5, nil, ""}, {1, 5, nil, stalls}}},
		{"a goodbye ends it", limit, []beat{joined, {1, 5, nil, ""}, {1, 5, nil, stalls}, {1, 5, func(_ *bench, f *fake) { f.State = hivebeat.Stopped }, "left:alive>left(goodbye)"}}},
		{"beats that are missing in between prove as much", 2 * limit, []beat{joined, {1, 5, func(b *bench, _ *fake) { b.after(second * 14) }, ""}, {1, 5, func(b *bench, f *fake) {
			b.Credit(10 * time.Minute)
			b.after(10 * time.Minute)
			f.Seq += 20
		}, stalls}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			b.SetStallAfter(c.limit)
			is := false
			for i, s := range c.beats {
				if f.Busy, f.Done = s.busy, s.done; s.change != nil {
					s.change(b, f)
				}
				b.mustFeed(f.Next(t))
				want := []string{}
				if s.want != "" {
					want = append(want, s.want)
				}
				if diff := cmp.Diff(want, b.told()); diff != "" {
					t.Fatalf("beat %d (-want +got):\n%s", i, diff)
				}
				switch s.want {
				case "":
				case stalls:
					is = true
				default:
					is = false
				}
				if r, _ := b.record("w"); r.Stalled != is || r.Live != hivebeat.Alive && r.Live != hivebeat.Left {
					t.Fatalf("beat %d: stalled %t and %s, want %t", i, r.Stalled, r.Live, is)
				}
				b.after(30 * second)
			}
		})
	}
}

func TestStalledIsNoVerdict(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.SetStallAfter(second)
	f.Busy, f.Done = 3, 120
	b.mustFeed(f.Next(t)).after(30 * second).told()
	b.mustFeed(f.Next(t))
	s := b.TakeSteps()
	if len(s) != 1 || s[0].Reason != "3 busy, and done has been 120 for 30s" || s[0].Cause != "" || s[0].N != 2 {
		t.Errorf("steps %+v", s)
	}
	r, _ := b.record("w")
	if !r.Stalled || r.Live != hivebeat.Alive || r.Since != 30_000 || len(r.Tr) != 2 || r.Tr[1].Kind != hivebeat.KindStalled || r.Tr[1].To != "stalled" {
		t.Errorf("record %+v", r)
	}
	// Silence is a different condition. It suspends the stall without a transition.
	b.after(45 * second)
	if r, _ := b.record("w"); !r.Stalled || r.Live != hivebeat.Late {
		t.Errorf("late: stalled %t, %s", r.Stalled, r.Live)
	}
	b.after(45 * second)
	if r, _ := b.record("w"); r.Stalled || r.Live != hivebeat.Lost {
		t.Errorf("lost: stalled %t, %s", r.Stalled, r.Live)
	}
	b.told()
	b.mustFeed(f.Next(t))
	if diff := cmp.Diff([]string{"recovered:lost>alive", "stalled:>stalled"}, b.told()); diff != "" {
		t.Errorf("back (-want +got):\n%s", diff)
	}
}

func TestStalledCostsNothing(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.SetStallAfter(time.Hour)
	f.Busy, f.Done = 3, 120
	f.Labels = map[string]string{StallLabel: "2h"}
	b.mustFeed(f.Next(t))
	msgs := make([][]byte, 101)
	for i := range msgs {
		msgs[i] = f.Next(t)
	}
	i := 0
	if n := testing.AllocsPerRun(100, func() { b.mustFeed(msgs[i]); i++ }); n != 0 {
		t.Errorf("%g allocations a beat", n)
	}
}

// TestStalledIsHeard: a beat that waited while the hive was stopped was sent long
// before it is read, and a later one that also waits may show progress.
func TestStalledIsHeard(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.SetStallAfter(time.Minute)
	f.Busy, f.Done = 1, 5
	b.mustFeed(f.Next(t))
	b.Doubt(b.now.Add(time.Second))
	b.now = b.now.Add(10 * time.Minute)
	b.mustFeed(f.Next(t))
	if r, _ := b.Record(b.now, "w"); r.Stalled {
		t.Errorf("stalled by a beat that was sent while the hive was stopped: %+v", r)
	}
	f.Done = 6
	b.mustFeed(f.Next(t))
	b.Credit(10 * time.Minute)
	b.now = b.now.Add(59 * time.Second)
	b.mustFeed(f.Next(t))
	if r, _ := b.Record(b.now, "w"); r.Stalled {
		t.Errorf("stalled less than the limit after it may have finished something: %+v", r)
	}
	b.now = b.now.Add(time.Second)
	b.mustFeed(f.Next(t))
	if r, _ := b.Record(b.now, "w"); !r.Stalled {
		t.Errorf("not stalled by the limit after the doubt: %+v", r)
	}
}

// TestStalledOfSeeds: a registry that takes over a worker knows only the progress that
// it hears of.
func TestStalledOfSeeds(t *testing.T) {
	for _, limit := range []string{"1m", ""} {
		for _, stalled := range []bool{false, true} {
			b, f := newBench(t), newFake("w")
			f.Busy, f.Done, f.Seq = 1, 5, 10
			if limit != "" {
				f.Labels = map[string]string{StallLabel: limit}
			}
			b.Seed(b.now, Seed{Worker: "w", Live: hivebeat.Alive, Facts: f.Facts, Heard: b.now, Until: b.now, Stalled: stalled})
			check := func(what string, want bool) {
				t.Helper()
				if r, _ := b.Record(b.now, "w"); r.Stalled != want {
					t.Errorf("limit %q, stalled before %v, %s: stalled is %v", limit, stalled, what, r.Stalled)
				}
			}
			b.now = b.now.Add(time.Second)
			b.mustFeed(f.Next(t))
			check("a beat that says the same of its work", stalled)
			b.now = b.now.Add(time.Hour) // heard elsewhere at an unknown time, without its progress
			b.Elsewhere(b.now, "w", hivebeat.Facts{Inc: f.Inc, Seq: f.Seq + 5})
			check("heard elsewhere", stalled)
			f.Seq, f.Done = f.Seq+5, 6
			b.mustFeed(f.Next(t))
			check("it goes on", false)
		}
	}
}
