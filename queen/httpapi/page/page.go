// Package page holds the queen's web page: static files that a browser runs unchanged.
// There is no build step, and the page loads nothing from other servers.
//
// The page requests its data below the path that it was loaded from (v1/…), and works
// under Content-Security-Policy: default-src 'self'.
package page

import (
	"embed"
	"io/fs"
)

//go:embed index.html icon.svg *.css js uplot
var files embed.FS

// Files returns index.html and all files that it needs, with paths relative to it.
func Files() fs.FS { return files }
