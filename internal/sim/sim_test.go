package sim

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	firstSeed = flag.Uint64("sim.first", 1, "first seed of TestSeeds")
	late      = flag.Duration("sim.late", 0, "TestSeeds delays a fifth of the messages by up to this")
	seeds     = flag.Int("sim.seeds", 0, "how many seeds TestSeeds runs; 0: as many as fit into a test")
)

// keepFailed is the directory of the plans that once failed.
const keepFailed = "testdata/seeds"

// TestSeeds checks the invariants with a fixed range of seeds. make sim runs thousands.
func TestSeeds(t *testing.T) {
	n := *seeds
	switch {
	case n > 0:
	case testing.Short(), raced:
		n = 40
	default:
		n = 400
	}
	s := RunSeeds(*firstSeed, n, 0, *late, 8, nil)
	t.Logf("%d runs, %v simulated in %v: %d messages, %d events, %d steps", s.Runs, s.Stats.Simulated, s.Took, s.Stats.Messages, s.Stats.Events, s.Stats.Happenings)
	if s.Runs < n && len(s.Failed) == 0 {
		t.Errorf("%d runs of %d", s.Runs, n)
	}
	if s.Stats.Events < uint64(s.Runs) {
		t.Errorf("%d events in %d runs: nothing happens", s.Stats.Events, s.Runs)
	}
	for i, f := range s.Failed {
		if i > 0 {
			t.Errorf("seed %d: %s", f.Plan.Seed, f.Broken)
			continue
		}
		r := Shorten(f.Plan, f.Broken.Invariant)
		t.Errorf("seed %d: %s\n%s", f.Plan.Seed, f.Broken, strings.Join(r.History, "\n"))
		r.Plan.Why = r.Broken.String()
		file := filepath.Join(t.ArtifactDir(), "seed.json")
		if err := WritePlan(file, r.Plan); err == nil {
			t.Logf("its plan is in %s: once it is fixed it belongs to %s", file, keepFailed)
		}
	}
}

// TestKept runs every plan that once failed.
func TestKept(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(keepFailed, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no plans in %s: %v", keepFailed, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			p, err := ReadPlan(file)
			if err != nil {
				t.Fatal(err)
			}
			if p.Why == "" {
				t.Error("it does not say what it found")
			}
			r, err := Run(p, false)
			if err != nil {
				t.Fatal(err)
			}
			if r.Broken != nil {
				t.Errorf("once it was %s: %s", p.Why, r.Broken)
			}
		})
	}
}

// TestSameSeedSameRun: a seed that failed elsewhere must fail here.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		var runs [2]Result
		for i := range runs {
			r, err := Run(Generate(seed, 0, 0), true)
			if err != nil {
				t.Fatal(err)
			}
			runs[i] = r
		}
		if diff := cmp.Diff(runs[0].History, runs[1].History); diff != "" {
			t.Fatalf("seed %d (-first +second):\n%s", seed, diff)
		}
		if len(runs[0].History) < 10 {
			t.Errorf("seed %d: nothing happens", seed)
		}
	}
}

// TestNoFaultsNoNews: without faults nothing is ever late, and every process joins once.
func TestNoFaultsNoNews(t *testing.T) {
	p := Generate(1, 0, 0)
	p.Hives, p.Workers, p.Queens, p.Zones, p.Faults = 4, 3, 3, 2, nil
	p.WorkerEvery, p.HiveEvery, p.Net = Span(30e9), Span(15e9), Net{Delay: Span(5e6), Jitter: Span(5e6)}
	r, err := Run(p, true)
	if err != nil {
		t.Fatal(err)
	}
	if r.Broken != nil {
		t.Error(r.Broken)
	}
	if r.Stats.Events != 4+4*3 {
		t.Errorf("%d events, want one for each hive and worker", r.Stats.Events)
	}
	for _, l := range r.History {
		if strings.Contains(l, " late") {
			t.Error(l)
		}
	}
}

// TestABatchOfDeaths: all workers of a machine die at once, and their hive sees their
// connections close.
func TestABatchOfDeaths(t *testing.T) {
	p := Generate(1, 0, 0)
	p.Hives, p.Workers, p.Queens, p.Exits, p.Before, p.Stall = 2, 8, 1, false, 0, 0
	p.Closings, p.HiveClosings, p.Net = Span(250e6), true, Net{Delay: Span(2e6), Jitter: Span(2e6)}
	p.Faults = []Fault{{Kind: Batch, At: Span(60e9), Who: "h1"}, {Kind: Batch, At: Span(120e9), Who: "h2", For: Span(5e9)}}
	r, err := Run(p, true)
	if err != nil {
		t.Fatal(err)
	}
	if r.Broken != nil {
		t.Errorf("%s\n%s", r.Broken, strings.Join(r.History, "\n"))
	}
}

// TestPlanIsKeptAsItIs writes and reads a plan of every kind.
func TestPlanIsKeptAsItIs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	for seed := range uint64(20) {
		p := Generate(seed, 0, 0)
		if err := WritePlan(file, p); err != nil {
			t.Fatal(err)
		}
		q, err := ReadPlan(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, q); diff != "" {
			t.Fatalf("-written +read:\n%s", diff)
		}
	}
	for _, bad := range []string{`{}`, `{"seed": 1, "sed": 2}`, `x`} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := ReadPlan(file); err == nil {
			t.Errorf("%s is read as %+v", bad, p)
		}
	}
}

// TestShorten: a plan that breaks an invariant is reduced to the necessary faults.
func TestShorten(t *testing.T) {
	p := Generate(3, 0, 0)
	p.Net, p.WorkerEvery, p.HiveEvery = Net{Delay: Span(1e6)}, Span(10e9), Span(10e9)
	p.Faults = append(p.Faults, Fault{At: Span(60e9), Kind: Badnet, For: Span(120e9), Net: &Net{Loss: 1}}) // more than the protocol tolerates
	r, err := Run(p, false)
	if err != nil || r.Broken == nil {
		t.Fatalf("%v, %v", r.Broken, err)
	}
	s := Shorten(p, r.Broken.Invariant)
	if s.Broken == nil || s.Broken.Invariant != r.Broken.Invariant || len(s.Plan.Faults) != 1 || s.Plan.Faults[0].Kind != Badnet || len(s.History) == 0 {
		t.Errorf("shortened to %d faults, %d lines: %v", len(s.Plan.Faults), len(s.History), s.Broken)
	}
}
