package proctree

import (
	"bytes"
	"path"
	"slices"
	"strings"
)

// Cgroup names a cgroup: of the memory controller where that has a hierarchy of its own
// (version 1), and else of the unified hierarchy. The zero Cgroup is unknown.
type Cgroup struct {
	V1   bool
	Path string // begins with a slash; with /.. if it is outside of the reader's cgroup namespace
}

// maxCgroup bounds the path of a cgroup, in bytes. The kernel's own limit is that of a path.
const maxCgroup = 4096

// parseCgroup parses /proc/<pid>/cgroup. The cgroup is zero if it was removed.
func parseCgroup(b []byte) (c Cgroup) {
	for line := range bytes.Lines(b) {
		_, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":"))
		names, where, ok := bytes.Cut(rest, []byte(":"))
		if !ok || len(where) == 0 || where[0] != '/' || len(where) > maxCgroup {
			continue
		}
		switch {
		case len(names) == 0:
			c = Cgroup{Path: string(where)}
		case slices.Contains(strings.Split(string(names), ","), "memory"):
			c = Cgroup{V1: true, Path: string(where)}
		}
		if c.V1 {
			break
		}
	}
	if strings.HasSuffix(c.Path, " (deleted)") {
		return Cgroup{}
	}
	return c
}

// within reports whether c is o, or below it.
func (c Cgroup) within(o Cgroup) bool {
	return c.V1 == o.V1 && c.Path != "" && (c.Path == o.Path || strings.HasPrefix(c.Path, strings.TrimSuffix(o.Path, "/")+"/"))
}

// above returns the cgroup that c is in, or zero.
func (c Cgroup) above() Cgroup {
	if up := path.Dir(c.Path); c.Path != "" && up != c.Path && up != "/" {
		return Cgroup{c.V1, up}
	}
	return Cgroup{}
}

// unit reports whether a cgroup of this name holds one program: a container or a service.
// The root, a slice, and the session of a user hold whatever runs there.
func (c Cgroup) unit() bool {
	name := path.Base(c.Path)
	switch {
	case c.Path == "", c.Path == "/", name == "..",
		name == "init.scope", strings.HasSuffix(name, ".slice"),
		strings.HasPrefix(name, "session-"), strings.HasPrefix(name, "user@"):
		return false
	case !strings.Contains(c.Path, "user.slice/"):
		return true
	case strings.HasPrefix(name, "libpod-"), strings.HasPrefix(name, "docker-"): // rootless containers
		return true
	}
	// A service of the user's own. Programs that were started from a desktop, terminals
	// among them, are services too, with these names.
	return strings.HasSuffix(name, ".service") && !strings.HasPrefix(name, "app-") && !strings.HasPrefix(name, "dbus") && !strings.Contains(name, "terminal")
}
