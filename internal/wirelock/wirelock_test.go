// Package wirelock keeps the wire format and its vectors in step. A change of a type,
// limit or word of the wire must come with vectors that show the change, or this test
// fails. testdata/wire/v1.lock holds the shape of the wire (every constant, type and
// variable declared in the files below, without comments) and the digest of the vectors
// that prove it.
package wirelock_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/wire/v1.lock anew; refused where the wire changed and the vectors did not")

// root is the module's root, relative to this package.
const root = "../.."

// sources declare the wire. The behaviour of functions is covered by the vectors.
var sources = []string{"beat.go", "snapshot.go", "gpu.go", "words.go", "limits.go", "subjects.go", "notice.go"}

// lock is the content of the lock file.
type lock struct {
	vectors string // digest of testdata/wire/v1
	shape   string // the declarations
}

func TestWireAndVectorsChangeTogether(t *testing.T) {
	path := filepath.Join(root, "testdata", "wire", "v1.lock")
	now := lock{vectors: digest(t, os.DirFS(filepath.Join(root, "testdata", "wire", "v1"))), shape: shape(t)}
	was, err := read(path)
	switch {
	case os.IsNotExist(err) && *update:
	case err != nil:
		t.Fatalf("%v\nhint: make vectors writes it", err)
	}

	if was == now {
		return
	}
	if was.shape != now.shape && was.vectors == now.vectors {
		t.Fatalf("the wire changed, but no vector did (-recorded +now):\n%s\n"+
			"hint: add vectors that show the change to testdata/wire/v1, say it in docs/PROTOCOL.md, then make vectors",
			diff(was.shape, now.shape))
	}
	if !*update {
		t.Fatalf("%s is not up to date (-recorded +now):\n%s\nhint: look at the difference, then make vectors",
			path, diff(was.String(), now.String()))
	}
	if err := os.WriteFile(path, []byte(now.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("wrote %s", path)
}

const head = "# Written by make vectors; internal/wirelock says what for.\nvectors "

func (l lock) String() string { return head + l.vectors + "\n\n" + l.shape }

// diff returns the lines that differ.
func diff(was, now string) string {
	return cmp.Diff(strings.Split(was, "\n"), strings.Split(now, "\n"))
}

func read(path string) (lock, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return lock{}, err
	}
	rest, ok := strings.CutPrefix(string(b), head)
	vectors, shape, cut := strings.Cut(rest, "\n\n")
	if !ok || !cut {
		return lock{}, fmt.Errorf("%s is not a lock file", path)
	}
	return lock{vectors, shape}, nil
}

// digest returns a hash of the names and contents of all files.
func digest(t *testing.T, dir fs.FS) string {
	t.Helper()
	sum, files := sha256.New(), 0
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(dir, name)
		if err != nil {
			return err
		}
		files++
		fmt.Fprintf(sum, "%s %d\n", name, len(b))
		sum.Write(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("testdata/wire/v1 is empty")
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// shape returns every declaration in the sources except functions, sorted, formatted
// and without comments: a comment, a move within a file or a new function does not
// change it.
func shape(t *testing.T) string {
	t.Helper()
	var decls []string
	files := token.NewFileSet()
	for _, name := range sources {
		f, err := parser.ParseFile(files, filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok == token.IMPORT {
				continue
			}
			for _, spec := range g.Specs {
				decls = append(decls, strings.TrimSpace(g.Tok.String()+" "+source(t, spec)))
			}
		}
	}
	slices.Sort(decls)
	return strings.Join(decls, "\n") + "\n"
}

// source prints a declaration in a separate file set, so that blank lines and columns
// of the original do not show.
func source(t *testing.T, node ast.Node) string {
	t.Helper()
	var b bytes.Buffer
	if err := format.Node(&b, token.NewFileSet(), node); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
