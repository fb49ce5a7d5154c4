//go:build e2e

// Package nemesis runs the fabric in real processes on real servers, applies the faults that
// break fleets, and prints the results next to the expectations.
//
//	make nemesis                                               short promises, minutes become seconds
//	make nemesis NEMESIS='-hive-every 15s -worker-every 30s'   the defaults: stops of 60 s, a cut of 3 minutes
//	make nemesis RUN=TestNemesis/leaf                          a single scene
//	make nemesis-cluster                                       three servers with everything in three replicas
//
// It needs Linux. Scenes with several machines need root, for network namespaces; without it
// the table says that they were not played.
package nemesis

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

var (
	hiveEvery   = flag.Duration("hive-every", time.Second, "promise of the hives; faults last multiples of it")
	workerEvery = flag.Duration("worker-every", time.Second, "promise of the workers")
	crowd       = flag.Int("crowd", 200, "workers that are killed at once")
	hivesInView = flag.Int("hives", 10_000, "hives of the large view")
)

// patience bounds everything that takes a moment, on a machine that may be busy. Measured
// times are printed; a scene fails because of wrong results, not because it is slow.
const patience = 45 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv("NEMESIS_ROLE") {
	case "burn":
		burn()
	case "hives":
		if err := playHives(os.Stdout, os.Getenv("HIVEBEAT_NATS"), os.Getenv("NEMESIS_HIVES")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		rig.Main(m)
	}
}

// burn uses all the CPU time it gets, until it is killed.
func burn() {
	for range 2 * runtime.NumCPU() {
		go func() {
			for i := 0; ; i++ {
			}
		}()
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	<-c
}

// self starts this test binary in another role.
func self(t testing.TB, role string, env ...string) *rig.Proc {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return rig.Start(t, role, append(env, "NEMESIS_ROLE="+role), exe)
}

// A scene is one fault, and its expected effects.
type scene struct {
	name   string
	fault  string // what happens
	expect string // written before the scene was first played
	alone  bool   // no other scene runs at the same time
	lan    bool   // it needs machines: network namespaces
	play   func(*stage)
}

func TestNemesis(t *testing.T) {
	scenes := slices.Concat(kills(), stops(), servers(), cuts())
	tab := new(table)
	defer func() { tab.print(os.Stdout, "What happened") }()
	for _, sc := range scenes {
		if sc.alone {
			t.Run(sc.name, func(t *testing.T) { perform(t, tab, sc) })
		}
	}
	// The others mostly wait: two at a time.
	t.Run("side by side", func(t *testing.T) {
		for _, sc := range scenes {
			if !sc.alone {
				t.Run(sc.name, func(t *testing.T) {
					t.Parallel()
					perform(t, tab, sc)
				})
			}
		}
	})
}

func perform(t *testing.T, tab *table, sc scene) {
	r := &row{name: sc.name, fault: sc.fault, expect: sc.expect}
	defer func() {
		if r.verdict == "" {
			r.verdict = map[bool]string{true: "FAILED", false: "as expected"}[t.Failed()]
		}
		tab.add(r)
		t.Logf("%s: %s", sc.name, r)
	}()
	if sc.lan {
		if why := noLAN(); why != "" {
			r.verdict = "not played: " + why
			t.Skip(why)
		}
	}
	began := time.Now()
	sc.play(newStage(t, r))
	r.took = time.Since(began)
}

// A row is one line of the table.
type row struct {
	name, fault, expect     string
	deaths                  int            // ends that happened
	told                    map[string]int // by cause: verdicts lost
	detect                  []time.Duration
	falseDead, cutOff       int // lost while alive and reachable; lost while stopped or cut off
	eventsLost, doubled     int
	scoreFalse, scoreCutOff uint64 // as the hives report
	note                    []string
	verdict                 string
	took                    time.Duration
	cluster                 *clusterFigures // of a scene on three servers
}

func (r *row) causes() string {
	if len(r.told) == 0 {
		return "none"
	}
	var all []string
	for c, n := range r.told {
		all = append(all, fmt.Sprintf("%d %s", n, c))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (r *row) String() string {
	return fmt.Sprintf("%d deaths, told lost: %s; detection %s; false deaths %d, cut off %d (hives count false_dead %d, cut_off %d); events lost %d, doubled %d. %s",
		r.deaths, r.causes(), quantiles(r.detect), r.falseDead, r.cutOff, r.scoreFalse, r.scoreCutOff, r.eventsLost, r.doubled, strings.Join(r.note, "; "))
}

// quantiles renders the 50th and 99th percentile and the maximum.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "–"
	}
	return show(quantile(d, 50)) + " / " + show(quantile(d, 99)) + " / " + show(quantile(d, 100))
}

// quantile is the smallest of d that p percent of d do not exceed.
func quantile(d []time.Duration, p int) time.Duration {
	s := slices.Clone(d)
	slices.Sort(s)
	return s[max(0, (len(s)*p+99)/100-1)]
}

func show(d time.Duration) string {
	switch {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// A table collects rows from scenes that run in parallel.
type table struct {
	mu   sync.Mutex
	rows []*row
}

func (t *table) add(r *row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

// print writes the table in Markdown, ready for docs/RELIABILITY.md.
func (t *table) print(w *os.File, title string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s (hives promise every %s, workers every %s; detection: from the fault to the event at a plain subscriber)\n\n", title, *hiveEvery, *workerEvery)
	fmt.Fprintln(&b, "| scene | deaths | told lost | detection p50 / p99 / max | false deaths | cut off | events lost | doubled | |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|---|---|")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %d | %d | %d | %d | %s |\n", r.name, r.deaths, r.causes(), quantiles(r.detect),
			r.falseDead, r.cutOff, r.eventsLost, r.doubled, strings.Join(append([]string{r.verdict}, r.note...), "; "))
	}
	fmt.Fprintln(&b)
	for _, r := range t.rows {
		fmt.Fprintf(&b, "* **%s** (%.0f s) %s. Expected: %s. %s\n", r.name, r.took.Seconds(), r.fault, r.expect, cmp.Or(r.verdict, "?"))
	}
	fmt.Fprintln(w, b.String())
}
