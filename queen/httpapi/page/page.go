// Package page holds the queen's web page: static files that a browser runs as
// they are. There is no build step, and nothing is loaded from elsewhere.
//
// The page asks for its data below the path that it was loaded from (v1/…), and
// needs no more than Content-Security-Policy: default-src 'self'.
package page

import (
	"embed"
	"io/fs"
)

//go:embed index.html icon.svg *.css js uplot
var files embed.FS

// Files returns index.html and all that it needs, by their paths below it.
func Files() fs.FS { return files }
