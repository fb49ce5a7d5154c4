package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// files holds the files of the page in memory, ready to send.
type files struct{ byPath map[string]*file }

type file struct {
	kind   string // Content-Type
	plain  []byte
	zipped []byte // nil if compression does not pay
	tag    string
}

// notBuilt is served if the page is not built in.
const notBuilt = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>hivebeat</title>
<h1>hivebeat</h1>
<p>The page is not built into this program. The API is at <a href="/v1/summary">/v1/summary</a>; <a href="/openapi.json">/openapi.json</a> lists all routes.</p>
</html>
`

// kinds maps file extensions to content types. The system's own table differs between
// machines.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".mjs": "text/javascript; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon",
	".json": "application/json", ".webmanifest": "application/manifest+json", ".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8",
	".md": "text/plain; charset=utf-8",
}

// newFiles reads all of fsys, except Go files, names that begin with a dot, and
// testdata directories.
func newFiles(fsys fs.FS) (*files, error) {
	f := &files{byPath: make(map[string]*file)}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || strings.HasSuffix(name, ".go"):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		b, err := fs.ReadFile(fsys, name)
		if err == nil {
			f.add("/"+name, b)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	index := f.byPath["/index.html"]
	if index == nil {
		f.add("/index.html", []byte(notBuilt))
		index = f.byPath["/index.html"]
	}
	f.byPath["/{$}"] = index
	f.add(pathLoginCSS, []byte(loginCSS))
	return f, nil
}

func (f *files) add(name string, b []byte) {
	ext := path.Ext(name)
	kind := kinds[ext]
	if kind == "" {
		kind = mime.TypeByExtension(ext)
	}
	if kind == "" {
		kind = "application/octet-stream"
	}
	sum := sha256.Sum256(b)
	one := &file{kind: kind, plain: b, tag: base64.RawURLEncoding.EncodeToString(sum[:12])}
	if z := gzipped(b); len(b) >= gzipFrom && len(z) < len(b)*9/10 {
		one.zipped = z
	}
	f.byPath[name] = one
}

// paths returns the patterns of all files, sorted.
func (f *files) paths() []string {
	return slices.Sorted(maps.Keys(f.byPath))
}

// serve sends a file. Clients may cache it but must revalidate each time; an unchanged
// file gets a 304.
func (f *files) serve(w http.ResponseWriter, q *http.Request) {
	one := f.byPath[q.URL.Path]
	if one == nil {
		one = f.byPath["/{$}"]
	}
	h := w.Header()
	h.Set("Content-Type", one.kind)
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	body, tag := one.plain, one.tag
	if one.zipped != nil && q.Header.Get("Range") == "" && takesGzip(q) {
		h.Set("Content-Encoding", "gzip")
		body, tag = one.zipped, tag+"-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(body))
}
