package cli

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

// TestMain runs the tests or, as the child process of a script, the command itself.
func TestMain(m *testing.M) {
	testscript.Main(leakFree{m}, map[string]func(){
		"hivebeat": func() { os.Exit(Main(context.Background(), os.Args[1:], Standard())) },
	})
}

type leakFree struct{ m *testing.M }

func (l leakFree) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(bustest.Leaks()); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	return code
}
