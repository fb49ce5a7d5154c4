package cli

import (
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

// Who may not ask, or not hear the answer, is told so, and not that the queen is
// silent. The time limit would fail the test long before it is up.
func TestReaderWithoutPermission(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream(),
		bustest.User("mute", []string{"unused"}, []string{"_INBOX.>"}), bustest.User("deaf", []string{"queen.api.>"}, []string{"unused"}))
	for _, tt := range []struct {
		user, want string
		args       []string
	}{
		{"mute", `publish to "queen.api.hives"`, []string{"ls"}},
		{"mute", `publish to "queen.api.hive"`, []string{"get", "h"}},
		{"mute", `publish to "queen.api.worker"`, []string{"get", "h/w"}},
		{"deaf", `subscribe to "_INBOX.`, []string{"ls"}},
		{"deaf", `subscribe to "queen.events.>"`, []string{"watch"}},
		{"deaf", `subscribe to "queen.events.>"`, []string{"watch", "-o", "json"}},
	} {
		url := strings.Replace(srv.URL(), "://", "://"+tt.user+":"+tt.user+"@", 1)
		code, out, errs := run(t, nil, append(tt.args, "--nats", url, "--timeout", "10m")...)
		if code != ExitFailed || out != "" || !strings.HasPrefix(errs, "hivebeat: NATS does not let this user "+tt.want) ||
			!strings.Contains(errs, "\nhint: \"hivebeat doctor --role reader\"") || strings.Count(errs, "\n") != 2 {
			t.Errorf("%s %v: exit code %d, %q, %s", tt.user, tt.args, code, out, errs)
		}
	}
}
