package discover

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree is a made-up /proc.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) *tree {
	tr := &tree{t, t.TempDir()}
	tr.add(1, 0, 100, "host", "/sbin/init")
	tr.must(os.Symlink("1", filepath.Join(tr.dir, "self")))
	return tr
}

func (tr *tree) must(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) write(pid int, name, text string) {
	tr.t.Helper()
	file := filepath.Join(tr.dir, fmt.Sprint(pid), name)
	tr.must(os.MkdirAll(filepath.Dir(file), 0o755))
	tr.must(os.WriteFile(file, []byte(text), 0o600))
}

// add makes a process in a network namespace.
func (tr *tree) add(pid, parent, start int, netns, command string, env ...string) {
	tr.t.Helper()
	tr.write(pid, "stat", fmt.Sprintf("%d (a) b) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", pid, parent, start))
	tr.write(pid, "cmdline", strings.Join(strings.Fields(command), "\x00")+"\x00")
	tr.write(pid, "environ", strings.Join(env, "\x00")+"\x00")
	tr.write(pid, "status", fmt.Sprintf("Name:\ta\nNSpid:\t%d\n", pid))
	tr.write(pid, "net/tcp", header)
	tr.write(pid, "net/tcp6", header)
	tr.must(os.MkdirAll(filepath.Join(tr.dir, fmt.Sprint(pid), "fd"), 0o755))
	tr.must(os.MkdirAll(filepath.Join(tr.dir, fmt.Sprint(pid), "ns"), 0o755))
	tr.must(os.Symlink("net:["+netns+"]", filepath.Join(tr.dir, fmt.Sprint(pid), "ns/net")))
	tr.must(os.Symlink("pid:[4026531836]", filepath.Join(tr.dir, fmt.Sprint(pid), "ns/pid")))
}

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// listen gives the table of a process a socket, as those with its namespace have it too.
func (tr *tree) listen(inode int, hexAddr, state string, pids ...int) {
	tr.t.Helper()
	for _, pid := range pids {
		name := filepath.Join(tr.dir, fmt.Sprint(pid), "net/tcp")
		if len(hexAddr) > len("00000000:0000") {
			name += "6"
		}
		b, err := os.ReadFile(name)
		tr.must(err)
		remote := "00000000:0000"
		line := fmt.Sprintf("   0: %s %s %s 00000000:00000000 00:00000000 00000000  1000        0 %d 1 0 100 0 0 10 0\n", hexAddr, remote, state, inode)
		tr.must(os.WriteFile(name, append(b, line...), 0o600))
	}
}

func (tr *tree) open(pid, fd, inode int) {
	tr.t.Helper()
	tr.must(os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(tr.dir, fmt.Sprint(pid), "fd", fmt.Sprint(fd))))
}

func (tr *tree) scan(s *scanner) *Scan {
	tr.t.Helper()
	out, err := s.Scan(tr.t.Context())
	tr.must(err)
	return out
}

func TestScanner(t *testing.T) {
	tr := newTree(t)
	tr.add(7, 5, 200, "host", "/venv/bin/python3 /venv/bin/vllm serve m", "SECRET=x", "HOSTNAME=gpu-01")
	tr.listen(70, "00000000:1F40", "0A", 1, 7)                         // 8000
	tr.listen(71, "0100007F:1F40", "01", 1, 7)                         // a connection
	tr.listen(72, "0100007F:2710", "0A", 1, 7)                         // 10000, of another process
	tr.listen(73, "0100007F:7530", "0A", 1, 7)                         // 30000, of a program in Python
	tr.listen(74, "0100007F:2CAA", "0A", 1, 7)                         // 11434, of another user
	tr.listen(75, "00000000:0BB8", "0A", 1, 7)                         // 3000, of a program that is no engine
	tr.listen(79, "00000000000000000000000000000000:1F90", "0A", 1, 7) // [::]:8080, of docker-proxy
	tr.open(7, 3, 70)
	tr.open(7, 4, 71)
	tr.add(8, 1, 200, "host", "sshd")
	tr.open(8, 3, 72)
	tr.add(9, 1, 200, "host", "python3 server.py")
	tr.open(9, 3, 73)
	tr.add(10, 1, 200, "host", "node grafana")
	tr.open(10, 3, 75)
	tr.add(11, 1, 200, "host", "/usr/bin/docker-proxy -proto tcp -host-ip :: -host-port 8080 -container-ip 172.17.0.2 -container-port 80")
	tr.open(11, 3, 79)
	tr.add(12, 1, 300, "pod", "llama-server --port 80", "HOSTNAME=0f3a")
	tr.write(12, "status", "Name:\ta\nNSpid:\t12\t1\n")
	tr.write(12, "net/fib_trie", "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 172.17.0.0\n        /16 link UNICAST\n     |-- 172.17.0.2\n        /32 host LOCAL\n")
	tr.listen(90, "00000000:0050", "0A", 12)
	tr.open(12, 3, 90)
	tr.add(13, 1, 400, "host", "bash -c vllm serve")

	s, err := newScanner(tr.dir)
	tr.must(err)
	out := tr.scan(s)
	var got []string
	for _, p := range out.Procs {
		got = append(got, fmt.Sprintf("%d %d %s %s %v %v %s/%d %v", p.PID, p.Start, p.Net, p.Args[0], p.Listen, p.Addrs, p.NS, p.Inner, p.Env))
	}
	for _, p := range out.Proxies {
		got = append(got, fmt.Sprint(p))
	}
	for _, k := range out.Sockets {
		got = append(got, fmt.Sprintf("%s %d %s", k.At, k.PID, k.Program))
	}
	slices.Sort(got[3:])
	want := []string{
		"7 200 net:[host] /venv/bin/python3 [0.0.0.0:8000] [] /0 map[HOSTNAME:gpu-01]",
		"12 300 net:[pod] llama-server [0.0.0.0:80] [172.17.0.2] 4026531836/1 map[HOSTNAME:0f3a]",
		"{[::]:8080 172.17.0.2:80}",
		"127.0.0.1:11434 0 ", "127.0.0.1:30000 9 python3", "[::]:8080 0 docker-proxy",
	}
	if !slices.Equal(got, want) {
		t.Errorf("it sees\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if out.Parents[7] != 5 || len(out.Parents) != 8 {
		t.Errorf("parents %v", out.Parents)
	}
	list, _ := Candidates(out)
	var asked []string
	for i := range list {
		asked = append(asked, list[i].URL)
	}
	if want := []string{"http://127.0.0.1:8000", "http://127.0.0.1:8080", "http://127.0.0.1:30000", "http://127.0.0.1:11434"}; !slices.Equal(asked, want) {
		t.Errorf("it asks %q, want %q", asked, want)
	}

	// Another process takes the pid, the shell becomes an engine, and a process ends while it is looked at.
	tr.must(os.RemoveAll(filepath.Join(tr.dir, "7")))
	tr.add(7, 1, 900, "host", "llama-server")
	tr.write(13, "cmdline", "vllm\x00serve\x00")
	tr.must(os.Remove(filepath.Join(tr.dir, "8", "stat")))
	tr.must(os.RemoveAll(filepath.Join(tr.dir, "10")))
	tr.must(os.RemoveAll(filepath.Join(tr.dir, "12", "net")))
	out = tr.scan(s)
	got = nil
	for _, p := range out.Procs {
		got = append(got, fmt.Sprintf("%d %d %s %v", p.PID, p.Start, p.Args[0], p.Listen))
	}
	if want := []string{"7 900 llama-server []", "12 300 llama-server []", "13 400 vllm []"}; !slices.Equal(got, want) {
		t.Errorf("later it sees %q, want %q", got, want)
	}
	if _, there := out.Parents[8]; there {
		t.Error("a process that has ended is listed")
	}

	// The engine opens its port; its parent ends, and a child keeps the port.
	tr.add(14, 13, 950, "host", "VLLM::APIServer_0")
	tr.listen(95, "00000000:2328", "0A", 1, 7, 13, 14)
	tr.open(13, 3, 95)
	tr.open(14, 3, 95)
	if p := tr.scan(s).Procs; len(p) != 4 || fmt.Sprint(p[2].Listen, p[3].Listen) != "[0.0.0.0:9000] []" {
		t.Errorf("the new port is that of %+v", p)
	}
	tr.must(os.RemoveAll(filepath.Join(tr.dir, "13")))
	tr.must(os.RemoveAll(filepath.Join(tr.dir, "14", "net"))) // the table that counts is that of its namespace
	if p := tr.scan(s).Procs; len(p) != 3 || fmt.Sprintf("%d %v", p[2].PID, p[2].Listen) != "14 [0.0.0.0:9000]" {
		t.Errorf("after its end the port is that of %+v", p)
	}
}

// The files of a process of another user cannot be read: its port is the one that its command
// names, if something that nobody else has listens there.
func TestScannerDenied(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	tr := newTree(t)
	tr.add(7, 1, 200, "host", "ollama serve")
	tr.listen(70, "0100007F:2CAA", "0A", 1, 7)
	tr.listen(71, "0100007F:2CAB", "0A", 1, 7)
	for _, dir := range []string{"fd", "ns"} {
		name := filepath.Join(tr.dir, "7", dir)
		tr.must(os.Chmod(name, 0))
		t.Cleanup(func() { tr.must(os.Chmod(name, 0o755)) })
	}
	s, err := newScanner(tr.dir)
	tr.must(err)
	if p := tr.scan(s).Procs; len(p) != 1 || !p[0].Denied || fmt.Sprint(p[0].Listen) != "[127.0.0.1:11434]" {
		t.Errorf("it sees %+v", p)
	}
}

func TestParseSocket(t *testing.T) {
	for line, want := range map[string]string{
		"  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 42 1 0 100 0 0 10 0":                                  "127.0.0.1:8080 42",
		"  0: B80D0120000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 43 1": "[2001:db8::1]:8080 43",
		"  0: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 44 1": "127.0.0.1:8080 44",
		"  0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 42 1 0 100 0 0 10 0":                                  "",
		"  0: 0100007F:1F90":                      "",
		"  0: 0100007:1F90 0 0A 0 0 0 0 0 42 1":   "",
		"  0: 01007F:1F90 0 0A 0 0 0 0 0 42 1":    "",
		"  0: 0100007F:FFFF1 0 0A 0 0 0 0 0 42 1": "",
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode": "",
	} {
		k, ok := parseSocket([]byte(line))
		got := ""
		if ok {
			got = fmt.Sprint(k.at, k.inode)
		}
		if got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}

// The real /proc: this process listens, and is no engine.
func TestScannerOnThisMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := newScanner("/proc")
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out.Parents[uint64(os.Getpid())] != uint64(os.Getppid()) || out.Net == "" {
		t.Errorf("namespace %q, parent %d, want %d", out.Net, out.Parents[uint64(os.Getpid())], os.Getppid())
	}
	mine := netip.MustParseAddrPort(l.Addr().String())
	found := slices.ContainsFunc(s.table("self"), func(k socket) bool {
		self := s.known[os.Getpid()]
		s.own(self, map[uint64]bool{k.inode: true})
		return k.at == mine && s.owner[k.inode] == self
	})
	if !found {
		t.Errorf("it does not see %s", mine)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Scan(ctx); err == nil {
		t.Error("a scan without time is complete")
	}
}

func BenchmarkScan(b *testing.B) {
	s, err := newScanner("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Scan(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(s.known)), "processes")
}
