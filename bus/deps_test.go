package bus_test

import (
	"os/exec"
	"strings"
	"testing"
)

// A program that embeds a worker links only nats.go, msgpack and their dependencies: no
// server, no gopsutil, nothing from the command line.
func TestWorkersLinkLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	allowed := []string{
		"github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/nats-io/nuid",
		"github.com/klauspost/compress", "golang.org/x/crypto", "golang.org/x/sys/cpu", // nats.go's
		"golang.org/x/sys/unix", // for the boot clock
		"github.com/vmihailenco/msgpack/v5", "github.com/vmihailenco/tagparser/v2",
	}
	ours := []string{"", "/bus", "/internal/wire", "/internal/bootid", "/internal/advice", "/internal/plaintext", "/worker"}
	const module = "github.com/beatfabric/hivebeat"
	for _, root := range []string{"/worker", "/bus"} {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+root).CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}
		deps := strings.Fields(string(out))
		if len(deps) == 0 {
			t.Fatal("no dependencies listed")
		}
		for _, dep := range deps {
			if !among(dep, allowed, module, ours) {
				t.Errorf("%s links %s", root[1:], dep)
			}
		}
	}
}

func among(dep string, allowed []string, module string, ours []string) bool {
	if rest, ok := strings.CutPrefix(dep, module); ok {
		for _, o := range ours {
			if rest == o {
				return true
			}
		}
		return false
	}
	for _, a := range allowed {
		if dep == a || strings.HasPrefix(dep, a+"/") {
			return true
		}
	}
	return false
}
