package sim

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var (
	mutants = flag.Bool("sim.mutants", false, "TestMutants runs")
	search  = flag.Int("sim.search", 400, "in how many seeds TestMutants looks for one that reports a fault")
	keepIn  = flag.String("sim.keep", "", "a directory: TestMutants puts shortened plans there of the seeds that it finds")
	asked   = flag.String("sim.ask", "", "what TestAsked runs")
)

const (
	root       = "../.." // of the module, relative to this directory
	simulation = "./internal/sim"
)

// A mutant is the code with one fault, as described by an entry of testdata/mutants.
type mutant struct {
	name     string
	file     string
	broken   string // the fault, in words
	old, new string
	red      []red
}

// red is something that must fail.
type red struct {
	what string // "seed": one of the first -sim.search; "plan queens-argue"; "test ./internal/fleet TestX"
	by   string // the invariant; empty for a test
}

// test returns the package and the name of a test.
func (r *red) test() (pkg, name string, ok bool) {
	what, ok := strings.CutPrefix(r.what, "test ")
	pkg, name, _ = strings.Cut(what, " ")
	return pkg, name, ok
}

// TestMutants breaks the code in one place at a time. The seeds, kept plans and tests that are
// listed for a fault must fail with it and pass without it. The tree is not changed: go builds
// with an overlay.
func TestMutants(t *testing.T) {
	if !*mutants {
		t.Skip("make mutants runs it")
	}
	list := readMutants(t)
	rows := make([]string, len(list))
	t.Cleanup(func() {
		t.Logf("\n| fault | reported by | invariant |\n|---|---|---|\n%s", strings.Join(rows, ""))
	})
	names := make(map[string][]string) // of tests, by package
	for i := range list {
		for _, r := range list[i].red {
			if pkg, name, ok := r.test(); ok {
				names[pkg] = append(names[pkg], name)
			}
		}
	}
	whole := make(map[string]func() string) // output of the tests without a fault, by package
	for pkg, list := range names {
		whole[pkg] = sync.OnceValue(func() string {
			c := exec.CommandContext(t.Context(), "go", "test", "-v", "-run", "^("+strings.Join(list, "|")+")$", pkg)
			c.Dir = root
			out, _ := c.CombinedOutput() // only the lines of the tests count
			return string(out)
		})
	}
	for i := range list {
		m := &list[i]
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			found := m.run(t, whole)
			rows[i] = fmt.Sprintf("| %s | %s |\n", m.broken, found)
		})
	}
}

// TestMutantsMatchTheCode fails if a mutant no longer matches the code, or is not in the table
// of docs/RELIABILITY.md.
func TestMutantsMatchTheCode(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/RELIABILITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range readMutants(t) {
		if _, _, err := m.code(); err != nil {
			t.Errorf("testdata/mutants, %s: %v", m.name, err)
		}
		if !strings.Contains(string(page), "\n| "+m.broken+" |") {
			t.Errorf("docs/RELIABILITY.md has no row for %q: make mutants prints it", m.broken)
		}
		for _, r := range m.red {
			if plan, ok := strings.CutPrefix(r.what, "plan "); ok {
				if _, err := ReadPlan(filepath.Join(keepFailed, plan+".json")); err != nil {
					t.Errorf("%s: %v", m.name, err)
				}
			}
		}
	}
}

// run returns what detected m, for the table.
func (m *mutant) run(t *testing.T, whole map[string]func() string) (found string) {
	dir := t.TempDir()
	overlay := m.overlay(t, dir)
	var whats, bys []string
	for _, r := range m.red {
		if pkg, name, ok := r.test(); ok {
			if !strings.Contains(whole[pkg](), "--- PASS: "+name+" ") {
				t.Errorf("%s does not pass without the fault:\n%.5000s", r.what, whole[pkg]())
			}
			if passes(t, compile(t, overlay, dir, pkg), pkg, name) {
				t.Errorf("%s passes", r.what)
			}
			whats = append(whats, fmt.Sprintf("`%s.%s`", filepath.Base(pkg), name))
			continue
		}
		what := r.what
		if what == "seed" {
			what = m.search(t, overlay, dir, r.by)
		} else if by, text := ask(t, compile(t, overlay, dir, simulation), what, ""); by != r.by {
			t.Errorf("%s: %q %s, want %q", what, by, text, r.by)
			if *keepIn != "" {
				m.search(t, overlay, dir, r.by)
			}
		}
		if by, text := answer(what); what != "" && by != "" {
			t.Errorf("%s fails without the fault: %s, %s", what, by, text)
		}
		whats, bys = append(whats, what), append(bys, r.by)
	}
	return strings.Join(whats, ", ") + " | " + cmp.Or(strings.Join(bys, ", "), "–")
}

// search returns the first seed that breaks an invariant.
func (m *mutant) search(t *testing.T, overlay, dir, by string) (seed string) {
	keep := ""
	if *keepIn != "" {
		keep = filepath.Join(*keepIn, m.name+".json")
	}
	seed, text := ask(t, compile(t, overlay, dir, simulation), fmt.Sprintf("search %d %s", *search, by), keep)
	t.Logf("%s in %d seeds: %q %s", by, *search, seed, text)
	if seed == "" {
		t.Errorf("none of %d seeds breaks: %s", *search, by)
	}
	return seed
}

// code returns the file with the fault, and its path.
func (m *mutant) code() (path, code string, err error) {
	path, err = filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		return "", "", err
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	if n := strings.Count(string(whole), m.old); n != 1 {
		return "", "", fmt.Errorf("%s has this %d times:\n%s", m.file, n, m.old)
	}
	return path, strings.Replace(string(whole), m.old, m.new, 1), nil
}

// overlay writes the file for go build's flag -overlay.
func (m *mutant) overlay(t *testing.T, dir string) string {
	path, code, err := m.code()
	if err != nil {
		t.Fatal(err)
	}
	broken, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: broken}})
	err = errors.Join(err, os.WriteFile(broken, []byte(code), 0o600), os.WriteFile(overlay, replace, 0o600))
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
	c := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, pkg)
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("the fault does not compile: %v\n%s", err, out)
	}
	return binary
}

// start runs a test binary in the directory of its package. Code with a fault may run forever
// and allocate without end, so its memory is limited.
func start(t *testing.T, binary, pkg string, args ...string) (out string, err error) {
	c := exec.CommandContext(t.Context(), "bash", append([]string{"-c", `ulimit -v 4000000; exec "$0" "$@"`, binary}, args...)...)
	c.Dir = filepath.Join(root, pkg)
	b, err := c.CombinedOutput()
	return string(b), err
}

// passes reports whether a test passes with the fault.
func passes(t *testing.T, binary, pkg, name string) bool {
	out, err := start(t, binary, pkg, "-test.run", "^"+name+"$", "-test.timeout", "1m")
	if err != nil && !strings.Contains(out, "--- FAIL: "+name) {
		t.Errorf("%s does not fail, it breaks off: %v\n%.5000s", name, err, out)
	}
	return err == nil
}

// ask makes TestAsked of a test binary run one thing, and returns what it found. keep is the
// file for the shortened plan, or empty.
func ask(t *testing.T, binary, what, keep string) (by, text string) {
	within := "10m"
	if keep != "" {
		within = "0"
	}
	out, err := start(t, binary, simulation, "-test.run", "^TestAsked$", "-test.timeout", within, "-sim.ask", what, "-sim.keep", keep)
	for line := range strings.Lines(out) {
		if n, _ := fmt.Sscanf(line, "answer %q %q", &by, &text); n == 2 {
			return by, text
		}
	}
	t.Fatalf("%s: %v\n%.5000s", what, err, out)
	return "", ""
}

// TestAsked lets TestMutants run something in a test binary with a fault.
func TestAsked(t *testing.T) {
	if *asked == "" {
		t.Skip("TestMutants runs it")
	}
	by, text := answer(*asked)
	fmt.Printf("answer %q %q\n", by, text)
}

// answer runs a seed or a kept plan, and returns the invariant that it breaks. Or it searches
// many seeds, and returns the first one that breaks a given invariant.
func answer(what string) (by, text string) {
	kind, arg, _ := strings.Cut(what, " ")
	arg, by, _ = strings.Cut(arg, " ")
	n, err := strconv.Atoi(arg)
	var p Plan
	switch kind {
	case "plan":
		p, err = ReadPlan(filepath.Join(keepFailed, arg+".json"))
	case "seed":
		p = Generate(uint64(n), 0, 0)
	case "search":
		return first(n, Invariant(by))
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

// first returns the first of n seeds that breaks an invariant. -sim.keep is a file here.
func first(n int, by Invariant) (seed, text string) {
	for i := range uint64(n) {
		r, err := Run(Generate(1+i, 0, 0), false)
		if err != nil || r.Broken == nil || r.Broken.Invariant != by {
			continue
		}
		if *keepIn != "" {
			s := Shorten(r.Plan, by)
			s.Plan.Why = s.Broken.String()
			if err := WritePlan(*keepIn, s.Plan); err != nil {
				return "", err.Error()
			}
		}
		return fmt.Sprintf("seed %d", 1+i), r.Broken.String()
	}
	return "", ""
}

// readMutants reads testdata/mutants. An entry is
//
//	file: the file that is broken
//	fault: how, for the table in docs/RELIABILITY.md
//	red: seed: the invariant that one of the first 400 seeds breaks
//	red: plan NAME: the invariant that a kept plan breaks
//	red: test PACKAGE NAME
//
// with one or more of the last three lines. After an empty line follows the change as a diff,
// with enough context to match once. Text above the first entry of a file is for people.
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
