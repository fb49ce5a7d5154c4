package core_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// clock lists the functions of package time that use the clock.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// TestCoresArePure checks that a core has no NATS, no clock, no goroutine, no channel
// and no lock.
func TestCoresArePure(t *testing.T) {
	for _, dir := range []string{"../core", "../hivecore", "../queencore", "../detector", "../fleet", "../liveness", "../../verdict"} {
		if _, err := os.Stat(dir); os.IsNotExist(err) && dir == "../queencore" {
			continue
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if !strings.HasSuffix(name, "_test.go") {
				src, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				for _, what := range impure(t, name, src) {
					t.Error(what)
				}
			}
		}
	}
}

// impure returns the constructs in a file that a core must not have.
func impure(t *testing.T, name string, src []byte) (found []string) {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	add := func(n ast.Node, what string) { found = append(found, set.Position(n.Pos()).String()+": "+what) }
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case path == "sync", path == "sync/atomic", path == "context", path == "os", path == "net", path == "math/rand/v2",
			strings.Contains(path, "nats-io"), strings.HasSuffix(path, "hivebeat/bus"), strings.HasSuffix(path, "internal/link"):
			add(i, "imports "+path)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.GoStmt:
			add(x, "begins a goroutine")
		case *ast.ChanType:
			add(x, "has a channel")
		case *ast.SelectorExpr:
			if p, ok := x.X.(*ast.Ident); ok && p.Name == "time" && slices.Contains(clock, x.Sel.Name) {
				add(x, "asks the clock: time."+x.Sel.Name)
			}
		}
		return true
	})
	return found
}

func TestWhatIsImpureIsFound(t *testing.T) {
	found := impure(t, "x.go", []byte(`package x
import ("sync"; "time"; "github.com/nats-io/nats.go"; "github.com/beatfabric/hivebeat/internal/link")
func f() { go f(); _ = time.Now(); _ = time.Second; _ = make(chan int) }`))
	if len(found) != 6 {
		t.Errorf("%q", found)
	}
}
