//go:build e2e

package nemesis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/client"
)

// Limits if asker, queen and hive reach a common live server. Otherwise the length of the
// outage is added.
const (
	mostSilent = time.Second     // without an answer
	mostLate   = 3 * time.Second // from a kill to its event, by exit
)

// Each server has an asker, a queen and two hives connected at the start. The workers of
// each hive are spread: one at its server and one at each of the others.
const (
	clusterHives   = 6
	clusterWorkers = 3
)

// A cluster is a stage on three servers, with everything in three replicas.
type cluster struct {
	*stage
	servers []*server
	hives   []string
	conns   []*nats.Conn // of the subscribers, one at each server
	http    []string     // HTTP address of each queen
	askers  []*asker
	kills   []*death
	outages []*outage
	late    *pulse
}

// A death is a kill -9 of a process that its hive watches.
type death struct {
	subject string
	at      time.Time
	hive    string   // the server that its hive was connected to, if any
	queens  []string // the servers of the queens
	ears    []string // the servers of the subscribers
}

const eventsMax = "16777216"

func newCluster(s *stage, o options) *cluster {
	s.Helper()
	c := &cluster{stage: s, late: beginPulse(s.T)}
	s.row.cluster = new(clusterFigures)
	c.servers = serveThree(s.T, o)
	var urls []string
	for _, n := range c.servers {
		urls = append(urls, n.URL)
		c.conns = append(c.conns, rig.Connect(s.T, n.URL))
	}
	s.url = strings.Join(urls, ",")
	s.nc = rig.Connect(s.T, s.url)
	js, err := jetstream.New(s.nc)
	if err != nil {
		s.Fatal(err)
	}
	rig.Until(s.T, patience, "JetStream of three to have a leader", func() (bool, string) {
		_, err := js.AccountInfo(s.Context())
		return err == nil, fmt.Sprint(err)
	})
	s.ears = listen(s.T, c.conns...)
	// Each is given one server, so that its first server is known, and learns the others
	// from that one.
	var queens []*rig.Proc
	for i, n := range c.servers {
		id := fmt.Sprintf("q%d", i+1)
		c.http = append(c.http, fmt.Sprintf("127.0.0.1:%d", rig.Port(s.T)))
		s.procs["queen "+id] = s.startAt(nil, n.URL, "queen "+id, "queen", "--id", id, "--replicas", "3", "--events-max", eventsMax, "--http", c.http[i])
		queens = append(queens, s.procs["queen "+id])
	}
	for _, q := range queens {
		q.Said("queen is warm", patience)
	}
	for i := range clusterHives {
		c.hiveAt(i, fmt.Sprintf("gpu-%02d", i+1), *hiveEvery, *workerEvery)
	}
	c.alive()
	c.healthy(c.servers...)
	for i, n := range c.servers {
		c.askers = append(c.askers, beginAsking(s.T, i, n.URL))
	}
	return c
}

// hiveAt starts a hive at one of the servers, and its workers.
func (c *cluster) hiveAt(i int, hive string, every, workers time.Duration) {
	c.Helper()
	c.hives = append(c.hives, hive)
	at := func(i int) string { return c.servers[i%len(c.servers)].URL }
	c.procs[hive] = c.startAt(nil, at(i), "hive "+hive, "hive", "--id", hive, "--every", every.String(), "--metrics", "off")
	for w := range clusterWorkers {
		id := fmt.Sprintf("w%d", w)
		c.procs[hive+"/"+id] = c.startAt(nil, at(i+w), hive+"/"+id, "worker", "--hive", hive, "--id", id, "--every", workers.String())
	}
}

// die kills a worker of the hive with the most live workers.
func (c *cluster) die(hives []string) {
	c.Helper()
	living := func(hive string) (workers []string) {
		for w := range clusterWorkers {
			if subject := fmt.Sprintf("%s/w%d", hive, w); !c.gone(subject) {
				workers = append(workers, subject)
			}
		}
		return workers
	}
	hives = slices.Clone(hives)
	slices.SortStableFunc(hives, func(a, b string) int { return len(living(b)) - len(living(a)) })
	if len(hives) == 0 || len(living(hives[0])) == 0 {
		c.Fatalf("nobody is left to die at %v", hives)
	}
	where := c.where()
	d := &death{subject: living(hives[0])[0], hive: where[hives[0]]}
	for name, at := range where {
		if strings.HasPrefix(name, "queen ") {
			d.queens = append(d.queens, at)
		}
	}
	for _, nc := range c.conns {
		d.ears = append(d.ears, nc.ConnectedServerName())
	}
	c.truth.ended(d.subject, time.Now()) // it was cut off; now it is dead
	d.at = c.kill(d.subject)
	c.kills = append(c.kills, d)
}

// wanted logs a result, and fails the test if the result is not ok.
func (c *cluster) wanted(ok bool, format string, args ...any) {
	c.Helper()
	if ok {
		c.Logf(format, args...)
	} else {
		c.Errorf("not as wanted: "+format, args...)
	}
}

// again waits until clients are connected to servers that are not mute. It returns when each
// was first seen there.
func (c *cluster) again(clients []string, most time.Duration) map[string]time.Time {
	c.Helper()
	seen := map[string]time.Time{}
	for end := time.Now().Add(most); len(seen) < len(clients) && time.Now().Before(end); c.wait(50 * time.Millisecond) {
		where := c.where()
		for _, client := range clients {
			if _, ok := seen[client]; !ok && where[client] != "" {
				seen[client] = time.Now()
			}
		}
	}
	return seen
}

// agree waits until each queen reports the truth about all hives and workers.
func (c *cluster) agree() {
	c.Helper()
	want := rig.Fleet{}
	for subject := range c.procs {
		if strings.HasPrefix(subject, "queen ") {
			continue
		}
		want[subject] = hivebeat.Alive
		if c.gone(subject) {
			want[subject] = hivebeat.Lost
		}
	}
	for i := range c.servers {
		queen := fmt.Sprintf("q%d", i+1)
		rig.Until(c.T, 2*patience, queen+" to say what is true", func() (bool, string) {
			fleet, err := rig.LookAt(c.nc, queen)
			if err != nil {
				return false, err.Error()
			}
			var wrong []string
			for subject, live := range want {
				if fleet[subject] != live {
					wrong = append(wrong, fmt.Sprintf("%s is %q, not %s", subject, fleet[subject], live))
				}
			}
			slices.Sort(wrong)
			return len(wrong) == 0, strings.Join(wrong, "; ")
		})
	}
}

// An asker keeps asking for the summary over one connection, which starts at one server.
type asker struct {
	nc *nats.Conn

	mu    sync.Mutex
	open  wait // has no answer yet
	waits []wait
	said  []said
}

// A wait is the time from a question to the next answer.
type wait struct {
	from, to time.Time
	server   string // that the asker was connected to when it asked
}

// said is what an answer reports about itself.
type said struct {
	at     time.Time
	queen  string
	unsure []string
}

// beginAsking asks until the test ends.
func beginAsking(t *testing.T, i int, url string) *asker {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	nc, err := bus.Connect(ctx, bus.Config{URL: url, Name: fmt.Sprintf("asker %d", i+1)})
	if err != nil {
		t.Fatal(err)
	}
	asks, err := client.New(nc, client.Config{Timeout: mostSilent})
	if err != nil {
		t.Fatal(err)
	}
	a, ended := &asker{nc: nc}, make(chan struct{})
	go func() {
		defer close(ended)
		a.run(ctx, asks)
	}()
	t.Cleanup(func() { cancel(); <-ended; nc.Close() })
	return a
}

// askEvery is short compared with the limits.
const askEvery = 50 * time.Millisecond

func (a *asker) run(ctx context.Context, asks *client.Client) {
	for ctx.Err() == nil {
		a.mu.Lock()
		if a.open.from.IsZero() {
			a.open = wait{from: time.Now(), server: a.nc.ConnectedServerName()}
		}
		a.mu.Unlock()
		if answer, err := asks.Summary(ctx); err == nil {
			now := time.Now()
			a.mu.Lock()
			a.open.to = now
			a.waits, a.open = append(a.waits, a.open), wait{}
			a.said = append(a.said, said{now, answer.Status.Queen, answer.Status.Unsure})
			a.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(askEvery):
		}
	}
}

// waited returns every wait so far, including the current one.
func (a *asker) waited() []wait {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := slices.Clone(a.waits)
	if w := a.open; !w.from.IsZero() {
		w.to = time.Now()
		all = append(all, w)
	}
	return all
}

// answers returns the reports of answers within a time.
func (a *asker) answers(from, to time.Time) (within []said) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.said {
		if !s.at.Before(from) && !s.at.After(to) {
			within = append(within, s)
		}
	}
	return within
}

// A pulse measures how long this process could not run: on a machine with busy CPUs, other
// processes could not run either.
type pulse struct {
	mu   sync.Mutex
	most time.Duration
}

func beginPulse(t *testing.T) *pulse {
	p, stop := new(pulse), make(chan struct{})
	go func() {
		const every = 5 * time.Millisecond
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-time.After(every):
			}
			now := time.Now()
			p.mu.Lock()
			p.most = max(p.most, now.Sub(last)-every)
			p.mu.Unlock()
			last = now
		}
	}()
	t.Cleanup(func() { close(stop) })
	return p
}

func (p *pulse) longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}
