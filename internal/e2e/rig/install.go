//go:build e2e

package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// NATSServer and NATSCLI are the other programs that the tests run.
const (
	NATSServer = "github.com/nats-io/nats-server/v2"
	NATSCLI    = "github.com/nats-io/natscli/nats@v0.5.1"
)

// Root returns the root of the module that the tests were started in.
func Root() string { return root() }

var root = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		panic("rig: not within a module")
	}
})

// Main runs the tests of a package and removes the files that were built for them.
func Main(m *testing.M) {
	code := m.Run()
	if dir, err := scratch(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

var scratch = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "hivebeat-e2e-") })

var underTest = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("HIVEBEAT_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	dir, err := scratch()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "hivebeat")
	return bin, run(Root(), nil, "go", "build", "-o", bin, "./cmd/hivebeat")
})

// Hivebeat builds the command of this tree, once per test binary, and returns its path.
// HIVEBEAT_BIN names one that is already built.
func Hivebeat(tb testing.TB) string {
	tb.Helper()
	bin, err := underTest()
	if err != nil {
		tb.Fatal(err)
	}
	return bin
}

// Server returns nats-server in the version of go.mod.
func Server(tb testing.TB) string {
	tb.Helper()
	out, err := output(Root(), nil, "go", "list", "-m", "-f", "{{.Version}}", NATSServer)
	if err != nil {
		tb.Fatal(err)
	}
	return Install(tb, NATSServer+"@"+strings.TrimSpace(out))
}

// Install builds the program pkg@version, statically linked, unless it exists, and returns
// its path.
func Install(tb testing.TB, pkg string) string {
	tb.Helper()
	path, version, ok := strings.Cut(pkg, "@")
	if !ok {
		tb.Fatalf("rig: %s has no version", pkg)
	}
	name := filepath.Base(strings.TrimSuffix(path, "/v2"))
	bin := filepath.Join(tools(), name+"-"+version)
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	dir, err := os.MkdirTemp(tools(), "install-") //nolint:usetesting // beside bin, so that it can be renamed
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	if err := run(dir, []string{"GOBIN=" + dir, "CGO_ENABLED=0", "GOFLAGS="}, "go", "install", "-ldflags=-s -w", pkg); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, name), bin); err != nil {
		tb.Fatal(err)
	}
	tb.Logf("built %s in %.0f s", pkg, time.Since(start).Seconds())
	return bin
}

// tools is the folder for programs that are kept between runs.
func tools() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "hivebeat", "tools")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		panic(err)
	}
	return dir
}

func run(dir string, env []string, argv ...string) error {
	_, err := output(dir, env, argv...)
	return err
}

// output runs a command and returns its stdout. An error contains its stderr.
func output(dir string, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, stderr.String())
	}
	return stdout.String(), nil
}
