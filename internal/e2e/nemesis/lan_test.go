//go:build e2e

package nemesis

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// A lan is a bridge of this machine and the machines behind it. Its address is in the range
// for benchmarks (RFC 2544), which is not routed.
type lan struct {
	t      testing.TB
	bridge string
	net    string // 198.18.7
	hosts  int
}

// A host is a machine: a network namespace. A nil host is the machine that runs the test.
type host struct {
	t     testing.TB
	lan   *lan
	netns string
	port  string // its end of the link at the bridge
}

const bridgeMAC = "02:48:42:00:00:01"

// lans numbers the lans of this process, so that each scene may have one.
var lans atomic.Int32

// noLAN says why this machine cannot have network namespaces, or is empty.
var noLAN = sync.OnceValue(func() string {
	if os.Getuid() != 0 {
		return "machines of their own need root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "there is no ip here (Debian: iproute2)"
	}
	name := fmt.Sprintf("hbtry%d", os.Getpid()%100_000)
	defer func() { _ = exec.Command("ip", "netns", "del", name).Run() }()
	defer func() { _ = exec.Command("ip", "link", "del", name).Run() }()
	for _, args := range [][]string{{"netns", "add", name}, {"link", "add", name, "type", "bridge"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Sprintf("ip %s: %s", strings.Join(args, " "), strings.TrimSpace(string(out)))
		}
	}
	return ""
})

// newLAN creates a bridge that is removed when the test ends.
func newLAN(t testing.TB) *lan {
	t.Helper()
	pid, n := os.Getpid(), int(lans.Add(1))
	l := &lan{t: t, bridge: fmt.Sprintf("hb%dl%d", pid%100_000, n), net: fmt.Sprintf("198.%d.%d", 18+n%2, (pid*7+n/2)%250+1)}
	l.ip("link", "add", l.bridge, "address", bridgeMAC, "type", "bridge")
	t.Cleanup(func() { l.ip("link", "del", l.bridge) })
	l.ip("addr", "add", l.addr()+"/24", "dev", l.bridge)
	l.ip("link", "set", l.bridge, "up")
	return l
}

func (l *lan) addr() string { return l.net + ".1" }

func (l *lan) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// host adds a machine. Its neighbours are fixed, so that a cut is silent on both sides, and
// ARP does not reveal it.
func (l *lan) host() *host {
	l.t.Helper()
	l.hosts++
	h := &host{t: l.t, lan: l, netns: fmt.Sprintf("%sm%d", l.bridge, l.hosts), port: fmt.Sprintf("%sm%d", l.bridge, l.hosts)}
	addr, mac := fmt.Sprintf("%s.%d", l.net, l.hosts+1), fmt.Sprintf("02:48:42:00:01:%02x", l.hosts)
	in := []string{"-n", h.netns}
	l.ip("netns", "add", h.netns)
	l.t.Cleanup(func() { l.ip("netns", "del", h.netns) })
	l.ip("link", "add", h.port, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", h.netns)
	l.ip("link", "set", h.port, "master", l.bridge, "up")
	l.ip(append(in, "link", "set", "lo", "up")...)
	l.ip(append(in, "link", "set", "eth0", "up")...)
	l.ip(append(in, "addr", "add", addr+"/24", "dev", "eth0")...)
	l.ip(append(in, "neigh", "replace", l.addr(), "lladdr", bridgeMAC, "dev", "eth0", "nud", "permanent")...)
	l.ip("neigh", "replace", addr, "lladdr", mac, "dev", l.bridge, "nud", "permanent")
	return h
}

// enter is the start of a command line that runs on h.
func (h *host) enter() []string {
	if h == nil {
		return nil
	}
	return []string{"ip", "netns", "exec", h.netns}
}

// cut pulls the plug behind the switch: links stay up and packets of both directions vanish,
// without a FIN, a reset or an ICMP message.
func (h *host) cut() {
	h.t.Helper()
	h.lan.ip("link", "set", h.port, "nomaster")
}

// heal plugs it in again.
func (h *host) heal() {
	h.t.Helper()
	h.lan.ip("link", "set", h.port, "master", h.lan.bridge)
}

// hub starts a NATS server at the lan's address on this side of the bridge, with a port for
// leaf nodes.
func (s *stage) hub() *lan {
	s.Helper()
	l := newLAN(s.T)
	n := rig.Prepare(s.T, rig.Server(s.T), "nemesis", l.addr())
	at := net.JoinHostPort(l.addr(), strconv.Itoa(rig.Port(s.T)))
	s.leafURL = "nats://" + at
	n.Configure(n.JetStream("256MB") + fmt.Sprintf("\nleafnodes { listen: %q, no_advertise: true }\n", at))
	n.Start()
	s.on(n)
	return l
}

// leaf starts a machine whose hive runs its NATS, and n workers on it. Each worker is in its
// own pid namespace, as in containers: its hive cannot see it end.
func (s *stage) leaf(l *lan, hive string, n int) (*host, []string) {
	s.Helper()
	h := l.host()
	s.procs[hive] = rig.Start(s.T, "hive "+hive, nil, append(h.enter(), rig.Hivebeat(s.T), "hive", "--id", hive, "--every", hiveEvery.String(), "--serve", "--leaf", s.leafURL)...)
	s.procs[hive].Said("listening to workers", patience)
	var all []string
	for i := range n {
		id := fmt.Sprintf("w%03d", i)
		argv := append(h.enter(), "unshare", "--pid", "--fork", "--kill-child", rig.Hivebeat(s.T), "worker", "--hive", hive, "--id", id, "--every", workerEvery.String())
		s.procs[hive+"/"+id] = rig.Start(s.T, hive+"/"+id, []string{"HIVEBEAT_NATS=nats://127.0.0.1:4222"}, argv...)
		all = append(all, hive+"/"+id)
	}
	return h, all
}
