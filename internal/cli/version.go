package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/beatfabric/hivebeat"
)

// version is the version of a release build: -ldflags "-X …/internal/cli.version=v1.2.3".
var version string

type versionCmd struct{ OutFlag }

type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"` // of the commit
	Modified bool   `json:"modified"`       // the working tree had uncommitted changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Wire     int    `json:"wire"`
}

func buildVersion() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Wire: hivebeat.Version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = cmp.Or(version, info.Main.Version, v.Version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// Run prints the version.
func (cmd *versionCmd) Run(c *console) error {
	v := buildVersion()
	if cmd.json() {
		return printJSON(c, v)
	}
	commit := cmp.Or(v.Commit, "unknown")
	if v.Modified {
		commit += " and changes"
	}
	_, err := fmt.Fprintf(c.out, "hivebeat %s\ncommit   %s\ngo       %s %s\nwire     %d\n", v.Version, commit, v.Go, v.Platform, v.Wire)
	return err
}
