package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

// A user who may not send requests or receive answers gets an error about permissions, and not
// about a silent queen. The time limit would fail the test long before the timeout.
func TestReaderWithoutPermission(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream(),
		bustest.User("mute", []string{"unused"}, []string{"_INBOX.>"}), bustest.User("deaf", []string{"queen.api.>"}, []string{"unused"}))
	for _, tt := range []struct {
		user, want, role string
		args             []string
	}{
		{"mute", `publish to "queen.api.hives"`, "viewer", []string{"ls"}},
		{"mute", `publish to "queen.api.hive"`, "viewer", []string{"get", "h"}},
		{"mute", `publish to "queen.api.worker"`, "viewer", []string{"get", "h/w"}},
		{"mute", `publish to "queen.as.ann.worker"`, "viewer", []string{"get", "h/w", "--asker", "ann"}},
		{"mute", `publish to "queen.api.pick"`, "viewer", []string{"pick"}},
		{"mute", `publish to "queen.api.hold"`, "scheduler", []string{"pick", "--hold", "job"}},
		{"mute", `publish to "queen.as.ann.hold"`, "scheduler", []string{"pick", "--hold", "job", "--asker", "ann"}},
		{"mute", `publish to "queen.api.release"`, "scheduler", []string{"pick", "--release", "job"}},
		{"mute", `publish to "queen.api.forget"`, "scheduler", []string{"forget", "h/GPU-1"}},
		{"mute", `publish to "queen.as.ann.forget"`, "scheduler", []string{"forget", "h/GPU-1", "--asker", "ann"}},
		{"mute", `publish to "queen.api.drain"`, "scheduler", []string{"drain", "h"}},
		{"mute", `publish to "queen.as.ann.undrain"`, "scheduler", []string{"undrain", "h", "--asker", "ann"}},
		{"mute", `publish to "queen.api.silence"`, "scheduler", []string{"silence", "h", "--for", "1h"}},
		{"mute", `publish to "queen.api.unsilence"`, "scheduler", []string{"unsilence", "h"}},
		{"deaf", `subscribe to "_INBOX.`, "viewer", []string{"ls"}},
		{"deaf", `subscribe to "queen.events.>"`, "viewer", []string{"watch"}},
		{"deaf", `subscribe to "queen.events.>"`, "viewer", []string{"watch", "-o", "json"}},
	} {
		url := strings.Replace(srv.URL(), "://", "://"+tt.user+":"+tt.user+"@", 1)
		code, out, errs := run(t, nil, append(tt.args, "--nats", url, "--timeout", "10m")...)
		if code != ExitFailed || out != "" || !strings.HasPrefix(errs, "hivebeat: NATS does not allow this user to "+tt.want) ||
			!strings.Contains(errs, "\nhint: \"hivebeat doctor --role "+tt.role+"\" shows") || strings.Count(errs, "\n") != 2 {
			t.Errorf("%s %v: exit code %d, %q, %s", tt.user, tt.args, code, out, errs)
		}
	}
}

// Queens answer only to inboxes that they know. For other inboxes the hint names the flag that
// the queens need.
func TestInboxPrefixThatQueensDoNotKnow(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	queen := bustest.Conn(t, srv)
	if _, err := queen.SubscribeSync("queen.api.hives"); err != nil { // it does not answer
		t.Fatal(err)
	}
	bustest.Flush(t, queen)
	file := filepath.Join(t.TempDir(), "ops.json")
	if err := os.WriteFile(file, []byte(`{"url":"`+srv.URL()+`","inbox_prefix":"_INBOX_ops"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run(t, nil, "ls", "hives", "--context", file, "--timeout", "200ms")
	if code != ExitFailed || out != "" || !strings.Contains(errs, "\nhint: ") || !strings.Contains(errs, "--inbox-prefix _INBOX_ops") {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
}
