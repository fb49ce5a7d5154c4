//go:build e2e

package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// NATS is a nats-server that can be killed, emptied and started again, always on the same
// port.
type NATS struct {
	*Proc
	Name  string // server_name
	URL   string
	Store string // JetStream's folder
	tb    testing.TB
	bin   string
	at    string // host:port
	conf  string
}

// Serve starts the nats-server bin, with JetStream in a folder of the test.
func Serve(tb testing.TB, bin string) *NATS {
	tb.Helper()
	n := Prepare(tb, bin, "e2e", "127.0.0.1")
	n.Start()
	return n
}

// Prepare is like Serve, with an address of this machine and a name. It does not start the
// server, so that it can be configured first.
func Prepare(tb testing.TB, bin, name, host string) *NATS {
	tb.Helper()
	dir := tb.TempDir()
	n := &NATS{tb: tb, bin: bin, Name: name, at: fmt.Sprintf("%s:%d", host, Port(tb)), Store: filepath.Join(dir, "store"), conf: filepath.Join(dir, "nats.conf")}
	n.URL = "nats://" + n.at
	n.Configure(n.JetStream("256MB"))
	return n
}

// Configure writes the configuration for the next Start. Prepare configures JetStream.
func (n *NATS) Configure(conf string) {
	n.tb.Helper()
	conf = fmt.Sprintf("listen: %q\nserver_name: %s\n%s\n", n.at, n.Name, conf)
	if err := os.WriteFile(n.conf, []byte(conf), 0o600); err != nil {
		n.tb.Fatal(err)
	}
}

// JetStream is the configuration of JetStream in n.Store, which is a folder of the test by
// default.
func (n *NATS) JetStream(most string) string {
	return fmt.Sprintf("jetstream { store_dir: %q, max_file_store: %s, max_memory_store: 64MB }", n.Store, most)
}

// Start starts the server, also after Kill, and waits until it listens.
func (n *NATS) Start() {
	n.tb.Helper()
	n.Begin()
	n.Said("Server is ready", 20*time.Second)
}

// Begin starts the server without waiting: a member of a cluster is ready only when others
// are running.
func (n *NATS) Begin() {
	n.tb.Helper()
	n.Proc = Start(n.tb, "nats-server "+n.Name, nil, n.bin, "--config", n.conf)
}

// Empty removes everything that JetStream stored. The server must be down.
func (n *NATS) Empty() {
	n.tb.Helper()
	if err := os.RemoveAll(n.Store); err != nil {
		n.tb.Fatal(err)
	}
}
