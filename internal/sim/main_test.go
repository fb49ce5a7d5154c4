package sim

import (
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // takes a sixth of the time, and runs are small
	goleak.VerifyTestMain(m)
}
