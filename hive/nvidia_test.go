package hive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

func TestParseGPUs(t *testing.T) {
	const (
		good  = "GPU-a, 0, 81559, 40960, 93, 61, 412.35, NVIDIA H100 80GB HBM3\n"
		other = "GPU-b, 1, 81559, 0, 0, 30, 70.00, NVIDIA H100 80GB HBM3\n"
	)
	a := hivebeat.GPU{UUID: "GPU-a", Name: "NVIDIA H100 80GB HBM3", Total: 81559 << 20, Used: 40960 << 20, Util: 93, Temp: 61, Power: 412350}
	b := hivebeat.GPU{UUID: "GPU-b", Index: 1, Name: "NVIDIA H100 80GB HBM3", Total: 81559 << 20, Temp: 30, Power: 70000}
	for _, c := range []struct {
		name, out string
		want      []hivebeat.GPU
		partial   string
	}{
		{"nothing", "", nil, ""},
		{"two", good + other, []hivebeat.GPU{a, b}, ""},
		{"Windows line ends", strings.ReplaceAll(good+other, "\n", "\r\n"), []hivebeat.GPU{a, b}, ""},
		{"a name with a comma", "GPU-c, 2, 1, 0, 0, 30, 1.0, Tesla, the old one\n", []hivebeat.GPU{{UUID: "GPU-c", Index: 2, Name: "Tesla, the old one", Total: 1 << 20, Temp: 30, Power: 1000}}, ""},
		{
			"MIG and small cards do not have everything", "GPU-c, 2, 40960, 13, [N/A], 44, [Not Supported], A100\n" + other,
			[]hivebeat.GPU{{UUID: "GPU-c", Index: 2, Name: "A100", Total: 40960 << 20, Used: 13 << 20, Temp: 44}, b},
			"",
		},
		{
			"memory that is not known is a fault", "GPU-c, 2, [N/A], [N/A], 7, 44, 10.5, GB10\n" + other,
			[]hivebeat.GPU{{UUID: "GPU-c", Index: 2, Name: "GB10", Util: 7, Temp: 44, Power: 10500, Err: "total: [N/A]; used: [N/A]"}, b},
			"",
		},
		{
			"one that fails does not take the others along", "GPU-c, 2, [Unknown Error], 5, ERR!, [GPU is lost], 10.5, X\n" + other,
			[]hivebeat.GPU{{UUID: "GPU-c", Index: 2, Name: "X", Used: 5 << 20, Power: 10500, Err: "total: [Unknown Error]; util: ERR!; temp: [GPU is lost]"}, b},
			"",
		},
		{
			"a row that is none", "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error\n" + other,
			[]hivebeat.GPU{b},
			`nvidia-smi: 1 rows do not describe a GPU; the first: "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error"`,
		},
		{"a row that was cut", "GPU-a, 0, 815\n", nil, `nvidia-smi: 1 rows do not describe a GPU; the first: "GPU-a, 0, 815"`},
		{"numbers that are none", "GPU-c, -1, NaN, 1e300, -5, 44, inf, X\n", []hivebeat.GPU{{UUID: "GPU-c", Name: "X", Temp: 44, Err: "total: NaN; used: 1e300; power: inf"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := parseGPUs([]byte(c.out))
			if diff := cmp.Diff(c.want, r.gpus); diff != "" {
				t.Errorf("GPUs (-want +got):\n%s", diff)
			}
			got := ""
			if r.partial != nil {
				got = r.partial.Error()
			}
			if got != c.partial {
				t.Errorf("partial: %s\nwant     %s", got, c.partial)
			}
		})
	}
}

func TestParseApps(t *testing.T) {
	got := parseApps([]byte("GPU-a, 100, 512\nGPU-a, 101, [N/A]\nMIG-x, 102, [Insufficient Permissions]\n\nGPU-b, 103, 1\r\nnonsense\n"))
	want := []gpuApp{{"GPU-a", 100, 512 << 20}, {"GPU-b", 103, 1 << 20}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(gpuApp{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseGPUs(f *testing.F) {
	f.Add("GPU-a, 0, 81559, 40960, 93, 61, 412.35, NVIDIA H100\n")
	f.Add("GPU-c, 2, [N/A], ERR!, , 44, 10.5, X,\n\n,,,,,,,,")
	f.Fuzz(func(t *testing.T, out string) {
		for _, g := range parseGPUs([]byte(out)).gpus {
			if g.Total > hivebeat.MaxInt || g.Used > hivebeat.MaxInt || g.Power > hivebeat.MaxInt || g.Util > 100 || len(g.UUID) > hivebeat.MaxGPUID {
				t.Errorf("%+v is no GPU", g)
			}
		}
		parseApps([]byte(out))
	})
}

// smi writes a fake nvidia-smi.
func smi(t *testing.T, script string) nvidia {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	path := filepath.Join(t.TempDir(), "nvidia-smi")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return nvidia{path: path}
}

const eight = `
case "$1" in
--query-gpu=uuid,index,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw,name)
	for i in 0 1 2 3 4 5 6 7; do echo "GPU-$i, $i, 81559, $((i * 1000)), $i, 40, 100.5, NVIDIA H100"; done ;;
--query-compute-apps=gpu_uuid,pid,used_memory)
	echo "GPU-1, 4711, 600"; echo "GPU-1, 1, 400"; echo "GPU-2, 4711, [N/A]" ;;
*) exit 2 ;;
esac
[ "$2" = --format=csv,noheader,nounits ] || exit 2
`

func TestNvidiaSMI(t *testing.T) {
	for _, c := range []struct {
		name, script string
		gpus, apps   int
		err          string // part of the error; "none" is errNone
		partial      string
		appsErr      string
	}{
		{"eight", eight, 8, 2, "", "", ""},
		{"no devices, as a success", "echo 'No devices were found'", 0, 0, "", "", ""},
		{"no devices, as a failure", "echo 'No devices were found'; exit 6", 0, 0, "", "", ""},
		{
			"no driver", "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; echo more; exit 9",
			0, 0, "exit status 9: NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", "", "",
		},
		{"says nothing", "exit 0", 0, 0, "printed nothing", "", ""},
		{"garbage", "head -c 4096 /dev/zero; echo; echo hello", 0, 0, "rows do not describe a GPU", "", ""},
		{"partial, and fails", `case "$1" in --query-gpu*) echo "GPU-1, 1, 81559, 0, 0, 40, 1, H100"; exit 15;; esac`, 1, 0, "", "exit status 15", ""},
		{"processes are not to be had", `case "$1" in --query-gpu*) echo "GPU-1, 1, 81559, 0, 0, 40, 1, H100";; *) exit 3;; esac`, 1, 0, "", "", "exit status 3"},
		{"too much", "while :; do echo 'a line that comes again and again and again'; done", 0, 0, "nvidia-smi", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := smi(t, c.script)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, err := n.read(ctx)
			if (c.err == "none") != errors.Is(err, errNone) || !matches(err, c.err) || !matches(r.partial, c.partial) || !matches(r.appsErr, c.appsErr) {
				t.Errorf("error %v, partial %v, of processes %v; want %q, %q, %q", err, r.partial, r.appsErr, c.err, c.partial, c.appsErr)
			}
			if len(r.gpus) != c.gpus || len(r.apps) != c.apps {
				t.Errorf("%d GPUs and %d processes, want %d and %d", len(r.gpus), len(r.apps), c.gpus, c.apps)
			}
		})
	}
}

func matches(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

func TestNoNvidiaSMI(t *testing.T) {
	if _, err := (nvidia{path: filepath.Join(t.TempDir(), "nvidia-smi")}).read(t.Context()); !errors.Is(err, errNone) {
		t.Errorf("got %v", err)
	}
}

// A command that hangs is killed at its deadline, even if its child holds the pipe.
func TestNvidiaSMIThatHangsIsEnded(t *testing.T) {
	for name, script := range map[string]string{"itself": "exec sleep 600", "its child": "sleep 5; echo"} {
		t.Run(name, func(t *testing.T) {
			n := smi(t, script)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := n.read(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
}
