//go:build e2e

// Package natscli runs the commands that README.md shows for the nats CLI, with the real CLI,
// against a real hivebeat up --demo.
package natscli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// marker precedes a fenced block of README.md whose lines are run here.
const marker = "<!-- e2e: natscli -->"

const moment = 30 * time.Second

// expected is the expected output of a line. must is set for lines that the README must
// contain.
type expected struct {
	line, output string
	must         bool
}

// shows holds patterns of lines and outputs; the first one that matches is used.
var shows = []expected{
	{`^nats sub 'queen\.events\.>'$`, `"specversion":\s*"1\.0"(?s:.*)"type":\s*"hivebeat\.`, true},
	{`^nats sub queen\.hives --translate "hivebeat decode"$`, `"hive":\s*"gpu-0\d"(?s:.*)"workers":`, true},
	{`^nats sub 'hive\.\*\.workers' --translate "hivebeat decode"$`, `"worker":\s*"(?s:.*)"seq":`, true},
	{`^nats kv ls queen_hives$`, `gpu-01`, true},
	{`^nats kv get queen_hives gpu-01 --raw \| hivebeat decode`, `"hive":\s*"gpu-01"(?s:.*)"workers":`, true},
	{`QUEEN_EVENTS`, `hivebeat\.(worker|hive)\.`, false},
	{`queen_roster`, `gpu-01`, false},
	{`queen\.api\.summary`, `"hives":`, false},
	{`queen\.api\.`, `"status":`, false},
	{`^nats micro `, `queen`, false},
}

func TestREADME(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(rig.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := marked(string(readme))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shows {
		re := regexp.MustCompile(s.line)
		if s.must && !slices.ContainsFunc(lines, re.MatchString) {
			t.Errorf("README.md has no line like %s below %s", s.line, marker)
		}
	}

	// The programs are called by name, like in the README.
	bin := t.TempDir()
	for name, path := range map[string]string{"hivebeat": rig.Hivebeat(t), "nats": rig.Install(t, rig.NATSCLI)} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	port := rig.Port(t)
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "NATS_URL=" + url, "HIVEBEAT_NATS=" + url}
	up := rig.Start(t, "up --demo", env, filepath.Join(bin, "hivebeat"), "up", "--demo", "--port", fmt.Sprint(port))
	up.Said("hivebeat is up", moment)
	rig.Until(t, moment, "the demo", func() (bool, string) {
		out, errs, _ := rig.CLI(t, env, "ls", "workers")
		return strings.Contains(out, "gpu-01/"), out + errs
	})

	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			t.Parallel() // some wait for a beat
			i := slices.IndexFunc(shows, func(e expected) bool { return regexp.MustCompile(e.line).MatchString(line) })
			if i < 0 {
				t.Fatalf("nobody said what %q should print\nhint: add it to shows in this test", line)
			}
			p := rig.Start(t, line, env, "/bin/sh", "-c", "exec "+line)
			p.Said(shows[i].output, moment)
			if !p.Ended() { // a subscription runs until Ctrl-C
				p.Signal(syscall.SIGINT)
			}
			p.Wait(moment)
			t.Logf("printed:\n%.600s", p.Output())
		})
	}
}

// marked returns the commands in the fenced blocks below the markers, without prompts and
// comments.
func marked(markdown string) ([]string, error) {
	var lines []string
	parts := strings.Split(markdown, marker)
	for _, part := range parts[1:] {
		_, rest, ok := strings.Cut(part, "```")
		_, rest, ok2 := strings.Cut(rest, "\n")
		block, _, ok3 := strings.Cut(rest, "```")
		if !ok || !ok2 || !ok3 {
			return nil, fmt.Errorf("README.md: no fenced block below %s", marker)
		}
		for line := range strings.Lines(block) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			line, _, _ = strings.Cut(line, " # ")
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("README.md: no commands below %s", marker)
	}
	return lines, nil
}
