package hivebeat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const architecture = "docs/ARCHITECTURE.md"

// maxStops is how many stops a walk through the files may have.
const maxStops = 10

var (
	quoted   = regexp.MustCompile("`([^`\n]+)`")
	fenced   = regexp.MustCompile("(?ms)^```.*?^```")
	linked   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fileName = regexp.MustCompile(`^[\w/.-]+\.(go|js|css|json|html|py|md|yaml)$`)
	method   = regexp.MustCompile(`^[A-Z]\w*\.[A-Za-z]\w*$`)
	anchored = regexp.MustCompile(`<a id="([^"]+)">`)
)

// Whatever file, folder or heading a page names is there.
func TestDocsNameWhatExists(t *testing.T) {
	top := map[string]bool{}
	list, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		top[e.Name()] = e.IsDir() && e.Name() != "testdata" // any package has one
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/design/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, more...), "README.md", "CONTRIBUTING.md", "SECURITY.md")
	if len(pages) < 15 {
		t.Fatalf("only %d pages were found: %q", len(pages), pages)
	}
	for _, page := range pages {
		text := read(t, page)
		for _, name := range names(text) {
			if first, _, below := strings.Cut(name, "/"); below && top[first] && !strings.ContainsAny(name, "*{<… ") && !exists(name) {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
		for _, m := range linked.FindAllStringSubmatch(text, -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			at := page
			if target != "" {
				at = path.Join(path.Dir(page), target)
			}
			if !exists(at) {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
			} else if heading != "" && !slices.Contains(anchors(read(t, at)), heading) {
				t.Errorf("%s links to %s, which %s does not have", page, m[1], at)
			}
		}
	}
}

// A table of the page names a file, and in the next cell what the file declares. A walk is
// short.
func TestArchitectureNamesFunctions(t *testing.T) {
	checked, walk, stops := 0, "", 0
	for line := range strings.Lines(read(t, architecture)) {
		if heading, ok := strings.CutPrefix(line, "### "); ok {
			walk, stops = strings.TrimSpace(heading), 0
		} else if strings.HasPrefix(line, "## ") {
			walk = ""
		}
		row := cells(line)
		for i, cell := range row {
			file, ok := single(cell)
			if !ok || !fileName.MatchString(file) || i+1 == len(row) {
				continue
			}
			functions := names(row[i+1])
			if len(functions) == 0 {
				t.Errorf("%s: no function is named for %s", line, file)
			}
			declared := declarations(t, file)
			for _, f := range functions {
				if checked++; !declared[f] {
					t.Errorf("%s names %s, which %s does not declare", architecture, f, file)
				}
			}
			checkMethods(t, line, strings.Join(row[i+2:], " "))
			if stops++; walk != "" && stops > maxStops {
				t.Errorf("the walk %q has more than %d stops", walk, maxStops)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d functions were found in the tables of %s", checked, architecture)
	}
}

// checkMethods checks that what text calls a method is one in the folder of a file that the
// line names.
func checkMethods(t *testing.T, line, text string) {
	t.Helper()
	for _, name := range names(text) {
		if !method.MatchString(name) || fileName.MatchString(name) {
			continue
		}
		found := false
		for _, file := range names(line) {
			if strings.HasSuffix(file, ".go") {
				for _, beside := range sources(t, path.Dir(file)) {
					found = found || declarations(t, path.Join(path.Dir(file), beside))[name]
				}
			}
		}
		if !found {
			t.Errorf("%s names %s, which is beside no file of its line:\n%s", architecture, name, line)
		}
	}
}

// A table that lists the files of a package lists all of them.
func TestArchitectureListsFiles(t *testing.T) {
	listed := 0
	for line := range strings.Lines(read(t, architecture)) {
		row := cells(line)
		if len(row) != 2 {
			continue
		}
		dir, ok := single(row[0])
		if !ok || !exists(dir) {
			continue
		}
		var files []string
		for _, name := range names(row[1]) {
			if fileName.MatchString(name) && !strings.Contains(name, "/") {
				files = append(files, name)
			}
		}
		if len(files) == 0 {
			continue
		}
		listed++
		slices.Sort(files)
		if there := sources(t, dir); !slices.Equal(files, there) {
			t.Errorf("%s lists for %s\n%q, and there are\n%q", architecture, dir, files, there)
		}
	}
	if listed == 0 {
		t.Errorf("%s lists the files of no package", architecture)
	}
}

// Each package has a row in the table of packages, and imports none of a row above. The
// packages for tests are in a separate table, and import any. The roles import none of each
// other.
func TestArchitectureOrdersPackages(t *testing.T) {
	const module = "github.com/beatfabric/hivebeat"
	above, tests := map[string]int{}, map[string]bool{}
	for _, section := range []struct {
		after string
		add   func(row int, dir string)
	}{
		{"## Layout", func(row int, dir string) { above[dir] = row }},
		{"For tests", func(_ int, dir string) { tests[dir] = true }},
	} {
		_, text, ok := strings.Cut(read(t, architecture), "\n"+section.after)
		if !ok {
			t.Fatalf("%s has no %q", architecture, section.after)
		}
		row := 0
		for line := range strings.Lines(text[strings.Index(text, "| package |"):]) {
			columns := cells(line)
			if columns == nil {
				break
			}
			row++
			for _, dir := range names(columns[0]) {
				section.add(row, dir)
			}
		}
	}
	if len(above) < 30 || len(tests) < 5 {
		t.Fatalf("%d packages and %d for tests are in the tables of %s", len(above), len(tests), architecture)
	}
	// An internal package without a row is a part of the one above it.
	rowOf := func(dir string) (row int, ok bool) {
		for at := dir; at != "."; at = path.Dir(at) {
			if row, ok := above[at]; tests[at] || ok && (at == dir || strings.HasPrefix(at, "internal/")) {
				return row, true
			}
		}
		row, ok = above[dir]
		return row, ok
	}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		dir := filepath.ToSlash(name)
		if base := d.Name(); base == "testdata" || dir != "." && strings.HasPrefix(base, ".") {
			return fs.SkipDir
		}
		files := sources(t, dir)
		row, ok := rowOf(dir)
		if !ok && len(files) > 0 {
			t.Errorf("%s does not name the package %s", architecture, dir)
		}
		if strings.HasSuffix(dir, "test") { // support for tests of the package above
			return nil
		}
		for _, file := range files {
			for _, i := range parse(t, path.Join(dir, file), parser.ImportsOnly).Imports {
				imported, _ := strconv.Unquote(i.Path.Value)
				if imported != module && !strings.HasPrefix(imported, module+"/") {
					continue
				}
				imported = strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
				if imported == "" {
					imported = "."
				}
				if a, b := role(dir), role(imported); a != "" && b != "" && a != b {
					t.Errorf("%s/%s imports %s: %s and %s meet on the wire", dir, file, imported, a, b)
				}
				if at, ok := rowOf(imported); ok && at < row {
					t.Errorf("%s/%s imports %s, which stands above it in %s", dir, file, imported, architecture)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// role returns the role that a package is of, or "".
func role(dir string) string {
	switch first, _, _ := strings.Cut(dir, "/"); first {
	case "worker", "hive", "queen":
		return first
	}
	return ""
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(name string) bool {
	_, err := os.Stat(filepath.FromSlash(name))
	return err == nil
}

// names returns what text has between backticks, apart from blocks of code.
func names(text string) (list []string) {
	text = fenced.ReplaceAllString(text, "")
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// single returns the name that is all of a cell.
func single(cell string) (name string, ok bool) {
	m := quoted.FindStringSubmatch(cell)
	return strings.Trim(cell, "`"), m != nil && m[0] == cell
}

// cells returns the cells of one row of a table, or nil.
func cells(line string) (list []string) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
		list = append(list, strings.TrimSpace(cell))
	}
	return list
}

// anchors returns what a link to a page may have after #: headings, as GitHub names them,
// and anchors.
func anchors(text string) (list []string) {
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if m := anchored.FindStringSubmatch(line); m != nil {
			list = append(list, m[1])
		}
		if code || !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		list = append(list, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', r >= 'a' && r <= 'z', r >= '0' && r <= '9':
				return r
			}
			return -1
		}, heading))
	}
	return list
}

// sources returns the names of the Go files of a package, without tests.
func sources(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			list = append(list, name)
		}
	}
	return list
}

func parse(t *testing.T, file string, mode parser.Mode) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// declarations returns the functions and types that a Go file declares, and its methods as
// Type.Method.
func declarations(t *testing.T, file string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, d := range parse(t, file, 0).Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
			all[name] = true
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok {
					all[s.Name.Name] = true
				}
			}
		}
	}
	return all
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
