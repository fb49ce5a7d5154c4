//go:build e2e

package nemesis

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// TestCluster plays scenes one after another on three servers with everything in three
// replicas: 3 queens, 6 hives and 18 workers, spread over the servers, and an asker and a
// subscriber at each. The requirements are:
//
//   - no live and reachable process is reported lost, except in a minority's view,
//   - no event is missing from the stream, or there twice,
//   - if asker, queen and hive reach a common live server, an answer takes at most a
//     second, and a death that is detected by exit is published within 3 seconds; otherwise
//     the length of the outage is added.
func TestCluster(t *testing.T) {
	tab := new(table)
	defer func() { tab.printCluster(os.Stdout) }()
	for _, sc := range clusterScenes() {
		t.Run(sc.name, func(t *testing.T) { perform(t, tab, sc) })
	}
}

func clusterScenes() []scene {
	return []scene{
		{
			name:   "rolling restart",
			fault:  "each server in turn is ended in order and started again, and has caught up before the next; a worker dies while it is away, and one after",
			expect: "nobody else is lost; deaths and answers take no longer where a common server lives",
			play:   rollingRestart,
		},
		{
			name:   "leaders killed",
			fault:  "kill -9 of the server that leads QUEEN_EVENTS, and later of the one that leads the roster; workers die just before, with and after it",
			expect: "the copies of those deaths go out while there is no leader",
			play:   leadersKilled,
		},
		{
			name:   "one server stopped",
			fault:  "SIGSTOP of the server that leads QUEEN_EVENTS for 20 s; workers of hives that are elsewhere die meanwhile; each server also has a hive with the default promises",
			expect: "who was connected there moves within 6 s; hives and workers of the default promises are never lost",
			play:   serverStopped,
		},
		{
			name:   "minority of one",
			fault:  "the server that leads QUEEN_EVENTS loses its routes for 15 s; workers die on both sides",
			expect: "the majority loses only who is on the other side; the minority's queen says that it may be the one that is cut off",
			play:   minority,
		},
		{
			name:   "all killed twice",
			fault:  "kill -9 of all three servers at once, back after 3 s, and the same again; workers die before, with and while they are away",
			expect: "nobody else is lost; those deaths are told when the servers are back, and stored once",
			play:   allKilledTwice,
		},
		{
			name:   "one store wiped",
			fault:  "kill -9 of the server that leads QUEEN_EVENTS, whose store is removed; it comes back empty and catches up; workers die meanwhile",
			expect: "no event is lost",
			play:   oneWiped,
		},
		{
			name:   "one disk full",
			fault:  "the disk of the server that leads QUEEN_EVENTS fills up; workers die; when each queen has named it there is room, and that server is started again",
			expect: "deaths and answers as ever: two replicas suffice",
			play:   oneDiskFull,
		},
		{
			name:   "all disks full",
			fault:  "the disks of all servers fill up; workers die; when each queen has named it there is room, and each server is started again, one after the other",
			expect: "the deaths are told at once, not stored yet, and stored once afterwards",
			play:   allDisksFull,
		},
	}
}

func rollingRestart(s *stage) {
	c := newCluster(s, options{})
	for _, n := range c.servers {
		c.down(syscall.SIGTERM, n)
		c.die(c.at(c.but(n)...))
		c.wait(2 * *hiveEvery)
		c.up(n)
		c.die(c.hives)
		c.wait(2 * *hiveEvery)
	}
	c.end()
}

func leadersKilled(s *stage) {
	c := newCluster(s, options{})
	for _, stream := range []string{eventStream(), rosterStream()} {
		n := c.leader(stream)
		there, elsewhere := c.at(n), c.at(c.but(n)...)
		c.die(elsewhere)
		if len(there) > 0 {
			c.die(there)
		}
		c.down(syscall.SIGKILL, n)
		c.die(elsewhere)
		c.wait(time.Second)
		c.die(elsewhere)
		c.wait(4 * time.Second)
		c.up(n)
	}
	c.end()
}

const stopped, partitioned = 20 * time.Second, 15 * time.Second

func serverStopped(s *stage) {
	c := newCluster(s, options{})
	for i := range c.servers {
		c.hiveAt(i, fmt.Sprintf("default-%d", i+1), hivebeat.HiveEvery, hivebeat.WorkerEvery)
	}
	c.alive()
	n := c.leader(eventStream())
	var there []string
	for name, at := range c.where() {
		if at == n.NATS.Name {
			there = append(there, name)
		}
	}
	slices.Sort(there)
	from := time.Now()
	for _, name := range there {
		if !strings.HasPrefix(name, "queen ") && !strings.HasPrefix(name, "default-") {
			c.away(false, name)
		}
	}
	c.freeze(n)
	done := make(chan map[string]time.Time, 1)
	go func() { done <- c.again(there, stopped) }()
	c.dieIn(stopped, c.at(c.but(n)...), 4)
	c.thaw(n)
	back := <-done
	var last time.Duration
	var moved, stayed []string
	for _, name := range there {
		switch at, ok := back[name]; {
		case strings.HasPrefix(name, "default-"): // their tokens are rarer
		case !ok || at.After(from.Add(stopped)):
			stayed = append(stayed, name)
		default:
			moved, last = append(moved, name), max(last, at.Sub(from))
		}
	}
	c.wanted(len(stayed) == 0 && last <= 6*time.Second+c.late.longest(), "%d clients moved, the last after %s; these did not: %s", len(moved), some(last), strings.Join(stayed, ", "))
	c.agree()
	for _, name := range there {
		if !strings.HasPrefix(name, "queen ") && !c.gone(name) {
			c.back(name)
		}
	}
	c.die(c.at(c.servers...))
	c.end()
}

// dieIn kills n workers of hives, spread over d.
func (c *cluster) dieIn(d time.Duration, hives []string, n int) {
	c.Helper()
	for range n {
		c.wait(d / time.Duration(2*n))
		c.die(hives)
		c.wait(d / time.Duration(2*n))
	}
}

func minority(s *stage) {
	c := newCluster(s, options{cuttable: true})
	n := c.leader(eventStream())
	i := slices.Index(c.servers, n)
	where := c.where()
	var there []string
	for subject := range c.procs {
		hive, _, _ := strings.Cut(subject, "/")
		if !strings.HasPrefix(subject, "queen ") && (where[subject] == n.NATS.Name || where[hive] == n.NATS.Name) {
			there = append(there, subject)
		}
	}
	ours, theirs := c.at(c.but(n)...), c.at(n)
	from := time.Now()
	for _, subject := range there {
		// A verdict is first heard when the stream or, 1 s later, its copy has it. Before that
		// the roster and the stream may each have taken 2 s to fail.
		c.truth.began(subject, spell{from: from, tail: 5 * time.Second})
	}
	c.cut(n)
	c.wait(2 * time.Second)
	c.die(ours)
	c.die(theirs)
	c.wait(partitioned/2 - 2*time.Second)
	c.die(ours)
	c.wait(partitioned / 2)
	lost, says := c.viewAt(i)
	c.note = append(c.note, fmt.Sprintf("in the end the minority's queen says of the other %d hives: %s", len(ours), lost))
	c.Logf("it is unsure as %s", says)
	to := time.Now()
	c.heal(n)
	// The queen needs its tokens, and some time to miss the others.
	var silent []said
	answers := c.askers[i].answers(from.Add(5*time.Second), to)
	for _, a := range answers {
		if !slices.ContainsFunc(a.unsure, func(why string) bool { return strings.Contains(why, "may be the one that is cut off") }) {
			silent = append(silent, a)
		}
	}
	c.wanted(len(silent) == 0, "%d of %d answers in the minority, from 5 s after the cut on, did not say that it may be cut off", len(silent), len(answers))
	c.agree()
	for _, subject := range there {
		if !c.gone(subject) {
			c.back(subject)
		}
	}
	c.healthy(c.servers...)
	c.die(c.hives)
	c.end()
}

// viewAt returns how the asker at a server sees the hives, and what makes the answer unsure.
func (c *cluster) viewAt(i int) (hives, unsure string) {
	c.Helper()
	a, err := rig.Ask(c.conns[i], api.VerbSummary, api.Request{})
	if err != nil || a.Summary == nil {
		c.Errorf("no answer at %s: %v", c.servers[i].NATS.Name, err)
		return "nothing", ""
	}
	var all []string
	for live, n := range a.Summary.Hives {
		if live != hivebeat.Alive && n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, live))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", "), fmt.Sprintf("%q", a.Status.Unsure)
}

func allKilledTwice(s *stage) {
	c := newCluster(s, options{})
	for range 2 {
		c.die(c.hives)
		c.down(syscall.SIGKILL, c.servers...)
		c.die(c.hives)
		c.wait(3 * time.Second)
		c.die(c.hives)
		c.up(c.servers...)
		c.reconnected()
		c.die(c.hives)
		c.wait(2 * time.Second)
	}
	c.end()
}

// reconnected waits until all live processes are connected.
func (c *cluster) reconnected() {
	c.Helper()
	rig.Until(c.T, patience, "everybody to be connected", func() (bool, string) {
		where := c.where()
		for name := range c.procs {
			if where[name] == "" && !c.gone(name) {
				return false, fmt.Sprint(name, " is not; these are: ", sorted(where))
			}
		}
		return true, ""
	})
}

func oneWiped(s *stage) {
	c := newCluster(s, options{})
	n := c.leader(eventStream())
	elsewhere := c.at(c.but(n)...)
	c.die(elsewhere)
	c.down(syscall.SIGKILL, n)
	n.Empty()
	c.die(elsewhere)
	c.wait(2 * time.Second)
	c.up(n)
	c.die(c.hives)
	c.wait(2 * time.Second)
	c.die(c.hives)
	c.end()
}

const smallDisk = "48m"

// stoppedKeeping waits until servers report that they store nothing: their disks are full.
func (c *cluster) stoppedKeeping(servers ...*server) {
	c.Helper()
	for _, n := range servers {
		n.Said("JetStream out of (File )?resources, will be DISABLED", patience)
	}
}

// named waits until each queen names exactly these servers as those whose JetStream is off, in
// its answers and as a metric, and reports how long that took since the disks were full. It
// also checks the log and the doctor.
func (c *cluster) named(since time.Time, servers ...*server) {
	c.Helper()
	var names []string
	for _, n := range servers {
		names = append(names, n.NATS.Name)
	}
	slices.Sort(names)
	off := strings.Join(names, ", ")
	for i, at := range c.http {
		queen := fmt.Sprintf("q%d", i+1)
		rig.Until(c.T, patience, queen+" to name "+off, func() (bool, string) {
			a, err := rig.Ask(c.nc, api.VerbSummary+"."+queen, api.Request{})
			metrics, merr := get("http://" + at + "/metrics")
			text := fmt.Sprintf("%q %v %v", a.Status.Unsure, err, merr)
			return strings.Contains(text, "JetStream is off at "+off+", ") && strings.Contains(metrics, `hivebeat_queen_jetstream_trouble{kind="needs_restart"} 1`), text
		})
		c.procs["queen "+queen].Said("free some space, and restart it.*off at "+off, patience)
	}
	c.note = append(c.note, fmt.Sprintf("every queen named the servers without JetStream within %s", show(time.Since(since))))
	out, _, code := rig.CLI(c.T, []string{"HIVEBEAT_NATS=" + c.url}, "doctor", "--role", "queen", "--replicas", "3", "--events-max", eventsMax)
	if code == 0 || !strings.Contains(out, "JetStream is off at "+off) {
		c.Errorf("doctor ends with %d and does not say that JetStream is off at %s:\n%s", code, off, out)
	}
}

// over waits until no queen reports a problem with JetStream.
func (c *cluster) over() {
	c.Helper()
	for i, at := range c.http {
		rig.Until(c.T, patience, fmt.Sprintf("the trouble of q%d to end", i+1), func() (bool, string) {
			metrics, err := get("http://" + at + "/metrics")
			return strings.Contains(metrics, `hivebeat_queen_jetstream_trouble{kind="needs_restart"} 0`) && strings.Contains(metrics, `hivebeat_queen_jetstream_trouble{kind="no_space"} 0`), fmt.Sprint(err, metrics)
		})
	}
}

func get(url string) (string, error) {
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func oneDiskFull(s *stage) {
	c := newCluster(s, options{disk: smallDisk})
	n := c.leader(eventStream())
	n.disk.Fill()
	full := time.Now()
	c.dieIn(10*time.Second, c.hives, 4)
	c.stoppedKeeping(n)
	c.named(full, n)
	c.dump("full")
	n.disk.Free()
	c.down(syscall.SIGTERM, n)
	c.up(n)
	c.over()
	c.die(c.hives)
	c.end()
}

func allDisksFull(s *stage) {
	c := newCluster(s, options{disk: smallDisk})
	for _, n := range c.servers {
		n.disk.Fill()
	}
	full := time.Now()
	c.dieIn(10*time.Second, c.hives, 6)
	c.stoppedKeeping(c.servers...)
	c.named(full, c.servers...)
	c.dump("full")
	for _, n := range c.servers {
		n.disk.Free()
	}
	for _, n := range c.servers {
		c.down(syscall.SIGTERM, n)
		n.Begin()
		n.Said("Listening for client connections", patience)
		c.ended(n)
	}
	c.healthy(c.servers...)
	c.over()
	c.die(c.hives)
	c.end()
}
