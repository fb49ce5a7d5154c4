// Package page holds the files of the queen's web page.
package page

import (
	"embed"
	"io/fs"
)

var files embed.FS

// Files returns the page: index.html, and what it loads by paths relative to it.
// It is empty where the page was not built in.
func Files() fs.FS { return files }
