//go:build unix

package embedded_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/beatfabric/hivebeat/bus/embedded"
)

// The store that a killed process left in the temporary directory is removed by the
// next start. A directory that may belong to another process stays.
func TestLeftoversAreRemoved(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	const lock = "hivebeat.lock"
	leave := func(name string, perm os.FileMode, files map[string]string) string {
		dir := filepath.Join(temp, name)
		if err := os.MkdirAll(filepath.Join(dir, "jetstream"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, perm); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	live := start(t, embedded.Config{JetStream: true, Port: -1}).Config().StoreDir
	left := leave("hivebeat-nats-1", 0o700, map[string]string{lock: host, "jetstream/x": "y"})
	stay := map[string]string{
		"of a server that runs":    live,
		"without a lock":           leave("hivebeat-nats-2", 0o700, map[string]string{"jetstream/x": "y"}),
		"of another machine":       leave("hivebeat-nats-3", 0o700, map[string]string{lock: host + "x"}),
		"of who did not say where": leave("hivebeat-nats-4", 0o700, map[string]string{lock: ""}),
		"open to others":           leave("hivebeat-nats-5", 0o755, map[string]string{lock: host}),
		"of another name":          leave("nats-1", 0o700, map[string]string{lock: host}),
	}
	link := filepath.Join(temp, "hivebeat-nats-6")
	if err := os.Symlink(stay["of another name"], link); err != nil {
		t.Fatal(err)
	}
	stay["a link"] = link

	start(t, embedded.Config{JetStream: true, Port: -1})
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
	for what, dir := range stay {
		if _, err := os.Stat(filepath.Join(dir, "jetstream")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
