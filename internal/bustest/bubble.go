package bustest

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
)

const bubbleEnv = "HIVEBEAT_TEST_BUBBLE"

// Bubble runs f in a testing/synctest bubble in a process of its own. nats.go and
// nats-server keep timers in pools of the process: a timer that was made outside
// of a bubble and used inside, or the other way round, is a fatal error. Use it
// with a server of NoListen; the test that calls it must be the one that t is of,
// with nothing before it.
func Bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(bubbleEnv) == t.Name() {
		synctest.Test(t, f)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatalf("bustest: %v", err)
	}
	tokens := strings.Split(t.Name(), "/")
	for i, s := range tokens {
		tokens[i] = "^" + regexp.QuoteMeta(s) + "$"
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.count=1", "-test.run="+strings.Join(tokens, "/"))
	cmd.Env = append(os.Environ(), bubbleEnv+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in its own process: %v\n%s", err, out)
	}
}
