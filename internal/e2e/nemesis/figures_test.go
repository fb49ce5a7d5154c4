//go:build e2e

package nemesis

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// figures are measured values, next to the wanted ones.
type figures struct{ lines []string }

func (f *figures) add(t testing.TB, what, wanted, got, how string) {
	t.Helper()
	f.lines = append(f.lines, fmt.Sprintf("| %s | %s | %s | %s |", what, cmp.Or(wanted, "–"), got, how))
	t.Logf("%s: %s (wanted: %s; %s)", what, got, wanted, how)
}

func (f *figures) print(w *os.File) {
	if len(f.lines) > 0 {
		fmt.Fprintf(w, "\nFigures (p50 / p99 / max)\n\n| from → to | wanted | measured | |\n|---|---|---|---|\n%s\n\n", strings.Join(f.lines, "\n"))
	}
}

// TestFigures measures. It fails for wrong results, and only prints slow ones.
func TestFigures(t *testing.T) {
	f := new(figures)
	defer func() { f.print(os.Stdout) }()
	t.Run("views", func(t *testing.T) { views(newStage(t, new(row)), f) })
	t.Run("masses", func(t *testing.T) { masses(newStage(t, new(row)), f) })
}

// Numbers for each real hive: workers that are killed with ten hives in the view, and again
// with thousands; and workers that say goodbye each time.
const (
	realHives = 10
	deaths    = 6
	goodbyes  = 4
)

// views kills workers with ten hives in the view, then with many. Some say goodbye each time.
func views(s *stage, f *figures) {
	s.serve("127.0.0.1")
	s.queen("q1", "--brake", "off")
	for h := range realHives {
		hive := fmt.Sprintf("gpu-%02d", h)
		s.hive(nil, hive)
		s.workers(nil, hive, 2*(deaths+goodbyes))
	}
	s.alive()
	s.measure(f, fmt.Sprintf("%d hives in the view", realHives), 0)

	s.large(realHives)
	s.measure(f, fmt.Sprintf("%d hives in the view", realHives+*hivesInView), deaths+goodbyes)

	s.curtain()
	s.Log(s.row)
}

// large starts the hives of the large view in addition to others, and waits until all their
// events are published.
func (s *stage) large(others int) *rig.Proc {
	s.Helper()
	began := time.Now() // before the first one can be heard
	load := self(s.T, "hives", "HIVEBEAT_NATS="+s.url, fmt.Sprintf("NEMESIS_HIVES=%d", *hivesInView))
	rig.Until(s.T, 3*time.Minute, "the large view", func() (bool, string) {
		a, err := rig.Ask(s.nc, api.VerbSummary, api.Request{})
		if err != nil || a.Summary == nil {
			return false, fmt.Sprint(err)
		}
		n, _, _ := s.ears.count(hivebeat.KindJoined, began)
		return a.Summary.Hives[hivebeat.Alive] >= *hivesInView+others && n >= 2**hivesInView, fmt.Sprintf("%v, %d joined", a.Summary.Hives, n)
	})
	s.Logf("%d hives with one worker each: all there, and all events out, after %s", *hivesInView, time.Since(began).Round(100*time.Millisecond))
	return load
}

// masses ends all workers of the large view at once, and then all its hives.
func masses(s *stage, f *figures) {
	s.serve("127.0.0.1")
	queen := s.queen("q1", "--brake", "off")
	load := s.large(0)
	cost := s.cost(queen, s.nats.Proc)
	at := time.Now()
	s.played(at, "/w")
	load.Signal(syscall.SIGUSR1)
	s.allOut(f, fmt.Sprintf("%d processes end at once, as their hives say → all events out", *hivesInView), "", at, 0, cost)
	cost = s.cost(queen, s.nats.Proc)
	at = time.Now()
	s.played(at, "")
	load.Signal(syscall.SIGUSR2)
	const deadline = 3 * time.Second
	s.allOut(f, fmt.Sprintf("%d hives fall silent at once, no brake → all events out, after their deadline of %s", *hivesInView, deadline), "< 2 s", at, deadline, cost)
	s.curtain()
	s.Log(s.row)
}

// played records that all simulated processes are dead from now on.
func (s *stage) played(at time.Time, worker string) {
	for i := range *hivesInView {
		s.truth.began(playedID(i)+worker, spell{from: at, dead: true, must: true})
	}
}

// measure kills some workers of each real hive one by one, starting with worker from. Then
// some workers say goodbye.
func (s *stage) measure(f *figures, with string, from int) {
	s.Helper()
	s.wait(3 * time.Second)
	var exits, byes []time.Duration
	begin := time.Now()
	s.killInTurn(realHives, from, from+deaths, hivebeat.CauseExit)
	s.told(patience + 3**workerEvery)
	for subject, of := range s.truth.all() {
		if at := of[len(of)-1].from; !at.Before(begin) {
			if h, ok := s.ears.since(hivebeat.KindLost, subject, at); ok {
				exits = append(exits, h.at.Sub(at))
			}
		}
	}
	f.add(s.T, "kill -9 → event, by exit, "+with, "p99 < 50 ms", quantiles(exits), fmt.Sprintf("%d kills", len(exits)))

	for w := from + deaths; w < from+deaths+goodbyes; w++ {
		for h := range realHives {
			subject := fmt.Sprintf("gpu-%02d/w%03d", h, w)
			at := time.Now()
			s.procs[subject].Signal(syscall.SIGTERM)
			byes = append(byes, s.hear(hivebeat.KindLeft, subject, at).Sub(at))
			s.wait(apart / realHives)
		}
	}
	f.add(s.T, "SIGTERM → event left, "+with, "p99 < 20 ms", quantiles(byes), fmt.Sprintf("%d goodbyes", len(byes)))
}

// cost returns a function that reports the CPU time that two processes have used since. On a
// busy machine that means more than a duration.
func (s *stage) cost(queen, server *rig.Proc) func() string {
	s.Helper()
	q, n := queen.CPU(), server.CPU()
	return func() string {
		return fmt.Sprintf("CPU: queen %s, server %s", show(queen.CPU()-q), show(server.CPU()-n))
	}
}

// allOut waits until as many are reported lost as there are hives in the large view.
func (s *stage) allOut(f *figures, what, wanted string, at time.Time, deadline time.Duration, cost func() string) {
	s.Helper()
	var first, last time.Time
	rig.Until(s.T, 3*time.Minute, "all events", func() (bool, string) {
		var n int
		n, first, last = s.ears.count(hivebeat.KindLost, at)
		return n >= *hivesInView, fmt.Sprint(n, " events")
	})
	f.add(s.T, what, wanted, show(last.Sub(at)-deadline), fmt.Sprintf("the first after %s; said within %s; %s", show(first.Sub(at)-deadline), rush, cost()))
}
