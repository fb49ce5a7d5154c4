package hive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/gpu"
)

// nvidia reads GPUs with nvidia-smi. The zero value looks it up in the PATH.
type nvidia struct {
	path string
}

// The queried fields. A name may contain a comma, so it comes last.
const (
	gpuFields = "uuid,index,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw,name"
	appFields = "gpu_uuid,pid,used_memory"
)

// maxOutput bounds the output of nvidia-smi.
const maxOutput = 1 << 20

// Name is part of gpu.Reader.
func (nvidia) Name() string { return "nvidia-smi" }

// Read is part of gpu.Reader.
func (n nvidia) Read(ctx context.Context) (gpu.Reading, error) {
	got, err := n.read(ctx)
	if errors.Is(err, errNone) {
		err = gpu.ErrNone
	}
	r := gpu.Reading{Partial: got.partial, ProcsErr: got.appsErr}
	for _, g := range got.gpus {
		r.Devices = append(r.Devices, gpu.Device{GPU: g})
	}
	for _, a := range got.apps {
		r.Procs = append(r.Procs, gpu.Proc{UUID: a.uuid, PID: a.pid, Used: a.used})
	}
	return r, err
}

// gpuReading is one reading of all GPUs.
type gpuReading struct {
	gpus []hivebeat.GPU
	// partial is set if some row could not be read, and says why. The GPUs that are
	// missing from gpus still exist.
	partial error
	apps    []gpuApp
	appsErr error // why apps is unknown
}

// gpuApp is the memory that a process holds on a GPU.
type gpuApp struct {
	uuid string
	pid  uint64
	used uint64 // bytes
}

// read returns errNone where there is no nvidia-smi, and an empty reading where it finds no
// GPU.
func (n nvidia) read(ctx context.Context) (gpuReading, error) {
	path := n.path
	if path == "" {
		path = "nvidia-smi"
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return gpuReading{}, errNone
	}
	out, err := run(ctx, path, "--query-gpu="+gpuFields, "--format=csv,noheader,nounits")
	if noDevices(out) {
		return gpuReading{}, nil
	}
	r := parseGPUs(out)
	if err != nil {
		if len(r.gpus) == 0 {
			return gpuReading{}, failed(err, out)
		}
		r.partial = errors.Join(r.partial, failed(err, nil)) // it prints the rows it could read, and fails for the rest
	}
	if len(r.gpus) == 0 {
		if r.partial == nil {
			return gpuReading{}, errors.New("nvidia-smi printed nothing")
		}
		return gpuReading{}, r.partial
	}
	if out, err = run(ctx, path, "--query-compute-apps="+appFields, "--format=csv,noheader,nounits"); err != nil {
		r.appsErr = failed(err, out)
	} else {
		r.apps = parseApps(out)
	}
	return r, nil
}

func noDevices(out []byte) bool {
	return bytes.Contains(bytes.ToLower(out), []byte("no devices were found"))
}

// failed returns an error with how nvidia-smi ended and the first line it printed, if
// any.
func failed(err error, out []byte) error {
	if line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); line != "" {
		return fmt.Errorf("nvidia-smi: %w: %.160s", err, line)
	}
	return fmt.Errorf("nvidia-smi: %w", err)
}

// run returns the output of a command. It may hang forever: a process in
// uninterruptible sleep cannot be waited for, so the caller must bound the call.
func run(ctx context.Context, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 500 * time.Millisecond // a grandchild may hold the pipe open
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, nil
	err := cmd.Run()
	if ctxErr := ctx.Err(); err != nil && ctxErr != nil {
		err = ctxErr
	}
	return out.b, err
}

// bounded keeps up to maxOutput bytes. A write beyond that fails, which ends the
// command.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > maxOutput {
		return 0, errors.New("too much output")
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

// parseGPUs parses the rows that it can.
func parseGPUs(out []byte) gpuReading {
	var r gpuReading
	bad, first := 0, ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		g, ok := parseGPU(line)
		if !ok {
			if bad++; bad == 1 {
				first = line
			}
			continue
		}
		r.gpus = append(r.gpus, g)
	}
	if bad > 0 {
		r.partial = fmt.Errorf("nvidia-smi: %d rows do not describe a GPU; the first: %.120q", bad, first)
	}
	return r
}

// parseGPU parses one row. GPU.Err names the fields that it cannot read; the others are
// valid. ok is false if the line is not the row of a GPU.
func parseGPU(line string) (g hivebeat.GPU, ok bool) {
	f := strings.SplitN(line, ",", strings.Count(gpuFields, ",")+1)
	for i := range f {
		f[i] = strings.TrimSpace(f[i])
	}
	if len(f) != strings.Count(gpuFields, ",")+1 || !strings.HasPrefix(f[0], "GPU-") || len(f[0]) > hivebeat.MaxGPUID {
		return g, false
	}
	var faults []string
	number := func(i int, name string, unit float64, optional bool) float64 {
		if optional && unsupported(f[i]) {
			return 0
		}
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil || math.IsNaN(v) || math.Abs(v*unit) > hivebeat.MaxInt {
			faults = append(faults, name+": "+f[i])
			return 0
		}
		return v * unit
	}
	amount := func(i int, name string, unit float64, optional bool) uint64 {
		return uint64(max(0, number(i, name, unit, optional)))
	}
	g.UUID, g.Name = f[0], f[7]
	g.Index = amount(1, "index", 1, false)
	g.Total = amount(2, "total", 1<<20, false)
	g.Used = amount(3, "used", 1<<20, false)
	g.Util = min(100, amount(4, "util", 1, true))
	g.Temp = int64(number(5, "temp", 1, true))
	g.Power = amount(6, "power", 1000, true)
	g.Err = strings.Join(faults, "; ")
	return g, true
}

// unsupported reports whether the value of a field says that the GPU lacks it: a card
// in MIG mode has no utilization, a small one has no power meter. That is not a fault.
func unsupported(s string) bool {
	switch strings.ToLower(strings.Trim(s, "[]")) {
	case "n/a", "not supported", "insufficient permissions":
		return true
	}
	return false
}

// parseApps parses the rows that it can. It skips a process that has ended meanwhile,
// or whose memory the driver does not know.
func parseApps(out []byte) (apps []gpuApp) {
	for line := range strings.Lines(string(out)) {
		f := strings.Split(line, ",")
		if len(f) != 3 {
			continue
		}
		pid, err := strconv.ParseUint(strings.TrimSpace(f[1]), 10, 32)
		if err != nil {
			continue
		}
		mib, err := strconv.ParseUint(strings.TrimSpace(f[2]), 10, 32)
		if err != nil {
			continue
		}
		apps = append(apps, gpuApp{uuid: strings.TrimSpace(f[0]), pid: pid, used: mib << 20})
	}
	return apps
}
