//go:build e2e

package compose

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// The image for machines with GPUs runs what NVIDIA's container runtime puts into it: an
// nvidia-smi that is linked with glibc. The stand-in for it plays a scene.
func TestGPUImage(t *testing.T) {
	if _, err := docker("info"); err != nil {
		t.Fatal(err)
	}
	for _, s := range standIns(t) {
		s.ensure(t)
	}
	base := fmt.Sprintf("hivebeat-e2e-%d", os.Getpid())
	images := map[string]string{}
	for _, target := range []string{"static", "gpu"} {
		images[target] = base + "-" + target + ":1"
		t.Cleanup(func() { _, _ = docker("rmi", "--force", images[target]) })
		if out, err := docker("build", "--quiet", "--target", target, "-t", images[target], rig.Root()); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Cleanup(func() { _, _ = docker("image", "prune", "--force", "--filter", "label="+standInLabel) })

	var config struct {
		Size   int64
		Config struct {
			User string
			Env  []string
		}
	}
	out, err := docker("image", "inspect", "--format", "{{json .}}", images["gpu"])
	if err == nil {
		err = json.Unmarshal([]byte(out), &config)
	}
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" {
		t.Errorf("user %q, want 65532:65532", config.Config.User)
	}
	for _, want := range []string{"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"} {
		if !slices.Contains(config.Config.Env, want) {
			t.Errorf("no %s in %q", want, config.Config.Env)
		}
	}
	t.Logf("the image has %d MiB", config.Size>>20)
	if config.Size > 100<<20 {
		t.Errorf("the image has %d bytes, want at most 100 MiB", config.Size)
	}

	// A folder that every user in the container may read, as the runtime's mounts are.
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	smi, scene := filepath.Join(dir, "nvidia-smi"), filepath.Join(dir, "scene.json")
	cmd := exec.Command("go", "build", "-tags", "e2e", "-ldflags", "-linkmode=external", "-o", smi, "./internal/e2e/gpus/smi")
	cmd.Dir, cmd.Env = rig.Root(), append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !dynamic(t, smi) {
		t.Fatal("the stand-in for nvidia-smi is linked statically: it proves nothing")
	}
	text, err := os.ReadFile(filepath.Join(rig.Root(), "internal/e2e/gpus/testdata/scenes/recovery-reset.json"))
	if err == nil {
		err = os.WriteFile(scene, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	mounts := []string{
		"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"-v", smi + ":/usr/bin/nvidia-smi:ro", "-v", scene + ":/scene.json:ro", "-e", "SCENE=/scene.json",
	}
	run := func(image string, args ...string) (string, error) {
		return docker(slices.Concat([]string{"run", "--rm"}, mounts, []string{"--entrypoint", "/usr/bin/nvidia-smi", image}, args)...)
	}
	if out, err := run(images["static"], "-L"); err == nil {
		t.Errorf("nvidia-smi runs in the static image, so the check below proves nothing: %s", out)
	}
	if out, err := run(images["gpu"], "-L"); err != nil || !strings.Contains(out, "GPU-b1000001") {
		t.Errorf("nvidia-smi in the image for GPUs: %q, %v", out, err)
	}

	name := base + "-gpu"
	args := slices.Concat([]string{"run", "--detach", "--name", name, "--tmpfs", "/tmp:mode=1777"}, mounts,
		[]string{images["gpu"], "up", "--id", "gpu-01", "--store", "/tmp/store", "--metrics", "off"})
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := exec.Command("docker", "logs", name).CombinedOutput()
			t.Logf("--- logs:\n%s", logs)
		}
		_, _ = docker("rm", "--force", name)
	})
	if _, err := docker(args...); err != nil {
		t.Fatal(err)
	}
	rig.Until(t, moment, "the hive in the container to know its GPUs", func() (bool, string) {
		out, err := docker("exec", name, "/usr/local/bin/hivebeat", "get", "gpu-01", "-o", "json")
		var doc struct {
			Hive struct{ GPUs []hivebeat.GPU }
		}
		if err == nil {
			err = json.Unmarshal([]byte(out), &doc)
		}
		if err != nil {
			return false, err.Error()
		}
		return len(doc.Hive.GPUs) == 2 && doc.Hive.GPUs[0].Total == 81559<<20, out
	})
}

// dynamic reports whether a program needs a loader.
func dynamic(t *testing.T, program string) bool {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}
