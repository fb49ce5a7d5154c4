package hivebeat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// An importer can name every type that a public package shows: none comes from an
// internal package.
func TestNoInternalTypeIsPublic(t *testing.T) {
	packages := map[string]bool{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			switch base := d.Name(); {
			case name == ".":
			case base == "internal", base == "cmd", base == "examples", base == "testdata", base == "docs", base == "deploy", strings.HasPrefix(base, "."):
				return fs.SkipDir
			}
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			packages[filepath.ToSlash(filepath.Dir(name))] = true
			checkPublic(t, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{".", "bus", "bus/embedded", "worker", "worker/metrics", "hive", "hive/metrics", "queen", "queen/api", "queen/client", "queen/httpapi", "queen/metrics", "queen/webhook"} {
		if !packages[p] {
			t.Errorf("%s was not looked at", p)
		}
	}
}

// checkPublic looks at the exported declarations of one file.
func checkPublic(t *testing.T, name string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	internal := map[string]string{}
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if !strings.Contains(p, "/internal/") {
			continue
		}
		as := path.Base(p)
		if i.Name != nil {
			as = i.Name.Name
		}
		internal[as] = p
	}
	var check func(what string, n ast.Node)
	check = func(what string, n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.StructType: // its unexported fields are its own business
				for _, field := range n.Fields.List {
					public := len(field.Names) == 0
					for _, id := range field.Names {
						public = public || id.IsExported()
					}
					if public {
						check(what, field.Type)
					}
				}
				return false
			case *ast.SelectorExpr:
				if id, ok := n.X.(*ast.Ident); ok && internal[id.Name] != "" {
					t.Errorf("%s: %s shows %s.%s of %s", fset.Position(n.Pos()), what, id.Name, n.Sel.Name, internal[id.Name])
				}
			}
			return true
		})
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type))) {
				check(d.Name.Name, d.Type)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						check(s.Name.Name, s.Type)
					}
				case *ast.ValueSpec: // the type of a value without one is not seen here
					if s.Names[0].IsExported() && s.Type != nil {
						check(s.Names[0].Name, s.Type)
					}
				}
			}
		}
	}
}
