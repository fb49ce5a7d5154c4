package check

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The types below are the part of the Kubernetes API that the manifests use. They are decoded
// strictly: a key that is not here is a typo, or has to be added.

type meta struct {
	Name        string
	Namespace   string
	Labels      map[string]string
	Annotations map[string]string
}

type workload struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		Replicas int
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		UpdateStrategy struct {
			RollingUpdate struct {
				MaxUnavailable int `yaml:"maxUnavailable"`
			} `yaml:"rollingUpdate"`
		} `yaml:"updateStrategy"`
		Template struct {
			Metadata meta
			Spec     pod
		}
	}
}

type pod struct {
	HostPID                       bool              `yaml:"hostPID"`
	HostNetwork                   bool              `yaml:"hostNetwork"`
	DNSPolicy                     string            `yaml:"dnsPolicy"`
	RuntimeClassName              string            `yaml:"runtimeClassName"`
	NodeSelector                  map[string]string `yaml:"nodeSelector"`
	Tolerations                   []struct{ Key, Operator, Effect string }
	AutomountServiceAccountToken  *bool       `yaml:"automountServiceAccountToken"`
	PriorityClassName             string      `yaml:"priorityClassName"`
	TerminationGracePeriodSeconds int         `yaml:"terminationGracePeriodSeconds"`
	SecurityContext               security    `yaml:"securityContext"`
	InitContainers                []container `yaml:"initContainers"`
	Containers                    []container
	Volumes                       []volume
}

type volume struct {
	Name     string
	HostPath struct{ Path, Type string } `yaml:"hostPath"`
}

type container struct {
	Name, Image   string
	RestartPolicy string `yaml:"restartPolicy"`
	Args          []string
	Env           []struct {
		Name, Value string
		ValueFrom   map[string]map[string]string `yaml:"valueFrom"`
	}
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	Resources       map[string]map[string]string
	SecurityContext security `yaml:"securityContext"`
	VolumeMounts    []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type security struct {
	RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
	RunAsUser                int64 `yaml:"runAsUser"`
	RunAsGroup               int64 `yaml:"runAsGroup"`
	AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
	ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
	Capabilities             struct{ Drop, Add []string }
	SeccompProfile           struct{ Type string } `yaml:"seccompProfile"`
}

// decode reads a document strictly.
func decode(t *testing.T, b []byte, into any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
}

func manifest(t *testing.T, name string) (w workload) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../kubernetes", name))
	if err != nil {
		t.Fatal(err)
	}
	decode(t, b, &w)
	for k, v := range w.Spec.Selector.MatchLabels {
		if w.Spec.Template.Metadata.Labels[k] != v {
			t.Errorf("the template has no label %s=%s", k, v)
		}
	}
	if w.APIVersion != "apps/v1" || w.Metadata.Name == "" || len(w.Spec.Selector.MatchLabels) == 0 {
		t.Errorf("%s %q selects %v", w.APIVersion, w.Metadata.Name, w.Spec.Selector.MatchLabels)
	}
	return w
}

// The DaemonSets parse, and their flags and variables are those of hivebeat hive.
func TestDaemonSets(t *testing.T) {
	h := build(t)
	for _, tt := range []struct {
		file     string
		discover bool
	}{{"daemonset.yaml", false}, {"daemonset-discover.yaml", true}} {
		t.Run(tt.file, func(t *testing.T) {
			w := manifest(t, tt.file)
			p := &w.Spec.Template.Spec
			if w.Kind != "DaemonSet" || len(p.Containers) != 1 || !p.HostPID || p.RuntimeClassName != "nvidia" {
				t.Fatalf("not one container with hostPID and the class nvidia in a DaemonSet: %+v", w)
			}
			c := &p.Containers[0]
			if got := slices.Contains(c.Args, "--discover"); got != tt.discover || p.HostNetwork != tt.discover {
				t.Errorf("--discover %t, host network %t, want both %t", got, p.HostNetwork, tt.discover)
			}
			var capabilities []string
			if tt.discover {
				capabilities = []string{"SYS_PTRACE"}
			} else if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser != 65532 {
				t.Errorf("the pod is root: %+v", s)
			}
			hardened(t, c, capabilities)
			for _, m := range c.VolumeMounts {
				if !slices.ContainsFunc(p.Volumes, func(v volume) bool { return v.Name == m.Name }) {
					t.Errorf("no volume %s", m.Name)
				}
			}
			usage(t, h, c, "hive")
		})
	}
}

// The native sidecar is one, and its flags and variables are those of hivebeat worker.
func TestNativeSidecar(t *testing.T) {
	h := build(t)
	w := manifest(t, "sidecar.yaml")
	p := &w.Spec.Template.Spec
	if w.Kind != "Deployment" || len(p.InitContainers) != 1 || len(p.Containers) != 1 {
		t.Fatalf("not one sidecar beside one engine in a Deployment: %+v", w)
	}
	native(t, h, &p.InitContainers[0])
	hardened(t, &p.InitContainers[0], nil)
}

// native checks the container of a native sidecar.
func native(t *testing.T, h *command, c *container) {
	t.Helper()
	if c.RestartPolicy != "Always" {
		t.Errorf("restartPolicy %q, want Always", c.RestartPolicy)
	}
	usage(t, h, c, "worker")
	set := map[string]bool{}
	for _, e := range c.Env {
		set[e.Name] = true
	}
	for _, name := range []string{"POD_IP", "HIVEBEAT_HIVE", "HIVEBEAT_ID", "HIVEBEAT_NATS"} {
		if !set[name] {
			t.Errorf("%s is not set", name)
		}
	}
}

func hardened(t *testing.T, c *container, capabilities []string) {
	t.Helper()
	if s := c.SecurityContext; s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || !slices.Equal(s.Capabilities.Add, capabilities) {
		t.Errorf("the container is not hardened: %+v", s)
	}
	if c.Resources["limits"]["memory"] == "" || c.Resources["requests"]["cpu"] == "" {
		t.Errorf("resources %v", c.Resources)
	}
}

// usage checks the flags and variables of a container that runs a command of hivebeat.
func usage(t *testing.T, h *command, c *container, name string) {
	t.Helper()
	flags, variables := h.flags(t, name)
	if len(c.Args) == 0 || c.Args[0] != name {
		t.Fatalf("args %q, want those of %s", c.Args, name)
	}
	for _, a := range c.Args[1:] {
		if flag, _, _ := strings.Cut(a, "="); !flags[flag] {
			t.Errorf("hivebeat %s has no flag %s", name, flag)
		}
	}
	for _, e := range c.Env {
		if strings.HasPrefix(e.Name, "HIVEBEAT_") && !variables[e.Name] {
			t.Errorf("hivebeat %s has no variable %s", name, e.Name)
		}
		if e.Value == "" && len(e.ValueFrom) == 0 {
			t.Errorf("%s has no value", e.Name)
		}
	}
}

// The blocks of docs/WORKERS.md for each engine are what they look like, and each command line has
// only flags that there are.
func TestWorkersPage(t *testing.T) {
	h := build(t)
	b, err := os.ReadFile("../../docs/WORKERS.md")
	if err != nil {
		t.Fatal(err)
	}
	lines, services, sidecars := 0, 0, 0
	for _, m := range regexp.MustCompile("(?ms)^```(sh|ini|yaml)\n(.*?)^```").FindAllStringSubmatch(string(b), -1) {
		for _, call := range regexp.MustCompile(`(?m)hivebeat (worker|hive|up|sidecar|doctor) ([^\n]*)`).FindAllStringSubmatch(m[2], -1) {
			flags, _ := h.flags(t, call[1])
			args, _, _ := strings.Cut(call[2], " -- ")
			args, _, _ = strings.Cut(args, " #")
			for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(args, -1) {
				if lines++; !flags[flag] {
					t.Errorf("hivebeat %s has no flag %s: %s", call[1], flag, call[0])
				}
			}
		}
		switch {
		case strings.HasPrefix(m[2], "services:"):
			var compose struct {
				Services map[string]struct {
					Image       string
					Command     []string
					Environment map[string]string
					DependsOn   []string `yaml:"depends_on"`
				}
			}
			decode(t, []byte(m[2]), &compose)
			for name, s := range compose.Services {
				services++
				flags, _ := h.flags(t, s.Command[0])
				for _, a := range s.Command[1:] {
					if strings.HasPrefix(a, "--") && !flags[a] {
						t.Errorf("service %s: hivebeat %s has no flag %s", name, s.Command[0], a)
					}
				}
			}
		case strings.HasPrefix(m[2], "initContainers:"):
			var p pod
			decode(t, []byte(m[2]), &p)
			for i := range p.InitContainers {
				sidecars++
				native(t, h, &p.InitContainers[i])
			}
		}
	}
	if lines < 50 || services < 6 || sidecars < 6 {
		t.Errorf("%d flags, %d services and %d sidecars were checked", lines, services, sidecars)
	}
}

// command is hivebeat, as built from this tree.
type command struct {
	bin  string
	seen map[string][2]map[string]bool
}

func build(t *testing.T) *command {
	t.Helper()
	c := &command{filepath.Join(t.TempDir(), "hivebeat"), map[string][2]map[string]bool{}}
	cmd := exec.Command("go", "build", "-o", c.bin, "./cmd/hivebeat")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return c
}

// flags returns the flags of a command, and the variables that set them.
func (c *command) flags(t *testing.T, name string) (flags, variables map[string]bool) {
	t.Helper()
	if s, ok := c.seen[name]; ok {
		return s[0], s[1]
	}
	help, err := exec.Command(c.bin, name, "--help").Output()
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
	c.seen[name] = [2]map[string]bool{flags, variables}
	return flags, variables
}
