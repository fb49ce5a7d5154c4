package sim

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var (
	mutants = flag.Bool("sim.mutants", false, "TestMutants runs")
	search  = flag.Int("sim.search", 0, "in how many seeds TestMutants looks for a mutant that nothing reports")
	keepIn  = flag.String("sim.keep", "", "a directory for the shortened plans of the seeds that it finds so")
	asked   = flag.String("sim.ask", "", "what TestAsked runs")
)

const (
	root       = "../.." // of the module, as seen from here
	simulation = "./internal/sim"
)

// A mutant is the code with one fault in it, as an entry of testdata/mutants says.
type mutant struct {
	name     string
	file     string
	broken   string // the fault, in words
	old, new string
	red      []red
}

// red is what has to fail: a seed, a kept plan, or a test.
type red struct {
	what string // "seed 51", "plan queens-argue", "test ./internal/fleet TestX"
	by   string // the invariant; empty for a test
}

// TestMutants breaks the code in one place at a time. The seeds, kept plans and tests
// that are named beside the fault have to fail by it, and pass without it. The tree
// stays as it is: go builds with an overlay.
func TestMutants(t *testing.T) {
	if !*mutants {
		t.Skip("make mutants runs it")
	}
	list := readMutants(t)
	rows := make([]string, len(list))
	t.Cleanup(func() {
		t.Logf("\n| fault | reported by | invariant |\n|---|---|---|\n%s", strings.Join(rows, ""))
	})
	for i, m := range list {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			found := m.run(t)
			rows[i] = fmt.Sprintf("| %s | %s |\n", m.broken, found)
		})
	}
}

// run returns what reported m, for the table.
func (m *mutant) run(t *testing.T) (found string) {
	dir := t.TempDir()
	overlay := m.overlay(t, dir)
	var whats, bys []string
	for _, r := range m.red {
		if pkg, ok := strings.CutPrefix(r.what, "test "); ok {
			pkg, name, _ := strings.Cut(pkg, " ")
			if passes(t, compile(t, overlay, dir, pkg), pkg, name) {
				t.Errorf("%s passes", r.what)
			}
			whats, bys = append(whats, "`"+name+"`"), append(bys, "")
			continue
		}
		if by, text := answer(r.what); by != "" {
			t.Errorf("%s fails without the fault: %s, %s", r.what, by, text)
		}
		by, text := ask(t, compile(t, overlay, dir, simulation), r.what, time.Minute)
		if by != r.by {
			t.Errorf("%s: %q %s, want %q", r.what, by, text, r.by)
		}
		whats, bys = append(whats, r.what), append(bys, by)
	}
	if t.Failed() && *search > 0 {
		seed, text := ask(t, compile(t, overlay, dir, simulation), fmt.Sprintf("search %d", *search), time.Hour)
		t.Logf("found in %d seeds: %q %s", *search, seed, text)
		if *keepIn != "" && seed != "" {
			if err := os.Rename(filepath.Join(dir, "plan.json"), filepath.Join(*keepIn, m.name+".json")); err != nil {
				t.Error(err)
			}
		}
	}
	return strings.Join(whats, ", ") + " | " + strings.Join(bys, ", ")
}

// overlay writes what the flag -overlay of go build takes.
func (m *mutant) overlay(t *testing.T, dir string) string {
	path, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(code), m.old); n != 1 {
		t.Fatalf("%s has this %d times:\n%s", m.file, n, m.old)
	}
	broken, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: broken}})
	err = errors.Join(err,
		os.WriteFile(broken, []byte(strings.Replace(string(code), m.old, m.new, 1)), 0o600),
		os.WriteFile(overlay, replace, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return overlay
}

// compile builds the test binary of pkg, once.
func compile(t *testing.T, overlay, dir, pkg string) (binary string) {
	binary = filepath.Join(dir, filepath.Base(pkg)+".test")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	c := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, pkg)
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("the fault does not compile: %v\n%s", err, out)
	}
	return binary
}

// start runs a test binary in the directory of its package. Code with a fault may go on
// for ever, and take all memory for it.
func start(t *testing.T, binary, pkg string, within time.Duration, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", append([]string{"-c", `ulimit -v 4000000; exec "$0" "$@"`, binary}, args...)...)
	c.Dir = filepath.Join(root, pkg)
	b, err := c.CombinedOutput()
	return string(b), err
}

// passes reports whether a test passes with the fault. Without it, it has to.
func passes(t *testing.T, binary, pkg, name string) bool {
	whole := exec.CommandContext(t.Context(), "go", "test", "-v", "-run", "^"+name+"$", pkg)
	whole.Dir = root
	if out, err := whole.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
		t.Errorf("%s does not pass without the fault: %v\n%s", name, err, out)
	}
	out, err := start(t, binary, pkg, time.Minute, "-test.run", "^"+name+"$")
	if err != nil && !strings.Contains(out, "--- FAIL: "+name) {
		t.Errorf("%s does not fail, it breaks off: %v\n%.5000s", name, err, out)
	}
	return err == nil
}

// ask has TestAsked of a test binary run one thing, and returns what it found.
func ask(t *testing.T, binary, what string, within time.Duration) (by, text string) {
	out, err := start(t, binary, simulation, within, "-test.run", "^TestAsked$", "-test.timeout", "0", "-sim.ask", what, "-sim.keep", filepath.Dir(binary))
	for line := range strings.Lines(out) {
		if n, _ := fmt.Sscanf(line, "answer %q %q", &by, &text); n == 2 {
			return by, text
		}
	}
	t.Fatalf("%s: %v\n%.5000s", what, err, out)
	return "", ""
}

// TestAsked is how TestMutants runs something in a test binary with a fault.
func TestAsked(t *testing.T) {
	if *asked == "" {
		t.Skip("TestMutants runs it")
	}
	by, text := answer(*asked)
	fmt.Printf("answer %q %q\n", by, text)
}

// answer runs a seed or a kept plan, and returns the invariant that it breaks, or
// searches many seeds, and returns the first one that breaks any.
func answer(what string) (by, text string) {
	kind, arg, _ := strings.Cut(what, " ")
	n, err := strconv.Atoi(arg)
	var p Plan
	switch kind {
	case "plan":
		p, err = ReadPlan(filepath.Join(keepFailed, arg+".json"))
	case "seed":
		p = Generate(uint64(n), 0, 0)
	case "search":
		s := RunSeeds(1, n, 0, 0, 1, nil)
		if len(s.Failed) == 0 {
			return "", ""
		}
		f := s.Failed[0]
		r := Shorten(f.Plan, f.Broken.Invariant)
		r.Plan.Why = r.Broken.String()
		if err := WritePlan(filepath.Join(*keepIn, "plan.json"), r.Plan); err != nil {
			return "", err.Error()
		}
		return fmt.Sprintf("seed %d", f.Plan.Seed), f.Broken.String()
	default:
		err = errors.New("a seed, a plan or a search")
	}
	if err != nil {
		return "error", fmt.Sprintf("%s: %v", what, err)
	}
	r, err := Run(p, false)
	if err != nil {
		return "error", err.Error()
	}
	if r.Broken != nil {
		return string(r.Broken.Invariant), r.Broken.String()
	}
	return "", ""
}

// readMutants reads testdata/mutants, whose README says how an entry looks.
func readMutants(t *testing.T) (list []mutant) {
	files, err := filepath.Glob("testdata/mutants/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no mutants: %v", err)
	}
	names := make(map[string]bool)
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			m, err := parseMutant(f.Name, string(f.Data))
			if err != nil || names[f.Name] {
				t.Errorf("%s: %s: %v, twice: %t", file, f.Name, err, names[f.Name])
			}
			names[f.Name] = true
			list = append(list, m)
		}
	}
	return list
}

func parseMutant(name, data string) (mutant, error) {
	m := mutant{name: name}
	head, hunk, _ := strings.Cut(data, "\n\n")
	for line := range strings.Lines(head + "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "file":
			m.file = value
		case "fault":
			m.broken = value
		case "red":
			what, by, _ := strings.Cut(value, ": ")
			m.red = append(m.red, red{what, by})
		default:
			return m, fmt.Errorf("line %q", line)
		}
	}
	for line := range strings.Lines(strings.TrimRight(hunk, "\n") + "\n") {
		switch text := line[1:]; line[0] {
		case ' ':
			m.old, m.new = m.old+text, m.new+text
		case '-':
			m.old += text
		case '+':
			m.new += text
		case '\n':
			m.old, m.new = m.old+line, m.new+line
		default:
			return m, fmt.Errorf("line %q", line)
		}
	}
	if m.file == "" || m.broken == "" || m.old == "" || m.old == m.new || len(m.red) == 0 {
		return m, errors.New("it takes a file, a fault, what is red, and lines that change")
	}
	return m, nil
}
