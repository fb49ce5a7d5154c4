package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const daemonSetFile = "../kubernetes/daemonset.yaml"

// The DaemonSet parses, and its flags and variables are those of hivebeat hive.
func TestDaemonSet(t *testing.T) {
	b, err := os.ReadFile(daemonSetFile)
	if err != nil {
		t.Fatal(err)
	}
	type security struct {
		RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
		RunAsUser                int64 `yaml:"runAsUser"`
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop, Add []string }
	}
	var d struct {
		Kind string
		Spec struct {
			Selector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			}
			Template struct {
				Metadata struct{ Labels map[string]string }
				Spec     struct {
					HostPID          bool     `yaml:"hostPID"`
					RuntimeClassName string   `yaml:"runtimeClassName"`
					SecurityContext  security `yaml:"securityContext"`
					Containers       []struct {
						Name, Image string
						Args        []string
						Env         []struct {
							Name, Value string
							ValueFrom   map[string]map[string]string `yaml:"valueFrom"`
						}
						SecurityContext security `yaml:"securityContext"`
						Resources       map[string]map[string]string
						VolumeMounts    []struct{ Name string } `yaml:"volumeMounts"`
					}
					Volumes []struct{ Name string }
				}
			}
		}
	}
	if err := yaml.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	pod := &d.Spec.Template.Spec
	if d.Kind != "DaemonSet" || len(pod.Containers) != 1 || !pod.HostPID || pod.RuntimeClassName != "nvidia" {
		t.Fatalf("not one container with hostPID and the class nvidia in a DaemonSet: %+v", d)
	}
	for k, v := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Metadata.Labels[k] != v {
			t.Errorf("the template has no label %s=%s", k, v)
		}
	}
	c := &pod.Containers[0]
	if s := pod.SecurityContext; !s.RunAsNonRoot || s.RunAsUser != 65532 {
		t.Errorf("the pod is root: %+v", s)
	}
	if s := c.SecurityContext; s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 {
		t.Errorf("the container is not hardened: %+v", s)
	}
	if c.Resources["limits"]["memory"] == "" || c.Resources["requests"]["cpu"] == "" {
		t.Errorf("resources %v", c.Resources)
	}
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(pod.Volumes, func(v struct{ Name string }) bool { return v.Name == m.Name }) {
			t.Errorf("no volume %s", m.Name)
		}
	}

	flags, variables := hiveFlags(t)
	if c.Args[0] != "hive" {
		t.Errorf("args %q", c.Args)
	}
	for _, a := range c.Args[1:] {
		if name, _, _ := strings.Cut(a, "="); !flags[name] {
			t.Errorf("hivebeat hive has no flag %s", name)
		}
	}
	for _, e := range c.Env {
		if strings.HasPrefix(e.Name, "HIVEBEAT_") && !variables[e.Name] {
			t.Errorf("hivebeat hive has no variable %s", e.Name)
		}
		if e.Value == "" && len(e.ValueFrom) == 0 {
			t.Errorf("%s has no value", e.Name)
		}
	}
}

// hiveFlags returns the flags of hivebeat hive, and the variables that set them.
func hiveFlags(t *testing.T) (flags, variables map[string]bool) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "hivebeat")
	build := exec.Command("go", "build", "-o", bin, "./cmd/hivebeat")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	help, err := exec.Command(bin, "hive", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	flags, variables = map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\s+(?:-\w, )?(--[a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
		flags[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`\$(HIVEBEAT_\w+)`).FindAllStringSubmatch(string(help), -1) {
		variables[m[1]] = true
	}
	if len(flags) < 10 || len(variables) < 10 {
		t.Fatalf("flags %v, variables %v", flags, variables)
	}
	return flags, variables
}
