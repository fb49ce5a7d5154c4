//go:build e2e

package page

import (
	"testing"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
