//go:build e2e

package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// NATS is a nats-server that can be killed, emptied and started again, always on
// the same port.
type NATS struct {
	*Proc
	URL   string
	Store string // JetStream's folder
	tb    testing.TB
	bin   string
	conf  string
}

// Serve starts the nats-server bin with JetStream in a folder of the test.
func Serve(tb testing.TB, bin string) *NATS {
	tb.Helper()
	dir := tb.TempDir()
	n := &NATS{tb: tb, bin: bin, URL: fmt.Sprintf("nats://127.0.0.1:%d", Port(tb)), Store: filepath.Join(dir, "store"), conf: filepath.Join(dir, "nats.conf")}
	n.Configure(n.JetStream("256MB"))
	n.Start()
	return n
}

// Configure writes the configuration for the next Start; Serve gives it JetStream.
func (n *NATS) Configure(conf string) {
	n.tb.Helper()
	var port int
	if _, err := fmt.Sscanf(n.URL, "nats://127.0.0.1:%d", &port); err != nil {
		n.tb.Fatal(err)
	}
	conf = fmt.Sprintf("listen: \"127.0.0.1:%d\"\nserver_name: e2e\n%s\n", port, conf)
	if err := os.WriteFile(n.conf, []byte(conf), 0o600); err != nil {
		n.tb.Fatal(err)
	}
}

// JetStream is the configuration of JetStream in the test's folder, or in the
// one that n.Store was set to.
func (n *NATS) JetStream(most string) string {
	return fmt.Sprintf("jetstream { store_dir: %q, max_file_store: %s, max_memory_store: 64MB }", n.Store, most)
}

// Start starts the server, again after Kill, and waits until it listens.
func (n *NATS) Start() {
	n.tb.Helper()
	n.Proc = Start(n.tb, "nats-server", nil, n.bin, "--config", n.conf)
	n.Said("Server is ready", 20*time.Second)
}

// Empty removes all that JetStream stored. The server must be down.
func (n *NATS) Empty() {
	n.tb.Helper()
	if err := os.RemoveAll(n.Store); err != nil {
		n.tb.Fatal(err)
	}
}
