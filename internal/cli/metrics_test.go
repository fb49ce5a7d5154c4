package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/beatfabric/hivebeat/hive"
)

// If the default address is in use, that is a warning; if a given one is, it is an error.
func TestMetricsAddressTaken(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", hiveMetricsAddr)
	switch {
	case err == nil:
		defer ln.Close()
	case !errors.Is(err, syscall.EADDRINUSE): // in use by another program: just as good
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	c, err := new(HiveMetricsFlags).serve(t.Context(), new(hive.Hive), logger)
	if c != nil || err != nil || !strings.Contains(log.String(), "--metrics off") {
		t.Errorf("default: %v, %v, %s", c, err, log.String())
	}
	c, err = (&HiveMetricsFlags{Metrics: hiveMetricsAddr}).serve(t.Context(), new(hive.Hive), logger)
	if c != nil || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("given: %v, %v", c, err)
	}
}
