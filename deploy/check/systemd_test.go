package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const units = "../systemd"

// The units are what systemd accepts, they name programs, flags and pages that exist, and are
// stopped later than what they run.
func TestUnits(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(units, "*.service"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%q %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			set := map[string][]string{}
			for line := range strings.Lines(string(b)) {
				if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
					set[k] = append(set[k], v)
				}
			}
			if !slices.Equal(set["Type"], []string{"notify"}) || !slices.Equal(set["NotifyAccess"], []string{"main"}) || len(set["WatchdogSec"]) != 1 {
				t.Errorf("Type %q, NotifyAccess %q, WatchdogSec %q", set["Type"], set["NotifyAccess"], set["WatchdogSec"])
			}
			flags, err := filepath.Glob("../../internal/cli/*.go")
			if err != nil {
				t.Fatal(err)
			}
			source := ""
			for _, f := range flags {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				source += string(b)
			}
			if len(set["ExecStart"]) != 1 || !strings.HasPrefix(set["ExecStart"][0], "/usr/local/bin/hivebeat ") {
				t.Fatalf("ExecStart %q", set["ExecStart"])
			}
			for _, m := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(string(b), -1) {
				field := ""
				for _, word := range strings.Split(m[1], "-") {
					field += strings.ToUpper(word[:1]) + word[1:]
				}
				outside := slices.Contains([]string{"system", "groups", "now", "home-dir"}, m[1]) // of useradd and systemctl
				if !outside && !regexp.MustCompile(`(?i)\n\t`+field+`\s`).MatchString(source) {
					t.Errorf("hivebeat has no flag --%s", m[1])
				}
			}
			for _, doc := range set["Documentation"] {
				_, page, _ := strings.Cut(doc, "/blob/main/")
				if _, err := os.Stat(filepath.Join("../..", page)); err != nil {
					t.Error(err)
				}
			}
			verify(t, file)
		})
	}
}

// verify lets systemd check a unit, in a copy that names programs which exist here.
func verify(t *testing.T, file string) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Replace(filepath.Base(file), "@.", "@qwen.", 1)
	local := filepath.Join(t.TempDir(), name)
	text := strings.NewReplacer("/usr/local/bin/hivebeat", "/bin/true", "User=hivebeat", "User=root").Replace(string(b))
	if err := os.WriteFile(local, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "verify", "--man=no", "--recursive-errors=no", local).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, name) {
			t.Errorf("systemd says: %s", line)
		}
	}
	if err != nil && !t.Failed() {
		t.Logf("systemd-analyze: %v: %s", err, out)
	}
}
