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

// Bubble runs f in a testing/synctest bubble in a separate process. nats.go and
// nats-server keep timers in process-wide pools: to use a timer inside a bubble that
// was made outside, or the other way round, is a fatal error. Use Bubble with a server
// of NoListen. t must be the test that calls it, and the call must come first in it.
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
	var out []byte
	for range 3 {
		cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.count=1", "-test.run="+strings.Join(tokens, "/"))
		cmd.Env = append(os.Environ(), bubbleEnv+"="+t.Name())
		// The C code of the race detector crashes now and then as a bubble starts. Go code that
		// crashes reports a panic instead.
		if out, err = cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "\nSIGSEGV: segmentation violation\nPC=") {
			break
		}
		t.Logf("the race detector crashed: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in its own process: %v\n%s", err, out)
	}
}
