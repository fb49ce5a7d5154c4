package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }

func Example() {
	main()
	// Output:
	// gpu-01/llama serves llama-3-8b: alive, loading
	// gpu-01/llama serves llama-3-8b: alive, ready
	// gpu-01/llama serves llama-3-8b: left, stopped
}
