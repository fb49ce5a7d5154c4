package discover

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

const (
	// young is the age in rounds up to which a process is read again at every look: it may become
	// another program, as the shell of a start script does.
	young = 12
	// turns is the number of looks after which every older process was read again.
	turns = 30
	// listening is the state of a socket that accepts connections (include/net/tcp_states.h).
	listening = "0A"
)

// scanner reads /proc. It remembers what it has seen, so that a look costs little while nothing
// changes: two files for each process that names an engine, and the lists of sockets.
type scanner struct {
	proc  string
	fs    procfs.FS
	round uint64
	known map[int]*process
	owner map[uint64]*process // sockets that were looked up, by inode: their process, or nil
}

// process is the scanner's record of a process.
type process struct {
	pid, parent  int
	start        uint64
	first, round uint64 // the looks that saw it first and last
	args         []string
	engine       *engine
	proxy        *Proxy
	looked       bool // the fields below are known
	net, ns      string
	inner        uint64
	addrs        []netip.Addr
	env          map[string]string
	denied       bool
}

func newScanner(proc string) (*scanner, error) {
	fs, err := procfs.NewFS(proc)
	if err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	return &scanner{proc: proc, fs: fs, known: map[int]*process{}, owner: map[uint64]*process{}}, nil
}

// Scan looks at all processes. One that ends meanwhile is skipped.
func (s *scanner) Scan(ctx context.Context) (*Scan, error) {
	s.round++
	procs, err := s.fs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	out := &Scan{Parents: make(map[uint64]uint64, len(procs))}
	for _, p := range procs {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.see(p)
	}
	maps.DeleteFunc(s.known, func(_ int, p *process) bool { return p.round != s.round })
	var named []*process
	for pid, p := range s.known {
		out.Parents[uint64(pid)] = uint64(max(0, p.parent))
		if p.proxy != nil {
			out.Proxies = append(out.Proxies, *p.proxy)
		}
		if p.engine != nil {
			named = append(named, p)
		}
	}
	slices.SortFunc(named, func(a, b *process) int { return a.pid - b.pid })
	self, _ := os.Readlink(filepath.Join(s.proc, "self", "ns", "net"))
	out.Net = self
	for _, p := range named {
		s.inspect(p)
	}
	s.sockets(out, named)
	return out, nil
}

// see reads a process, unless it is known well enough.
func (s *scanner) see(p procfs.Proc) {
	e := s.known[p.PID]
	if e != nil && e.engine == nil && s.round-e.first > young && (s.round+uint64(p.PID))%turns != 0 {
		e.round = s.round
		return
	}
	stat, err := p.Stat()
	if err != nil || stat.State == "Z" || stat.State == "X" {
		delete(s.known, p.PID)
		return
	}
	if e == nil || e.start != stat.Starttime {
		e = &process{pid: p.PID, start: stat.Starttime, first: s.round}
		s.known[p.PID] = e
	}
	e.round, e.parent = s.round, stat.PPID
	args, err := p.CmdLine()
	if err != nil {
		return
	}
	if len(args) == 1 { // a process that gave itself a name
		args[0] = strings.TrimRight(args[0], "\x00 ")
	}
	if slices.Equal(args, e.args) {
		return
	}
	e.args, e.looked, e.engine, e.proxy = args, false, engineOf(args), nil
	if x, ok := proxyOf(args); ok {
		e.proxy = &x
	}
}

// inspect reads a process of an engine, once, except what it has no permission to read.
func (s *scanner) inspect(e *process) {
	if e.looked && !e.denied {
		return
	}
	e.looked = true
	p, err := s.fs.Proc(e.pid)
	if err != nil {
		return
	}
	e.net, err = os.Readlink(s.path(e.pid, "ns", "net"))
	e.denied = errors.Is(err, os.ErrPermission)
	if list, err := p.Environ(); err == nil {
		e.env = map[string]string{}
		for _, v := range list {
			if name, value, _ := strings.Cut(v, "="); slices.Contains(variables, name) {
				e.env[name] = value
			}
		}
	}
	if link, err := os.Readlink(s.path(e.pid, "ns", "pid")); err == nil {
		if st, err := p.NewStatus(); err == nil && len(st.NSpids) > 1 {
			e.ns, e.inner = strings.TrimSuffix(strings.TrimPrefix(link, "pid:["), "]"), st.NSpids[len(st.NSpids)-1]
		}
	}
	if own, _ := os.Readlink(filepath.Join(s.proc, "self", "ns", "net")); e.net != "" && e.net != own {
		b, _ := os.ReadFile(s.path(e.pid, "net", "fib_trie"))
		e.addrs = localAddrs(string(b))
	}
}

// socket is one that listens.
type socket struct {
	at    netip.AddrPort
	inode uint64
}

// sockets finds the listening processes: in the network namespaces of engines, and in that of
// this process.
func (s *scanner) sockets(out *Scan, named []*process) {
	tables := map[string][]socket{}
	own := s.table("self")
	tables[out.Net] = own
	listed := map[uint64]bool{}
	for _, e := range named {
		name := e.net
		if name == "" { // it may not be read: the list may be
			name = "of " + strconv.Itoa(e.pid)
		}
		if _, ok := tables[name]; !ok {
			tables[name] = s.table(strconv.Itoa(e.pid))
		}
	}
	news := false
	for _, table := range tables {
		for _, k := range table {
			listed[k.inode] = true
			if p, ok := s.owner[k.inode]; !ok || p != nil && s.known[p.pid] != p {
				delete(s.owner, k.inode)
				news = true
			}
		}
	}
	maps.DeleteFunc(s.owner, func(inode uint64, _ *process) bool { return !listed[inode] })
	if news {
		for _, e := range named {
			s.own(e, listed)
		}
	}
	s.strangers(out, own)
	for _, e := range named {
		name := e.net
		if name == "" {
			name = "of " + strconv.Itoa(e.pid)
		}
		p := Process{
			PID: uint64(e.pid), Start: e.start, Args: e.args, Env: e.env, Net: e.net, Addrs: e.addrs, NS: e.ns, Inner: e.inner, Denied: e.denied,
		}
		likely := cmp.Or(e.engine.configuredPort(e.args, e.env), e.engine.port)
		for _, k := range tables[name] {
			owner := s.owner[k.inode]
			guess := e.denied && owner == nil && k.at.Port() == likely
			if owner == e || guess {
				p.Listen = append(p.Listen, k.at)
			}
		}
		out.Procs = append(out.Procs, p)
	}
}

// table returns the sockets that listen in the network namespace of a process. It reads the text of
// the kernel itself: procfs.NetTCP is deprecated in favour of netlink, which sees one namespace.
func (s *scanner) table(pid string) (list []socket) {
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(filepath.Join(s.proc, pid, "net", name))
		if err != nil {
			continue // without IPv6 there is no tcp6, and the process may have ended
		}
		for line := range bytes.Lines(b) {
			if k, ok := parseSocket(line); ok {
				list = append(list, k)
			}
		}
	}
	return list
}

// parseSocket parses a line of /proc/net/tcp{,6} about a socket that listens.
func parseSocket(line []byte) (k socket, ok bool) {
	f := bytes.Fields(line)
	if len(f) < 10 || string(f[3]) != listening {
		return k, false
	}
	host, port, _ := bytes.Cut(f[1], []byte(":"))
	ip := make([]byte, hex.DecodedLen(len(host)))
	if _, err := hex.Decode(ip, host); err != nil || len(ip)%4 != 0 {
		return k, false
	}
	for word := range slices.Chunk(ip, 4) { // each is a number in the order of the machine
		binary.BigEndian.PutUint32(word, binary.NativeEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(ip)
	n, errPort := strconv.ParseUint(string(port), 16, 16)
	inode, errInode := strconv.ParseUint(string(f[9]), 10, 64)
	return socket{netip.AddrPortFrom(addr.Unmap(), uint16(n)), inode}, ok && errPort == nil && errInode == nil
}

// own notes which of the listed sockets are open files of a process, if it may read them.
func (s *scanner) own(e *process, listed map[uint64]bool) {
	dir := s.path(e.pid, "fd")
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		link, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		text, ok := strings.CutPrefix(link, "socket:[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
		if ok && err == nil && listed[inode] && s.owner[inode] == nil {
			s.owner[inode] = e
		}
	}
}

// strangers finds the processes of sockets on default ports that no process of an engine has. The
// search reads the open files of all processes, once for each socket.
func (s *scanner) strangers(out *Scan, own []socket) {
	unknown := map[uint64]bool{}
	for _, k := range own {
		if _, ok := s.owner[k.inode]; !ok && len(byPort(k.at.Port())) > 0 {
			unknown[k.inode] = true
		}
	}
	if len(unknown) > 0 {
		for _, p := range s.known {
			s.own(p, unknown)
		}
		for inode := range unknown {
			if _, found := s.owner[inode]; !found {
				s.owner[inode] = nil // it need not be looked up again
			}
		}
	}
	for _, k := range own {
		if len(byPort(k.at.Port())) == 0 {
			continue
		}
		switch p := s.owner[k.inode]; {
		case p == nil:
			out.Sockets = append(out.Sockets, Socket{At: k.at})
		case p.engine == nil && len(p.args) > 0 && slices.Contains(forwarders, path.Base(p.args[0])):
			out.Sockets = append(out.Sockets, Socket{At: k.at, Program: path.Base(p.args[0])})
		case p.engine == nil && mayServe(p.args):
			out.Sockets = append(out.Sockets, Socket{At: k.at, PID: uint64(p.pid), Start: p.start, Program: path.Base(p.args[0])})
		}
	}
}

func (s *scanner) path(pid int, names ...string) string {
	return filepath.Join(append([]string{s.proc, strconv.Itoa(pid)}, names...)...)
}

// localAddrs returns the addresses of a network namespace, without those of loopback, from its
// fib_trie: each stands in a line before one that says "host LOCAL".
func localAddrs(trie string) (list []netip.Addr) {
	var last netip.Addr
	for line := range strings.Lines(trie) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 2 && f[0] == "|--":
			last, _ = netip.ParseAddr(f[1])
		case strings.Contains(line, "host LOCAL") && last.IsValid() && !last.IsLoopback() && !slices.Contains(list, last):
			list = append(list, last)
		}
	}
	return list
}
