//go:build e2e

// Package compose starts docker-compose.yml on the local engine, like a user does, and
// breaks it.
package compose

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// moment is how long anything may take that does not wait for a deadline. It is generous,
// because the machine may be busy.
const moment = 30 * time.Second

func TestCompose(t *testing.T) {
	if _, err := docker("info"); err != nil {
		t.Fatalf("%v\nhint: start the engine, or run make e2e-fabric e2e-natscli alone", err)
	}
	for _, s := range standIns(t) {
		s.ensure(t)
	}

	// Promises of a second instead of half a minute, so that deaths are seen within seconds.
	p := newProject(t, "HIVEBEAT_WORKER_EVERY=1s", "HIVEBEAT_HIVE_EVERY=1s")
	p.do("up", "-d", "--scale", "worker=3") // builds the image, like a user's first start

	nc := rig.Connect(t, p.url)
	events := rig.Listen(t, nc)
	workers := p.containers("worker")
	if len(workers) != 3 {
		t.Fatalf("%d workers, want 3", len(workers))
	}
	id := func(c container) string { return "gpu-01/" + c.Config.Hostname }
	want := rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-02": hivebeat.Alive, "gpu-02/" + p.one("worker-02").Config.Hostname: hivebeat.Alive}
	for _, w := range workers {
		want[id(w)] = hivebeat.Alive
	}
	rig.Sees(t, nc, 2*moment, want)

	t.Run("one service builds the image, and no registry is asked for it", func(t *testing.T) { builtOnce(t, p) })
	t.Run("nobody is root and nothing is open", func(t *testing.T) { hardened(t, p) })
	t.Run("every container becomes healthy", func(t *testing.T) { healthy(t, p) })
	t.Run("ls from outside and inside", func(t *testing.T) {
		out, errs, code := rig.CLI(t, nil, "ls", "--nats", p.url)
		inside := p.docker("exec", p.one("queen").ID, "/usr/local/bin/hivebeat", "ls")
		for _, s := range []string{out, inside} {
			for _, name := range append([]string{"gpu-01", "gpu-02", "llama-3.1-8b", "qwen3-32b"}, workers[0].Config.Hostname) {
				if !strings.Contains(s, name) {
					t.Errorf("ls (exit code %d) does not show %s:\n%s%s", code, name, s, errs)
				}
			}
		}
		t.Logf("hivebeat ls:\n%s", out)
	})

	t.Run("page and API from outside", func(t *testing.T) {
		for path, want := range map[string]string{"/": "<title>", "/v1/hives/gpu-01": `"live":"alive"`, "/readyz": ""} {
			if body := fetch(t, p.http+path); !strings.Contains(body, want) {
				t.Errorf("%s: no %s in %.500s", path, want, body)
			}
		}
	})

	// The order matters from here on: each step stops what the next one does not need.
	step(t, "scaled up, a new worker joins", func(t *testing.T) {
		p.do("up", "-d", "--scale", "worker=4")
		for _, c := range p.containers("worker") {
			if !slices.ContainsFunc(workers, func(w container) bool { return w.ID == c.ID }) {
				workers = append(workers, c)
			}
		}
		if len(workers) != 4 {
			t.Fatalf("%d workers after scaling, want 4", len(workers))
		}
		events.Wait(t, moment, hivebeat.KindJoined, id(workers[3]))
		rig.Sees(t, nc, moment, rig.Fleet{id(workers[0]): hivebeat.Alive, id(workers[3]): hivebeat.Alive})
	})

	step(t, "a killed worker is lost, once, with its cause", func(t *testing.T) {
		p.docker("kill", "-s", "KILL", workers[0].ID)
		lost := events.Wait(t, moment, hivebeat.KindLost, id(workers[0]))
		if lost.Data.Cause != hivebeat.CauseMissed || lost.Data.AgeMS == 0 || lost.Data.Via != "hive" {
			t.Errorf("lost without evidence: %+v", lost.Data)
		}
		rig.Sees(t, nc, moment, rig.Fleet{id(workers[0]): hivebeat.Lost})
		if out, _, _ := rig.CLI(t, nil, "ls", "--nats", p.url); !strings.Contains(out, "lost") {
			t.Errorf("ls does not say lost:\n%s", out)
		}
	})

	step(t, "a stopped worker has left", func(t *testing.T) {
		p.docker("stop", "--time", "10", workers[1].ID)
		left := events.Wait(t, moment, hivebeat.KindLeft, id(workers[1]))
		if left.Data.Cause != hivebeat.CauseGoodbye {
			t.Errorf("left without a goodbye: %+v", left.Data)
		}
		rig.Sees(t, nc, moment, rig.Fleet{id(workers[1]): hivebeat.Left})
	})

	step(t, "a crashed worker is started again by the engine", func(t *testing.T) {
		// docker kill counts as a manual stop; this is a crash.
		if err := syscall.Kill(workers[2].State.Pid, syscall.SIGKILL); err != nil {
			t.Skipf("only root here can kill a container's process: %v", err)
		}
		events.Wait(t, moment, hivebeat.KindRestarted, id(workers[2]))
		rig.Sees(t, nc, moment, rig.Fleet{id(workers[2]): hivebeat.Alive})
	})

	step(t, "a killed hive is lost and its key goes", func(t *testing.T) {
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		var none hivebeat.Subjects
		kv, err := js.KeyValue(t.Context(), none.Bucket(hivebeat.BucketHives))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Get(t.Context(), "gpu-02"); err != nil {
			t.Fatalf("before it was killed: %v", err)
		}
		p.docker("kill", "-s", "KILL", p.one("hive-02").ID)
		lost := events.Wait(t, moment, hivebeat.KindLost, "gpu-02")
		if lost.Data.Cause != hivebeat.CauseMissed {
			t.Errorf("lost by %q, want missed", lost.Data.Cause)
		}
		rig.Until(t, moment, "the key of gpu-02 to go", func() (bool, string) {
			_, err := kv.Get(t.Context(), "gpu-02")
			return err != nil, fmt.Sprint(err)
		})
		rig.Sees(t, nc, moment, rig.Fleet{"gpu-02": hivebeat.Lost, "gpu-01": hivebeat.Alive})

		p.docker("start", p.one("hive-02").ID)
		events.Wait(t, moment, hivebeat.KindRestarted, "gpu-02")
		rig.Sees(t, nc, moment, rig.Fleet{"gpu-02": hivebeat.Alive})
	})

	step(t, "NATS restarted: everybody is back, and nobody who lived is lost", func(t *testing.T) {
		before := stored(t, p)
		p.docker("restart", "--time", "5", p.one("nats").ID)
		rig.Until(t, moment, "the test's own connection", func() (bool, string) { return nc.IsConnected(), nc.Status().String() })
		rig.Sees(t, nc, 2*moment, rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-02": hivebeat.Alive, id(workers[2]): hivebeat.Alive, id(workers[3]): hivebeat.Alive})
		if after := stored(t, p); after < before {
			t.Errorf("the stream had %d events and has %d: the volume did not keep them", before, after)
		}
		for _, who := range []string{"gpu-01", id(workers[3])} {
			if lost := events.Of(hivebeat.KindLost, who); len(lost) > 0 {
				t.Errorf("%s lived and was called lost: %v", who, lost)
			}
		}
	})

	step(t, "a killed queen: the next one remembers", func(t *testing.T) {
		queen := p.one("queen")
		p.docker("kill", "-s", "KILL", queen.ID)
		p.docker("start", queen.ID)
		rig.Sees(t, nc, 2*moment, rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-02": hivebeat.Alive, id(workers[3]): hivebeat.Alive, id(workers[0]): hivebeat.Lost})
	})

	if doubled := events.Doubled(); len(doubled) > 0 {
		t.Errorf("events heard twice: %v", doubled)
	}
	events.Once(t, hivebeat.KindLost, id(workers[0]))
	events.Once(t, hivebeat.KindLost, "gpu-02")
	events.Once(t, hivebeat.KindLeft, id(workers[1]))
}

// An image that has the name of a stand-in and is not one belongs to the user: it is used,
// and never overwritten.
func TestRealImageIsLeftAlone(t *testing.T) {
	name := fmt.Sprintf("hivebeat-e2e-real-%d:1", os.Getpid())
	fill := func(text string) func(r *rootfs) {
		return func(r *rootfs) { r.text("what", 0o644, text) }
	}
	identity := func() string {
		t.Helper()
		id, err := docker("image", "inspect", "--format", "{{.Id}}", name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(id)
	}
	t.Cleanup(func() { _, _ = docker("rmi", "--force", name) })

	stand := standIn{name: name, made: "1", fill: fill("stand-in")}
	stand.ensure(t)
	first := identity()
	stand.ensure(t)
	if now := identity(); now != first {
		t.Errorf("a stand-in of the same make was made again: %s, then %s", first, now)
	}
	stand.made = "2"
	stand.ensure(t)
	if identity() == first {
		t.Errorf("a stand-in of another make was kept: %s", first)
	}
	if _, err := docker("rmi", "--force", first); err != nil { // it has lost its name
		t.Error(err)
	}

	if _, err := docker("rmi", "--force", name); err != nil {
		t.Fatal(err)
	}
	imported(t, name, nil, fill("the real one"))
	theirs := identity()
	stand.ensure(t)
	if now := identity(); now != theirs {
		t.Errorf("a real image was overwritten: %s, then %s", theirs, now)
	}
}

// step is a subtest that the following ones depend on.
func step(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	if !t.Run(name, f) {
		t.FailNow()
	}
}

func stored(t *testing.T, p *project) uint64 {
	t.Helper()
	js, err := jetstream.New(rig.Connect(t, p.url))
	if err != nil {
		t.Fatal(err)
	}
	var none hivebeat.Subjects
	s, err := js.Stream(t.Context(), none.Stream(hivebeat.StreamEvents))
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// hardened checks the promises of the compose file, as the engine and the kernel report
// them.
func hardened(t *testing.T, p *project) {
	all := p.containers("")
	if len(all) < 7 {
		t.Fatalf("%d containers, want at least 7", len(all))
	}
	for _, c := range all {
		h := c.HostConfig
		if !h.ReadonlyRootfs || h.Privileged || !slices.Contains(h.CapDrop, "ALL") || !slices.ContainsFunc(h.SecurityOpt, func(s string) bool { return strings.HasPrefix(s, "no-new-privileges") }) {
			t.Errorf("%s: not hardened: %+v", c.Name, h)
		}
		if h.RestartPolicy.Name != "unless-stopped" {
			t.Errorf("%s: restart policy %q", c.Name, h.RestartPolicy.Name)
		}
		for port, bindings := range c.NetworkSettings.Ports {
			for _, b := range bindings {
				if b.HostIP != "127.0.0.1" {
					t.Errorf("%s: port %s is open on %s:%s", c.Name, port, b.HostIP, b.HostPort)
				}
			}
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.State.Pid))
		if err != nil {
			t.Logf("%s: %v", c.Name, err) // the engine runs in a virtual machine
			continue
		}
		for _, want := range []string{"\nUid:\t65532\t65532\t65532\t65532\n", "\nCapEff:\t0000000000000000\n", "\nNoNewPrivs:\t1\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s: its process is not %q:\n%s", c.Name, strings.TrimSpace(want), status)
			}
		}
	}
}

// builtOnce checks that a single service builds the image for all. Compose v2 builds services
// in parallel, and an engine that stores its images in containerd refuses the second of two
// exports under one name.
func builtOnce(t *testing.T, p *project) {
	config, err := p.try("config")
	if err != nil {
		t.Fatalf("%v\n%s", err, config)
	}
	if n := strings.Count(config, "\n    build:"); n != 1 {
		t.Errorf("%d services build, want 1:\n%s", n, config)
	}
	ours, local := strings.Count(config, "\n    image: "+p.image+"\n"), strings.Count(config, "\n    pull_policy: never\n")
	if ours < 5 || local != ours {
		t.Errorf("%d services have our image, %d ask no registry for theirs:\n%s", ours, local, config)
	}
	// If every service built, each except the last would leave an image without a name.
	if lost := p.docker("image", "ls", "--quiet", "--filter", "dangling=true", "--filter", "label=com.docker.compose.project="+p.name); lost != "" {
		t.Errorf("images without a name: %s", lost)
	}
}

// fetch returns the content at url.
func fetch(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := new(http.Client).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s %v: %.500s", url, resp.Status, err, body)
	}
	return string(body)
}

func healthy(t *testing.T, p *project) {
	pace := time.NewTicker(500 * time.Millisecond) // each look runs several docker commands
	defer pace.Stop()
	rig.Until(t, 2*time.Minute, "every container to be healthy", func() (bool, string) {
		var not []string
		for _, c := range p.containers("") {
			if c.State.Health == nil {
				t.Fatalf("%s has no health check", c.Name)
			}
			if c.State.Health.Status != "healthy" {
				last := ""
				if n := len(c.State.Health.Log); n > 0 {
					last = c.State.Health.Log[n-1].Output
				}
				not = append(not, fmt.Sprintf("%s is %s: %s", c.service(), c.State.Health.Status, last))
			}
		}
		if len(not) > 0 {
			<-pace.C
		}
		return len(not) == 0, strings.Join(not, "; ")
	})
}
