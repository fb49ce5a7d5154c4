package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestNothingOfARoleIsHereTwice: the simulation drives the cores of the roles. A method here
// with the name of one of theirs was once a copy that drifted.
func TestNothingOfARoleIsHereTwice(t *testing.T) {
	own := methods(t, ".")
	for _, dir := range []string{"../../hive", "../hivecore", "../../queen", "../queencore"} {
		for name, of := range methods(t, dir) {
			switch mine := own[name]; {
			case mine == "", name == "String": // or a method of a standard interface
			default:
				t.Errorf("%s.%s is named like %s of %s", mine, name, of, dir)
			}
		}
	}
}

// methods returns the methods in a package, by name, with their types.
func methods(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil {
				all[fn.Name.Name] = receiver(fn.Recv.List[0].Type)
			}
		}
	}
	if len(all) < 10 {
		t.Fatalf("%d methods in %s", len(all), dir)
	}
	return all
}

func receiver(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return "?"
}
