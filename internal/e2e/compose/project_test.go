//go:build e2e

package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// project is docker-compose.yml of this tree, started under a unique project name.
type project struct {
	tb    testing.TB
	name  string
	image string
	argv  []string // docker compose, or docker-compose 1.29
	env   []string
	url   string // NATS, from outside
	http  string // the queen's page and API, from outside
}

// newProject prepares a project with its own name, image and ports. When the test ends, the
// project is removed with its volumes.
func newProject(tb testing.TB, env ...string) *project {
	tb.Helper()
	id := fmt.Sprintf("hivebeat-e2e-%d", os.Getpid())
	port, web := rig.Port(tb), rig.Port(tb)
	p := &project{
		http: fmt.Sprintf("http://127.0.0.1:%d", web),
		tb:   tb, name: id, image: "hivebeat:" + strings.TrimPrefix(id, "hivebeat-"), url: fmt.Sprintf("nats://127.0.0.1:%d", port),
	}
	// The same choice, and the same variable, as in the Makefile.
	p.argv = strings.Fields(os.Getenv("COMPOSE"))
	if len(p.argv) == 0 {
		p.argv = []string{"docker-compose"}
		if exec.Command("docker", "compose", "version").Run() == nil {
			p.argv = []string{"docker", "compose"}
		}
	}
	p.env = append(os.Environ(), "HIVEBEAT_IMAGE="+p.image, fmt.Sprintf("HIVEBEAT_NATS_PORT=%d", port), fmt.Sprintf("HIVEBEAT_HTTP_PORT=%d", web), "HIVEBEAT_VERSION=e2e")
	p.env = append(p.env, env...)

	tb.Cleanup(func() {
		if tb.Failed() {
			logs, _ := p.try("logs", "--no-color", "--tail", "60")
			ps, _ := p.try("ps")
			tb.Logf("--- docker compose ps and logs:\n%s\n%s", ps, logs)
		}
		if out, err := p.try("down", "--volumes", "--remove-orphans", "--timeout", "5"); err != nil {
			tb.Errorf("%v\n%s", err, out)
		}
		if _, err := docker("rmi", "--force", p.image); err != nil {
			tb.Log(err)
		}
		// What the builder leaves of the build stage inherits the label of the stand-in that
		// it was built on. No other image has that label.
		if _, err := docker("image", "prune", "--force", "--filter", "label="+standInLabel); err != nil {
			tb.Log(err)
		}
	})
	return p
}

func (p *project) try(args ...string) (string, error) {
	argv := append(append([]string{}, p.argv...), "--project-name", p.name, "--file", filepath.Join(rig.Root(), "docker-compose.yml"))
	argv = append(argv, args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = p.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return string(out), nil
}

// do runs docker compose with these arguments.
func (p *project) do(args ...string) {
	p.tb.Helper()
	start := time.Now()
	out, err := p.try(args...)
	if err != nil {
		p.tb.Fatalf("%v\n%s", err, out)
	}
	p.tb.Logf("compose %s: %.1f s", strings.Join(args, " "), time.Since(start).Seconds())
}

// container holds the fields of docker inspect that the tests need.
type container struct {
	ID    string
	Name  string
	State struct {
		Status string
		Pid    int
		Health *struct {
			Status string
			Log    []struct{ Output string }
		}
	}
	RestartCount int
	Config       struct {
		Hostname string
		User     string
		Labels   map[string]string
	}
	HostConfig struct {
		ReadonlyRootfs bool
		CapDrop        []string
		Privileged     bool
		SecurityOpt    []string
		RestartPolicy  struct{ Name string }
	}
	NetworkSettings struct {
		Ports map[string][]struct{ HostIP, HostPort string }
	}
}

func (c container) service() string { return c.Config.Labels["com.docker.compose.service"] }

// containers returns the containers of one service, or of all services for "".
func (p *project) containers(service string) []container {
	p.tb.Helper()
	args := []string{"ps", "--all", "--quiet", "--no-trunc", "--filter", "label=com.docker.compose.project=" + p.name}
	if service != "" {
		args = append(args, "--filter", "label=com.docker.compose.service="+service)
	}
	ids := strings.Fields(p.docker(args...))
	if len(ids) == 0 {
		return nil
	}
	var all []container
	if err := json.Unmarshal([]byte(p.docker(append([]string{"inspect"}, ids...)...)), &all); err != nil {
		p.tb.Fatal(err)
	}
	return all
}

// one returns the only container of a service.
func (p *project) one(service string) container {
	p.tb.Helper()
	all := p.containers(service)
	if len(all) != 1 {
		p.tb.Fatalf("%d containers of %s, want 1", len(all), service)
	}
	return all[0]
}

func (p *project) docker(args ...string) string {
	p.tb.Helper()
	out, err := docker(args...)
	if err != nil {
		p.tb.Fatal(err)
	}
	return out
}
