package discover

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/internal/probe"
)

// Scan is one look at the processes and the listening ports of a machine.
type Scan struct {
	Net     string            // network namespace of this process
	Procs   []Process         // whose command names an engine
	Proxies []Proxy           // ports of the machine that lead into containers
	Sockets []Socket          // default ports of engines on which no process of Procs listens
	Parents map[uint64]uint64 // of all processes
}

// Process is a process whose command names an engine.
type Process struct {
	PID, Start uint64 // together they are an identity
	Args       []string
	Env        map[string]string // the variables of interest, if they can be read
	Net        string            // network namespace; empty: unknown
	Addrs      []netip.Addr      // of its network namespace, if that is another one
	NS         string            // pid namespace, and
	Inner      uint64            // its id in there, if that is another one
	Listen     []netip.AddrPort
	Denied     bool // its open files cannot be read, so Listen is where it should listen, and something does
}

// Proxy is a port of the machine that leads into a container.
type Proxy struct{ Host, To netip.AddrPort }

// Socket is a default port of an engine on which a process listens that may be one.
type Socket struct {
	At         netip.AddrPort
	PID, Start uint64 // 0: its process cannot be read
	Program    string
}

// key identifies a candidate.
type key struct {
	pid, start uint64
	port       uint16
}

// Candidate is a port that may be an engine's.
type Candidate struct {
	key
	Kind  probe.Kind // of the command; empty: by its port
	PIDs  []uint64   // its processes; the first one is followed; empty: unknown
	URL   string
	Where string // the name of its container, if it has no port of the machine
	Host  string // the host name that it sees, if it is in a container
	NS    string // as in Process
	Inner uint64
	Slots uint64
	Why   string
}

// id returns the id of the worker: the same after a restart of the engine.
func (c *Candidate) id(kind probe.Kind) string {
	id := string(kind) + "-" + strconv.Itoa(int(c.publicPort()))
	if c.Where != "" {
		id += "-" + strings.Map(func(r rune) rune {
			if hivebeat.ValidID(string(r)) {
				return r
			}
			return '-'
		}, c.Where)
	}
	return id[:min(len(id), hivebeat.MaxID)]
}

// publicPort is the port of its URL.
func (c *Candidate) publicPort() uint16 {
	i := strings.LastIndexByte(c.URL, ':')
	n, _ := strconv.ParseUint(c.URL[i+1:], 10, 16)
	return uint16(n)
}

// maxPorts is how many ports of one process are asked, if its command does not say which is its
// own.
const maxPorts = 4

// Candidates returns the ports to ask, and the findings that need no question.
func Candidates(s *Scan) (list []Candidate, findings []Finding) {
	for _, procs := range trees(s) {
		l, f := s.ofTree(procs)
		list, findings = append(list, l...), append(findings, f...)
	}
	for _, k := range s.Sockets {
		if s.forwards(k.At, list) {
			continue
		}
		c := Candidate{
			key: key{k.PID, k.Start, k.At.Port()}, URL: urlOf(k.At.Addr(), k.At.Port()),
			Why: fmt.Sprintf("port %d is the default of %s", k.At.Port(), strings.Join(byPort(k.At.Port()), " and ")),
		}
		switch {
		case k.PID == 0:
			c.Why += ", and its process cannot be read"
		case slices.Contains(forwarders, k.Program):
			c.Why += ", and " + k.Program + " forwards it to a container"
		default:
			c.Why += ", and its process is " + k.Program
			c.PIDs = []uint64{k.PID}
		}
		list = append(list, c)
	}
	return list, findings
}

// forwards reports whether a candidate is already asked through this port.
func (s *Scan) forwards(at netip.AddrPort, list []Candidate) bool {
	return slices.ContainsFunc(list, func(c Candidate) bool { return c.URL == urlOf(at.Addr(), at.Port()) })
}

// trees divides the processes into engines: those that descend from another one belong to it.
func trees(s *Scan) [][]*Process {
	named := map[uint64]*Process{}
	for i := range s.Procs {
		named[s.Procs[i].PID] = &s.Procs[i]
	}
	of := map[uint64][]*Process{}
	for pid, p := range named {
		root := pid
		for up, steps := s.Parents[pid], 0; up > 1 && steps < 100; up, steps = s.Parents[up], steps+1 {
			if named[up] != nil {
				root = up
			}
		}
		of[root] = append(of[root], p)
	}
	var list [][]*Process
	for _, root := range slices.Sorted(maps.Keys(of)) {
		procs := of[root]
		slices.SortFunc(procs, func(a, b *Process) int {
			if (a.PID == root) != (b.PID == root) {
				return cmp.Compare(b2i(b.PID == root), b2i(a.PID == root))
			}
			return cmp.Compare(a.PID, b.PID)
		})
		list = append(list, procs)
	}
	return list
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ofTree returns the candidates of one engine, whose first process is the one that is followed.
func (s *Scan) ofTree(procs []*Process) ([]Candidate, []Finding) {
	root := procs[0]
	e := engineOf(root.Args)
	c := Candidate{
		key: key{root.PID, root.Start, 0}, Kind: e.kind, NS: root.NS, Inner: root.Inner,
		Slots: e.configuredSlots(root.Args, root.Env), Why: "its command is " + commandOf(root.Args),
	}
	if root.Net != s.Net && root.Net != "" {
		c.Host = root.Env["HOSTNAME"]
	}
	at := map[uint16][]netip.Addr{}
	denied := false
	for _, p := range procs {
		c.PIDs = append(c.PIDs, p.PID)
		denied = denied || p.Denied
		for _, a := range p.Listen {
			at[a.Port()] = append(at[a.Port()], a.Addr())
		}
	}
	f := Finding{Kind: e.kind, PID: root.PID, Command: commandOf(root.Args)}
	ports := e.choose(procs, at)
	if len(ports) == 0 {
		f.What = "listens on no port yet"
		if denied {
			f.What, f.Do = "its open files cannot be read, and nothing listens on the port that its command names or on its default", deniedDo
		}
		return nil, []Finding{f}
	}
	var list []Candidate
	for _, port := range ports {
		c := c
		c.port = port
		if c.URL, c.Where = s.reach(root, at[port], port); c.URL == "" {
			f.What = fmt.Sprintf("listens on port %d inside its container only", port)
			f.Do = "publish its port, or let it listen on the address of its container"
			return nil, []Finding{f}
		}
		list = append(list, c)
	}
	return list, nil
}

// deniedDo is what helps if the files of another user's process cannot be read.
const deniedDo = "run the hive as root, or with the capability SYS_PTRACE"

// choose returns the ports to ask: the one that the command names, or else the engine's default,
// or else all on which the engine listens. Engines have other ports too, for their own processes.
func (e *engine) choose(procs []*Process, at map[uint16][]netip.Addr) []uint16 {
	for _, p := range procs {
		if own := e.configuredPort(p.Args, p.Env); own != 0 && at[own] != nil {
			return []uint16{own}
		}
	}
	if at[e.port] != nil {
		return []uint16{e.port}
	}
	ports := slices.Sorted(maps.Keys(at))
	return ports[:min(len(ports), maxPorts)]
}

// reach returns the URL for a port of p: on loopback if it is the machine's own, through the
// port that the container publishes, or at the container's address. In the last case where
// names the container.
func (s *Scan) reach(p *Process, addrs []netip.Addr, port uint16) (url, where string) {
	if p.Net == "" || p.Net == s.Net {
		return urlOf(best(addrs), port), ""
	}
	for _, x := range s.Proxies {
		if x.To.Port() == port && slices.Contains(p.Addrs, x.To.Addr()) {
			return urlOf(x.Host.Addr(), x.Host.Port()), ""
		}
	}
	for _, a := range addrs {
		if a.IsUnspecified() && len(p.Addrs) > 0 {
			a = p.Addrs[0]
		}
		if !a.IsLoopback() && !a.IsUnspecified() {
			return urlOf(a, port), cmp.Or(p.Env["HOSTNAME"], a.String())
		}
	}
	return "", ""
}

// best prefers an address that is open on all addresses or on loopback, and IPv4.
func best(addrs []netip.Addr) netip.Addr {
	rank := func(a netip.Addr) int {
		return 2*b2i(!a.IsUnspecified() && !a.IsLoopback()) + b2i(!a.Is4())
	}
	return slices.MinFunc(addrs, func(a, b netip.Addr) int { return rank(a) - rank(b) })
}

// urlOf returns the URL of a port. One that is open on all addresses is asked on loopback; one
// on [::] has IPv4 too, except where that is switched off.
func urlOf(a netip.Addr, port uint16) string {
	if a = a.Unmap(); a.IsUnspecified() {
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "http://" + netip.AddrPortFrom(a, port).String()
}

// commandOf returns a command for people: the program and its first words. An option ends it,
// because those that follow may be secrets.
func commandOf(args []string) string {
	var words []string
	for i, a := range args {
		if i == 0 {
			a = path.Base(a)
		} else if strings.HasPrefix(a, "-") && (a != "-m" || i > 1 || !isPython(words[0])) || i > 2 {
			break
		}
		words = append(words, a)
	}
	return plaintext.Clip(strings.Join(words, " "), 80)
}
