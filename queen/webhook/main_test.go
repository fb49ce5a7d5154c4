package webhook

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }
