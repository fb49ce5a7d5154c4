//go:build e2e

// Package top drives "hivebeat top" in a real terminal, tmux: keys go in, screens come out.
package top

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/internal/top/toptest"
)

func TestMain(m *testing.M) { rig.Main(m) }

// moment is how long anything may take that does not wait for a deadline.
const moment = 20 * time.Second

// terminal is a shell in tmux.
type terminal struct {
	t      *testing.T
	socket string
	home   string // the working directory of the shell
}

func open(t *testing.T, width, height int, env ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed")
	}
	dir, err := os.MkdirTemp("", "tmux") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	x := &terminal{t, filepath.Join(dir, "s"), dir}
	clean := append([]string{"env", "-i", "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8", "PS1=$ "}, env...)
	conf := filepath.Join(dir, "conf")
	text := "set -g default-terminal screen-256color\nset -g escape-time 0\nset -g status off\nset -g default-shell /bin/sh\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := append(clean, "tmux", "-u", "-S", x.socket, "-f", conf, "new-session", "-d", "-c", dir, "-x", strconv.Itoa(width), "-y", strconv.Itoa(height), "sh")
	if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", x.socket, "kill-server").Run() })
	x.shows("\\$")
	return x
}

func (x *terminal) tmux(args ...string) string {
	x.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", x.socket}, args...)...).CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// keys presses keys by tmux's names: Down, Enter, Escape, C-c.
func (x *terminal) keys(names ...string) {
	x.t.Helper()
	x.tmux(append([]string{"send-keys"}, names...)...)
}

func (x *terminal) types(text string) {
	x.t.Helper()
	x.tmux("send-keys", "-l", text)
}

func (x *terminal) screen() string {
	x.t.Helper()
	return x.tmux("capture-pane", "-p")
}

// keep writes the screen to the folder HIVEBEAT_SCREENS, if that is set.
func (x *terminal) keep(name string) {
	x.t.Helper()
	if dir := os.Getenv("HIVEBEAT_SCREENS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(x.screen()), 0o600); err != nil {
			x.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".ansi"), []byte(x.tmux("capture-pane", "-p", "-e")), 0o600); err != nil {
			x.t.Fatal(err)
		}
	}
}

// shows waits until all texts are on the screen. It removes backslashes from texts first.
func (x *terminal) shows(texts ...string) {
	x.t.Helper()
	rig.Until(x.t, moment, "the screen", func() (bool, string) {
		s := x.screen()
		for _, text := range texts {
			if text = strings.ReplaceAll(text, "\\", ""); !strings.Contains(s, text) {
				return false, text + " is not on the screen:\n" + s
			}
		}
		return true, ""
	})
}

func (x *terminal) hides(texts ...string) {
	x.t.Helper()
	rig.Until(x.t, moment, "the screen", func() (bool, string) {
		s := x.screen()
		for _, text := range texts {
			if strings.Contains(s, text) {
				return false, text + " is on the screen:\n" + s
			}
		}
		return true, ""
	})
}

// restored fails the test unless the terminal is restored for the shell.
func (x *terminal) restored() {
	x.t.Helper()
	if s := x.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}"); s != "0 1\n" {
		x.t.Errorf("alternate screen and cursor are %q, want 0 and 1", s)
	}
	x.types("stty -a")
	x.keys("Enter")
	x.shows("isig", "icanon", "echo ")
	for _, off := range []string{"-isig", "-icanon", "-echo "} {
		if s := x.screen(); strings.Contains(s, off) {
			x.t.Errorf("the terminal is left with %s:\n%s", off, s)
		}
	}
	x.types("clear")
	x.keys("Enter")
	x.hides("icanon")
}

// fleet serves a stand-in queen with a fleet that does not change.
func fleet(t *testing.T, hives, each int) (url string, q *toptest.Queen) {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream())
	q = &toptest.Queen{Hives: hives, Each: each}
	if err := q.Serve(bustest.Conn(t, srv)); err != nil {
		t.Fatal(err)
	}
	return srv.URL(), q
}

func TestLargeFleet(t *testing.T) {
	url, q := fleet(t, 10_000, 20)
	nc := rig.Connect(t, url)
	x := open(t, 120, 35)
	x.types(rig.Hivebeat(t) + " top --nats " + url + "; echo left $?")
	x.keys("Enter")
	x.shows("hivebeat top · "+url, "sure · 10,000 hives", "200,000 workers", "▸ gpu-00000", "of 10,000", "answer 0s old")
	x.keep("hives")

	x.keys("Down", "Down", "Enter")
	x.shows("Hives › gpu-00002", "host", "A100", "EVENTS", "▸ gpu-00002/w00")
	x.keep("hive")
	x.keys("f")
	x.shows("› facts", "counters")
	x.keep("facts")
	x.keys("Escape")
	x.hides("› facts")
	x.keys("Down", "Enter")
	x.shows("› gpu-00002/w01", "endpoint")
	x.keep("worker")
	x.keys("Escape")
	x.hides("endpoint")
	x.keys("Escape")
	x.shows("[1 Hives]", "▸ gpu-00002")

	x.keys("2", "End")
	x.shows("▸ gpu-09999/w19", "200,000 of 200,000")
	x.keep("workers-end")
	x.keys("s", "r")
	x.shows("sort live ▼", "LIVE▼", "▸ ")
	x.keys("/")
	x.types("model=llama-3-8b live=late")
	x.keep("typing")
	x.keys("Enter")
	x.shows("filter model=llama-3-8b live=late", "▸ ")
	x.hides("whisper-large")
	x.keep("filtered")
	x.keys("3")
	x.shows("200 events", "older ones")
	ev, err := (hivebeat.Subjects{}).NewEvent("new", time.Now().Add(time.Hour), hivebeat.EventData{
		Hive: "gpu-07777", Worker: "w03", Kind: hivebeat.KindLost, From: "alive", To: "lost", Cause: hivebeat.CauseExit,
	}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("queen.events.gpu-07777.w03.lost", ev); err != nil {
		t.Fatal(err)
	}
	x.shows("gpu-07777/w03", "201 events")
	x.keep("events")
	x.keys("?")
	x.shows("Everywhere", "take the filter away")
	x.keep("help")
	x.keys("Escape")
	x.hides("Everywhere")
	x.keys("1")
	x.shows("[1 Hives]")

	// It follows the size of the terminal, and drops columns like ls.
	x.tmux("resize-window", "-x", "60", "-y", "16")
	x.hides("UTIL", "RAM GiB")
	x.shows("HIVE▲", "LIVE", "AGE", "q quit")
	x.keep("narrow")
	x.tmux("resize-window", "-x", "120", "-y", "35")
	x.shows("UTIL", "RAM GiB")

	q.Hush(true)
	x.shows("CUT OFF for", "no queen answers", "alive?", "may not be any more")
	x.shows("CUT OFF for 5s")
	x.keep("cut-off")
	q.Hush(false)
	x.hides("CUT OFF", "alive?")

	if _, most, _ := q.Seen(); most > 2*35+1 {
		t.Errorf("%d rows in one answer for a screen of 35", most)
	}

	// To the shell and back.
	x.keys("C-z")
	x.shows("Stopped")
	x.types("fg")
	x.keys("Enter")
	x.shows("[1 Hives]", "answer 0s old")

	x.keys("q")
	x.hides("hivebeat top ·")
	x.restored()
}

func TestLeaving(t *testing.T) {
	url, q := fleet(t, 3, 2)
	x := open(t, 100, 24, "NO_COLOR=1")
	start := func() {
		x.types("clear; sh -c 'echo $$ >pid; exec " + rig.Hivebeat(t) + " top --nats " + url + "'; echo left $?")
		x.keys("Enter")
		x.shows("▸ gpu-00000")
	}
	start()
	if s := x.tmux("capture-pane", "-p", "-e"); strings.Contains(s, "\x1b[") {
		t.Errorf("NO_COLOR, and there is colour in %q", s)
	}
	x.keep("no-color")
	x.keys("C-c")
	x.shows("left 0")
	x.restored()

	// A signal quits in order, even while the queen is silent.
	start()
	q.Hush(true)
	x.shows("CUT OFF")
	x.keep("no-color-cut-off")
	b, err := os.ReadFile(filepath.Join(x.home, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	x.shows("left 0")
	x.restored()
}

func TestNoTerminal(t *testing.T) {
	url, _ := fleet(t, 1, 1)
	_, stderr, code := rig.CLI(t, nil, "top", "--nats", url)
	if code != 2 || !strings.Contains(stderr, "top needs a terminal") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
