// Package apilock compares the exported Go API with the recorded one, so that no change
// of it goes unnoticed. The directory api holds one file for each public package: its
// exported declarations in the order of go doc, without comments and function bodies.
// Types of internal packages must not appear in them, because no importer can name them.
package apilock_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
)

var update = flag.Bool("update", false, "record the API as it is now")

const (
	root     = "../.." // of the module, relative to this package
	module   = "github.com/beatfabric/hivebeat"
	recorded = root + "/api"
)

// unexported lists the internal types that public declarations still name.
var unexported = map[string]bool{
	"hive: detector.Histogram":      true,
	"hive/metrics: prom.Families":   true,
	"queen: detector.Histogram":     true,
	"queen: ledger.PutterStats":     true,
	"queen/metrics: prom.Families":  true,
	"worker/metrics: prom.Families": true,
}

func TestAPI(t *testing.T) {
	now := make(map[string]string) // by file name
	for _, dir := range packages(t) {
		name, text := render(t, dir)
		now[name] = text
	}
	was := read(t)
	if *update {
		write(t, was, now)
		return
	}
	var changes []byte
	for _, name := range slices.Sorted(maps.Keys(merged(was, now))) {
		changes = append(changes, diff.Diff("api/"+name+" (recorded)", []byte(was[name]), "api/"+name+" (now)", []byte(now[name]))...)
	}
	if len(changes) > 0 {
		t.Errorf("the exported API changed:\n%s\nhint: if that is intended, say it in CHANGELOG.md in one line, then run \"make api\" and commit both", changes)
	}
}

// packages returns the directories of the public packages, relative to the module.
func packages(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		dir, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		_, err = os.Stat(filepath.Join(name, "go.mod"))
		base := filepath.Base(dir)
		if dir != "." && (err == nil || base == "internal" || base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
			return filepath.SkipDir
		}
		if p, err := importDir(name); err == nil && p.Name != "main" && len(p.GoFiles) > 0 {
			dirs = append(dirs, filepath.ToSlash(dir))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(dirs, "bus") {
		t.Fatalf("bus is not among the public packages: %q", dirs)
	}
	return dirs
}

// importDir selects the files of a package as on Linux, whatever this machine is.
func importDir(dir string) (*build.Package, error) {
	c := build.Default
	c.GOOS, c.GOARCH, c.CgoEnabled, c.BuildTags = "linux", "amd64", false, nil
	return c.ImportDir(dir, 0)
}

// render returns the exported API of a package, and the name of its file in api.
func render(t *testing.T, dir string) (name, text string) {
	t.Helper()
	p, err := importDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	internal := make(map[string]bool) // names of imported internal packages
	for _, file := range p.GoFiles {
		f, err := parser.ParseFile(set, filepath.Join(p.Dir, file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		for _, i := range f.Imports {
			if from := strings.Trim(i.Path.Value, `"`); strings.HasPrefix(from, module+"/") && strings.Contains(from, "/internal/") {
				name := path.Base(from)
				if i.Name != nil {
					name = i.Name.Name
				}
				internal[name] = true
			}
		}
	}
	importPath := path.Join(module, dir)
	d, err := doc.NewFromFiles(set, files, importPath)
	if err != nil {
		t.Fatal(err)
	}

	var b strings.Builder
	fmt.Fprintf(&b, "package %s // import %q\n", d.Name, importPath)
	show := func(n ast.Node) {
		b.WriteString("\n" + source(t, n) + "\n")
		ast.Inspect(n, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok { // the value of a variable may come from anywhere
				v.Values = nil
			}
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := s.X.(*ast.Ident)
			if what := fmt.Sprintf("%s: %s", dir, source(t, s)); ok && internal[x.Name] && !unexported[what] {
				t.Errorf("%s is an internal type in an exported declaration: no importer can name it", what)
			}
			return true
		})
	}
	values := func(list []*doc.Value) {
		for _, v := range list {
			show(v.Decl)
		}
	}
	funcs := func(list []*doc.Func) {
		for _, f := range list {
			f.Decl.Body = nil
			show(f.Decl)
		}
	}
	values(d.Consts)
	values(d.Vars)
	funcs(d.Funcs)
	for _, t := range d.Types {
		show(t.Decl)
		values(t.Consts)
		values(t.Vars)
		funcs(t.Funcs)
		funcs(t.Methods)
	}
	if dir == "." {
		dir = path.Base(module)
	}
	return strings.ReplaceAll(dir, "/", "-") + ".txt", b.String()
}

// source prints a node without columns, so that one longer name changes one line.
func source(t *testing.T, n ast.Node) string {
	t.Helper()
	var b bytes.Buffer
	c := printer.Config{Mode: printer.RawFormat}
	if err := c.Fprint(&b, token.NewFileSet(), n); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("\xff", "", "\f", "\n", "\v", " ", "}// contains", "} // contains").Replace(b.String())
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		in := len(line) - len(strings.TrimLeft(line, "\t "))
		lines[i] = strings.ReplaceAll(line[:in], " ", "\t") + strings.Join(strings.Fields(line[in:]), " ")
	}
	return strings.Join(slices.DeleteFunc(lines, func(s string) bool { return strings.TrimSpace(s) == "" }), "\n")
}

// read returns the recorded API.
func read(t *testing.T) map[string]string {
	t.Helper()
	list := make(map[string]string)
	names, err := filepath.Glob(filepath.Join(recorded, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		list[filepath.Base(name)] = string(b)
	}
	return list
}

// write records the API, and says which files changed.
func write(t *testing.T, was, now map[string]string) {
	t.Helper()
	if err := os.MkdirAll(recorded, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(merged(was, now))) {
		text, ok := now[name]
		switch file := filepath.Join(recorded, name); {
		case !ok:
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		case text == was[name]:
			continue
		default:
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("api/%s changed: CHANGELOG.md needs a line about it", name)
	}
}

func merged(a, b map[string]string) map[string]string {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}
