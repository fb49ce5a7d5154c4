package hive

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(asProcess); what != "" {
		os.Exit(process(what))
	}
	goleak.VerifyTestMain(m)
}
