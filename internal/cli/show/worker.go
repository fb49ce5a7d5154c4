package show

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// workerGPUs renders the GPU memory of a worker, its GPUs, and what is wrong with them.
func (d *detail) workerGPUs(w *api.WorkerInfo) {
	of := func(bytes uint64, what string) string {
		if bytes == 0 {
			return ""
		}
		return size(bytes) + " " + what
	}
	d.line("vram", "%s", join(of(w.VRAM, "reported by itself"), of(w.Proc.VRAM, "by the driver"), of(w.Need, "needed once loaded")))
	d.line("", "%s", d.p.Text(plaintext.Line(w.MemoryConflict), Warn))
	d.line("gpus", "%s", join(w.GPUs...))
	d.line("memory on", "%s", join(w.On...))
	if f := w.GPUFault; f != nil {
		d.line("gpu fault", "%s", d.p.Text(plaintext.Line(gpuFault(f)), gpuStyle(f.State)))
	}
	d.line("fault", "%s", d.p.Text(plaintext.Line(w.Fault), Warn))
}

// gpuFault says what is wrong with the GPU of a worker, and what follows.
func gpuFault(f *api.GPUFault) string {
	text := gpuName(f.Index) + " is " + string(f.State)
	if why := cmp.Or(f.Evidence, string(f.Cause)); why != "" {
		text += ": " + why
	}
	if f.Action != "" {
		text += " · to do: " + actionText(f.Action)
	}
	switch f.State {
	case hivebeat.GPUUnknown, hivebeat.GPUDegraded:
		text += " · picked only after all others"
	default:
		text += " · not picked"
	}
	return text + " · " + f.GPU
}

// process renders what the system reports about the processes of a worker.
func (d *detail) process(w *api.WorkerInfo) {
	process := ""
	if w.PID > 0 {
		process = "pid " + strconv.FormatUint(w.PID, 10)
	}
	if w.Host != "" {
		process = strings.TrimLeft(process+" on "+plaintext.Line(w.Host), " ")
	}
	pr := &w.Proc
	counted := func(n uint64, what string) string {
		if n == 0 {
			return ""
		}
		return plural(int(min(n, 1<<30)), what)
	}
	if pr.RSS > 0 || pr.Up > 0 {
		rss, read, many := size(pr.RSS), "", ""
		if pr.MemMax > 0 {
			rss += " of " + size(pr.MemMax) + " allowed"
		}
		if pr.Read > 0 {
			read = size(pr.Read) + " read"
		}
		if pr.Procs > 1 {
			many = strconv.FormatUint(pr.Procs, 10) + " processes"
		}
		process = join(process, many, rss, read, percent(pr.CPU)+" of a CPU", counted(pr.Threads, "thread"), counted(pr.Files, "open file"), "up "+age(pr.Up))
	}
	if pr.OOM > 0 {
		process = strings.TrimPrefix(process+" · "+d.p.Text(oomKills(pr.OOM)+" killed because memory ran out", Warn), " · ")
	}
	d.line("process", "%s", process)
}

func oomKills(n uint64) string {
	if n == 1 {
		return "1 process"
	}
	return count(n) + " processes"
}
