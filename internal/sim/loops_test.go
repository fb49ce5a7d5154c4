package sim

import (
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// loop makes a worker die and start again a number of times, every pace or up to that.
func loop(p *Plan, r *rand.Rand, who string, at, pace time.Duration, times int) {
	for range times {
		f := Fault{Kind: Crash, At: Span(at).round(), Who: who, For: Span(min(time.Second, pace/3))}
		if r != nil {
			f.For = Span(between(r, time.Millisecond, pace/2)).round()
			if r.IntN(5) == 0 {
				f.Kind = Leave
			}
		}
		p.Faults = append(p.Faults, f)
		if at += pace; r != nil {
			at += between(r, -pace/2, 0)
		}
	}
}

// TestALoop: a worker restarts every 3 s for 75 s. Two queens report it as looping at its
// third restart, and as recovered 10 minutes after the last one. There are six other events,
// and one for each process that joined.
func TestALoop(t *testing.T) {
	for _, dies := range []bool{false, true} {
		p := Generate(1, 0, 0)
		p.Hives, p.Workers, p.Queens, p.Zones, p.Faults, p.Exits, p.Before, p.Stall, p.NoJetStream = 1, 2, 2, 1, nil, true, 0, 0, false
		p.WorkerEvery, p.HiveEvery, p.Net = Span(30e9), Span(15e9), Net{Delay: Span(2e6), Jitter: Span(2e6)}
		p.For, p.Settle = Span(16*time.Minute), Span(2*time.Minute)
		loop(&p, nil, "h1/w1", 10*time.Second, 3*time.Second, 25)
		if dies {
			p.Faults[24].For = 0
		}
		r, err := Run(p, true)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, l := range r.History {
			if m := regexp.MustCompile(`stream +h1\.\S+ (looping .*|lost .*|restarted .*)$`).FindStringSubmatch(l); m != nil && !strings.HasSuffix(l, "already") {
				told = append(told, strings.TrimSpace(m[1]))
			}
		}
		one := "lost alive to lost, restarted lost to alive, "
		want := strings.Repeat(one, 3) + "looping  to looping, " + "looping " + "looping to"
		if dies {
			want += ", lost alive to lost"
		}
		if got := strings.Join(told, ", "); r.Broken != nil || got != want {
			t.Errorf("dies at last %t: %v\ntold %s\nwant %s", dies, r.Broken, got, want)
		}
		if n := uint64(len(told)) + 3; r.Stats.Events != n {
			t.Errorf("%d events, want %d: those, and 3 joined", r.Stats.Events, n)
		}
	}
}

// TestLoops checks the invariants when workers restart repeatedly, amid all other faults of
// the seeds.
func TestLoops(t *testing.T) {
	n := 60
	switch {
	case *seeds > 0:
		n = *seeds
	case testing.Short(), raced:
		n = 10
	}
	failed := 0
	for seed := *firstSeed; seed < *firstSeed+uint64(n) && failed < 3; seed++ {
		p, r := Generate(seed, 0, 0), rand.New(rand.NewPCG(seed, 0x1f83d9abfb41bd6b))
		p.For += Span(9 * time.Minute)
		for range 1 + r.IntN(2) {
			d := &draw{Rand: r, Plan: &p}
			loop(&p, r, d.anyWorker(), d.at(20*time.Second).D(), between(r, time.Second, 20*time.Second), 3+r.IntN(12))
		}
		res, err := Run(p, false)
		if err != nil {
			t.Fatal(err)
		}
		if res.Broken != nil {
			failed++
			s := Shorten(p, res.Broken.Invariant)
			t.Errorf("seed %d: %s\n%s", seed, res.Broken, strings.Join(s.History, "\n"))
			file := filepath.Join(t.ArtifactDir(), "loop.json")
			if err := WritePlan(file, s.Plan); err == nil {
				t.Logf("its plan is in %s", file)
			}
		}
	}
}
