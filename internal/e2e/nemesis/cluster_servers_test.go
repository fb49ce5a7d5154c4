//go:build e2e

package nemesis

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// A server is one of the three servers of a cluster.
type server struct {
	*rig.NATS
	monitor string           // URL of its monitoring
	lines   []*bustest.Proxy // its routes in both directions, if they can be cut
	disk    *rig.Disk        // of its store, if it can be filled
	mute    atomic.Bool      // it is down or stopped
}

// An outage is a period when a server was down, stopped, or cut off from the others.
type outage struct {
	server   string
	apart    bool // it kept running, alone
	from, to time.Time
}

func (o *outage) overlaps(from, to time.Time) bool {
	return !to.Before(o.from) && (o.to.IsZero() || !from.After(o.to))
}

// Options of a cluster.
type options struct {
	cuttable bool   // each route goes through a proxy
	disk     string // the size of a disk for each server; empty: a folder of the test
}

// serveThree starts a cluster of three servers.
func serveThree(t *testing.T, o options) []*server {
	t.Helper()
	var all []*server
	ports := make([]int, 3)
	for i := range ports {
		n := &server{NATS: rig.Prepare(t, rig.Server(t), fmt.Sprintf("n%d", i+1), "127.0.0.1")}
		n.monitor = fmt.Sprintf("127.0.0.1:%d", rig.Port(t))
		if o.disk != "" {
			n.disk = rig.SmallDisk(t, o.disk)
			n.Store = filepath.Join(n.disk.Dir, "store")
		}
		ports[i] = rig.Port(t)
		all = append(all, n)
	}
	for i, n := range all {
		var routes []string
		for j, other := range all {
			if i == j {
				continue
			}
			route := fmt.Sprintf("nats://127.0.0.1:%d", ports[j])
			if o.cuttable {
				line := bustest.NewProxy(t, route)
				n.lines, other.lines = append(n.lines, line), append(other.lines, line)
				route = line.URL()
			}
			routes = append(routes, route)
		}
		// Servers advertise their addresses to each other, which would bypass the proxies: they
		// advertise an address without a listener.
		advertise := ""
		if o.cuttable {
			advertise = `advertise: "127.0.0.1:1", `
		}
		n.Configure(fmt.Sprintf("%s\nhttp: %q\ncluster { name: nemesis, listen: \"127.0.0.1:%d\", %sroutes: [ %s ] }\n",
			n.JetStream(cmp.Or(map[bool]string{true: "1GB"}[o.disk != ""], "256MB")), n.monitor, ports[i], advertise, strings.Join(routes, ", ")))
		n.Begin()
	}
	for _, n := range all {
		n.Said("Server is ready", patience)
	}
	return all
}

// ask reads a page of a server's monitoring.
func (n *server) ask(page string, into any) error {
	u := url.URL{Scheme: "http", Host: n.monitor, Path: page, RawQuery: "limit=1024"}
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(u.String())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// healthy waits until servers report that their JetStream is up to date.
func (c *cluster) healthy(servers ...*server) {
	c.Helper()
	for _, n := range servers {
		rig.Until(c.T, 2*patience, n.NATS.Name+" to be well", func() (bool, string) {
			var health struct {
				Status string `json:"status"`
			}
			err := n.ask("healthz", &health)
			return err == nil && health.Status == "ok", fmt.Sprint(health.Status, " ", err)
		})
	}
}

// where returns the server that each hive, worker (hive/worker) and queen ("queen q1") is
// connected to now, as the responding servers report.
func (c *cluster) where() map[string]string {
	c.Helper()
	at := map[string]string{}
	for _, n := range c.servers {
		if n.mute.Load() {
			continue
		}
		var page struct {
			Connections []struct {
				Name string `json:"name"`
			} `json:"connections"`
		}
		if err := n.ask("connz", &page); err != nil {
			c.Errorf("%s says nothing of its connections: %v", n.NATS.Name, err)
		}
		for _, conn := range page.Connections {
			name, ours := strings.CutPrefix(conn.Name, "hivebeat ")
			if !ours {
				continue
			}
			for _, role := range []string{"hive ", "worker "} {
				name = strings.TrimPrefix(name, role)
			}
			at[name] = n.NATS.Name
		}
	}
	return at
}

// at returns the hives that are connected to servers now.
func (c *cluster) at(servers ...*server) (hives []string) {
	c.Helper()
	where := c.where()
	for _, hive := range c.hives {
		if slices.ContainsFunc(servers, func(n *server) bool { return n.NATS.Name == where[hive] }) {
			hives = append(hives, hive)
		}
	}
	return hives
}

// but returns the other servers.
func (c *cluster) but(n *server) []*server {
	return slices.DeleteFunc(slices.Clone(c.servers), func(other *server) bool { return other == n })
}

// leader returns the leader of a stream.
func (c *cluster) leader(stream string) *server {
	c.Helper()
	js, err := jetstream.New(c.nc)
	if err != nil {
		c.Fatal(err)
	}
	var leader *server
	rig.Until(c.T, patience, stream+" to have a leader", func() (bool, string) {
		st, err := js.Stream(c.Context(), stream)
		if err != nil {
			return false, err.Error()
		}
		info := st.CachedInfo()
		for _, n := range c.servers {
			if info.Cluster != nil && info.Cluster.Leader == n.NATS.Name {
				leader = n
			}
		}
		return leader != nil, fmt.Sprintf("%+v", info.Cluster)
	})
	return leader
}

func eventStream() string { return hivebeat.Subjects{}.Stream(hivebeat.StreamEvents) }

func rosterStream() string { return "KV_" + hivebeat.Subjects{}.Bucket(hivebeat.BucketRoster) }

// began records that servers are away or cut off from now on.
func (c *cluster) began(apart bool, servers ...*server) {
	for _, n := range servers {
		n.mute.Store(!apart)
		c.outages = append(c.outages, &outage{server: n.NATS.Name, apart: apart, from: time.Now()})
	}
}

// ended records that they are back.
func (c *cluster) ended(servers ...*server) {
	for _, n := range servers {
		n.mute.Store(false)
		for _, o := range c.outages {
			if o.server == n.NATS.Name && o.to.IsZero() {
				o.to = time.Now()
			}
		}
	}
}

// down ends servers: by SIGKILL, or in order by SIGTERM.
func (c *cluster) down(by syscall.Signal, servers ...*server) {
	c.Helper()
	c.began(false, servers...)
	for _, n := range servers {
		n.Signal(by)
	}
	for _, n := range servers {
		rig.Until(c.T, patience, n.NATS.Name+" to end", func() (bool, string) { return n.Ended(), "it runs" })
	}
}

// up starts servers again, and waits until their JetStream has caught up.
func (c *cluster) up(servers ...*server) {
	c.Helper()
	for _, n := range servers {
		n.Begin()
	}
	for _, n := range servers {
		n.Said("Server is ready", patience)
		c.ended(n)
	}
	c.healthy(servers...)
}

// freeze stops a server; thaw continues it.
func (c *cluster) freeze(n *server) {
	c.Helper()
	c.began(false, n)
	n.Signal(syscall.SIGSTOP)
}

func (c *cluster) thaw(n *server) {
	c.Helper()
	n.Signal(syscall.SIGCONT)
	c.ended(n)
}

// cut closes all routes of a server and blocks new ones. Its clients stay connected.
func (c *cluster) cut(n *server) {
	c.began(true, n)
	for _, line := range n.lines {
		line.Cut()
	}
}

func (c *cluster) heal(n *server) {
	for _, line := range n.lines {
		line.Restore()
	}
	c.ended(n)
}

// common reports whether a client at server a and a client at server b could reach each other
// for the whole time.
func (c *cluster) common(a, b string, from, to time.Time) bool {
	for _, o := range c.outages {
		if !o.overlaps(from, to) {
			continue
		}
		if o.apart && (a == o.server) != (b == o.server) || !o.apart && (a == o.server || b == o.server) {
			return false
		}
	}
	return a != "" && b != ""
}

// outageIn returns the length of the longest outage within a time.
func (c *cluster) outageIn(from, to time.Time) time.Duration {
	var longest time.Duration
	for _, o := range c.outages {
		if o.overlaps(from, to) {
			longest = max(longest, o.to.Sub(o.from))
		}
	}
	return longest
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
