package gpu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

// SMI reads NVIDIA's GPUs with nvidia-smi -q -x: one call gives memory, MIG devices,
// processes, errors and the recovery action. A second one, nvidia-smi -L, is made only while
// a card is split, because the XML has no UUIDs and profiles of MIG devices.
//
// The CSV form (--query-gpu) is not used, not even if the XML fails. It has neither MIG
// devices nor their memory, its columns differ between drivers, so that one unknown column
// costs all of them, and processes need a second call at another moment. No driver is known
// that answers it and refuses -q -x: both walk over the same devices, and end at the same
// lost one.
type SMI struct {
	Faults Table  // nil is DefaultFaults
	Sysfs  string // where sysfs is mounted; empty is /sys
	Kmsg   string // the kernel log; empty is /dev/kmsg

	path string
	cmd  command
}

// NewSMI returns a reader that runs the nvidia-smi at path; an empty path looks it up in the
// PATH at each reading, so that a driver that is installed later is found.
func NewSMI(path string) *SMI { return &SMI{path: path} }

// Name is part of Reader.
func (*SMI) Name() string { return "nvidia-smi" }

// Read is part of Reader. It returns ErrNone only where there is no nvidia-smi. "No devices
// were found" is a good reading of none: whether the machine has lost them is not for a
// reader to say. A message that names a GPU without its facts is a Mention, and then the
// reading is no error even if it has no devices. A Mention without address and index is of a
// GPU that is missing from the reading. Present and Took are valid beside an error.
func (s *SMI) Read(ctx context.Context) (r Reading, err error) {
	path := s.path
	if path == "" {
		path = "nvidia-smi"
	}
	path, err = exec.LookPath(path)
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return Reading{}, ErrNone
	case err != nil:
		return Reading{}, err
	}
	began := time.Now()
	out, errs, how := s.cmd.run(ctx, path, "-q", "-x")
	log := parseSMI(out)
	log.messages = append(log.messages, lines(errs)...)
	table := s.Faults
	if table == nil {
		table = DefaultFaults()
	}
	var ids migIDs
	var idsErr error
	if how == nil && log.lacksMIGIDs() {
		ids, idsErr = s.list(ctx, path)
	}
	r, err = log.reading(table, ids, how)
	if r.Partial == nil && idsErr != nil {
		r.Partial = idsErr
	}
	r.Present = CountPCI(s.Sysfs, vendorNVIDIA)
	r.Took = time.Since(began)
	return r, err
}

// Watch is part of Watcher. nvidia-smi reports nothing by itself: the kernel log does.
func (s *SMI) Watch(ctx context.Context, report func(Incident)) error {
	return KernelLog{Faults: s.Faults, Path: s.Kmsg}.Watch(ctx, report)
}

// Exit statuses of nvidia-smi, from its manual.
const (
	exitInfoROM = 14 // an InfoROM is corrupted: metadata only, the GPU works
	exitLost    = 15 // a GPU has fallen off the bus, or has otherwise become inaccessible
)

// lostByStatus is the mention of exit status 15 if no message names the GPU.
var lostByStatus = Mention{Index: -1, Fault: Fault{
	State: hivebeat.GPUFailing, Cause: hivebeat.CauseLostGPU,
	Evidence: "nvidia-smi ends with status 15: a GPU has fallen off the bus or cannot be reached",
}}

// reading concludes a reading from the output, and from how the command ended.
func (log *smiLog) reading(table Table, ids migIDs, how error) (Reading, error) {
	r := Reading{Driver: log.driver}
	status := 0
	if exit := (*exec.ExitError)(nil); errors.As(how, &exit) {
		status = exit.ExitCode()
	}
	if status == exitInfoROM && log.complete {
		how = nil
	}
	var incomplete error
	for i := range log.gpus {
		g := &log.gpus[i]
		d, procs := g.device(table, ids)
		if d.UUID == "" {
			incomplete = fmt.Errorf("the GPU at %s has no UUID: %s", g.bus, g.facts["uuid"])
			if m := (Mention{Bus: g.bus, Index: -1}); len(d.Faults) > 0 {
				m.Fault = d.Faults[0]
				r.Mentions = append(r.Mentions, m)
			}
			continue
		}
		d.Index = uint64(i)
		r.Devices = append(r.Devices, d)
		r.Procs = append(r.Procs, procs...)
	}
	none := false
	for _, line := range log.messages {
		none = none || strings.Contains(strings.ToLower(line), "no devices were found")
		if m, ok := mention(line); ok {
			r.Mentions = append(r.Mentions, m)
			incomplete = errors.New(line)
		}
	}
	if status == exitLost && len(r.Mentions) == 0 && !slices.ContainsFunc(r.Devices, isLost) {
		r.Mentions = append(r.Mentions, lostByStatus)
	}
	switch {
	case how != nil && !none:
		r.Partial = failed(how, log.messages)
	case incomplete != nil:
		r.Partial = fmt.Errorf("nvidia-smi: %w", incomplete)
	case log.tooMany:
		r.Partial = fmt.Errorf("nvidia-smi: more than %d GPUs", hivebeat.MaxGPUs)
	case len(log.gpus) > 0 && !log.complete:
		r.Partial = errors.New("nvidia-smi: its output breaks off")
	case log.attached > len(log.gpus):
		r.Partial = fmt.Errorf("nvidia-smi: it counts %d GPUs and describes %d", log.attached, len(log.gpus))
	case none || log.complete && len(log.gpus) == 0:
		return r, nil // of no device
	}
	if len(r.Devices) == 0 && len(r.Mentions) == 0 {
		if r.Partial == nil {
			r.Partial = failed(errors.New("no GPU in its output"), log.messages)
		}
		return Reading{Driver: r.Driver}, r.Partial
	}
	if r.Partial != nil {
		log.renumber(&r)
	}
	log.distinct(&r)
	return r, nil
}

func isLost(d Device) bool {
	return slices.ContainsFunc(d.Faults, func(f Fault) bool { return f.Cause == hivebeat.CauseLostGPU })
}

// renumber gives the GPUs of a partial reading their minor numbers as indices, if those rise
// as indices do: the position counts only if no GPU is missing before it.
func (log *smiLog) renumber(r *Reading) {
	minors := map[string]uint64{}
	last := -1
	for i := range log.gpus {
		n, err := strconv.Atoi(log.gpus[i].facts["minor_number"])
		if err != nil || n <= last || n >= hivebeat.MaxGPUs {
			return
		}
		last = n
		minors[log.gpus[i].facts["uuid"]] = uint64(n)
	}
	for i := range r.Devices {
		r.Devices[i].Index = minors[r.Devices[i].UUID]
	}
}

// distinct drops the addresses that several GPUs claim, and all GPUs but the first of a UUID.
func (log *smiLog) distinct(r *Reading) {
	buses, uuids := map[string]int{}, map[string]bool{}
	kept := r.Devices[:0]
	for _, d := range r.Devices {
		if !uuids[d.UUID] {
			uuids[d.UUID] = true
			buses[d.Bus]++
			kept = append(kept, d)
		}
	}
	r.Devices = kept
	for i := range kept {
		if buses[kept[i].Bus] > 1 {
			kept[i].Bus = ""
		}
	}
}

// failed returns an error with how nvidia-smi ended and the first useful line it printed.
func failed(how error, messages []string) error {
	for _, line := range messages {
		if !strings.HasPrefix(line, "WARNING") {
			return fmt.Errorf("nvidia-smi: %w: %s", how, line)
		}
	}
	return fmt.Errorf("nvidia-smi: %w", how)
}

// device returns the facts of a GPU, and the processes on it. Its UUID is empty if the GPU
// has none that can be used.
func (g *smiGPU) device(table Table, ids migIDs) (Device, []Proc) {
	f := g.facts
	d := Device{GPU: hivebeat.GPU{Name: f["product_name"], Bus: g.bus}}
	if absent(d.Name) {
		d.Name = ""
	}
	if id := f["uuid"]; strings.HasPrefix(id, "GPU-") && len(id) <= hivebeat.MaxGPUID && !strings.Contains(id, " ") {
		d.UUID = id
	}
	if d.Bus == "" {
		d.Bus = NormalBus(f["pci/pci_bus_id"])
	}
	d.Faults = g.faults(table)

	var unread []string
	number := func(unit float64, paths ...string) (float64, bool) {
		v, ok, err := f.amount(unit, paths...)
		if err != nil {
			if _, fault := wordsOfFault(err.Error()); !fault {
				unread = append(unread, err.Error())
			}
		}
		return v, ok
	}
	// What no placement depends on is absent if its number cannot be read, such as one with
	// the decimal comma of another locale. A word, such as ERR!, says something of the GPU.
	minor := func(unit float64, paths ...string) (float64, bool) {
		if _, s := f.first(paths...); strings.ContainsAny(s, "0123456789") {
			v, ok, _ := f.amount(unit, paths...)
			return v, ok
		}
		return number(unit, paths...)
	}
	util, hasUtil := minor(1, "utilization/gpu_util")
	temp, hasTemp := minor(1, "temperature/gpu_temp")
	power, hasPower := minor(1000, "gpu_power_readings/average_power_draw", "gpu_power_readings/power_draw",
		"gpu_power_readings/instant_power_draw", "power_readings/power_draw")
	d.Util, d.Temp, d.Power = uint64(min(100, max(0, util))), int64(temp), uint64(max(0, power))
	d.Total, d.Used, d.Reserved = f.memory(number)
	d.MIG = strings.EqualFold(f["mig_mode/current_mig"], "enabled")
	total, told := f["fb_memory_usage/total"]
	d.Unified = told && !d.MIG && (bare(total) == "n/a" || bare(total) == "not supported") && (hasUtil || hasTemp || hasPower)
	d.Err = oneLine(strings.Join(unread, "; "), hivebeat.MaxHostText)

	where := map[[2]string]string{}
	if d.MIG {
		d.Instances, where = g.instances(d.UUID, ids)
	}
	return d, g.processes(d.UUID, where)
}

// memory returns the parts of fb_memory_usage. Reserved is what neither processes hold nor
// the driver would give: the fields are rounded each for itself, and old drivers count it
// among what is used and have no field for it.
func (f facts) memory(number func(unit float64, paths ...string) (float64, bool)) (total, used, reserved uint64) {
	unit := float64(1 << 20) // MiB; drivers before 2013 write MB and mean the same
	t, _ := number(unit, "fb_memory_usage/total")
	u, _ := number(unit, "fb_memory_usage/used")
	free, hasFree := number(unit, "fb_memory_usage/free")
	res, _ := number(unit, "fb_memory_usage/reserved")
	total, used, reserved = uint64(max(0, t)), uint64(max(0, u)), uint64(max(0, res))
	if hasFree && free >= 0 {
		reserved = total - min(total, used) - min(total-min(total, used), uint64(free))
	}
	return total, used, reserved
}

// instances returns the MIG instances, and their UUIDs by the ids of GPU instance and
// compute instance.
func (g *smiGPU) instances(gpu string, ids migIDs) (all []hivebeat.GPUInstance, where map[[2]string]string) {
	where = map[[2]string]string{}
	for _, m := range g.migs {
		gi, ci := m["gpu_instance_id"], m["compute_instance_id"]
		number := func(unit float64, paths ...string) (float64, bool) {
			v, ok, _ := m.amount(unit, paths...)
			return v, ok
		}
		in := hivebeat.GPUInstance{UUID: m["uuid"]}
		in.GI, _ = strconv.ParseUint(gi, 10, 32)
		in.CI, _ = strconv.ParseUint(ci, 10, 32)
		in.Total, in.Used, in.Reserved = m.memory(number)
		id := ids[migKey{gpu, m["index"]}]
		in.Profile = id.profile
		if !strings.HasPrefix(in.UUID, "MIG-") || len(in.UUID) > hivebeat.MaxGPUID {
			in.UUID = id.uuid
		}
		if in.UUID == "" {
			in.UUID = fmt.Sprintf("MIG-%s/%d/%d", gpu, in.GI, in.CI) // as drivers before 470 name it
		}
		if len(in.UUID) > hivebeat.MaxGPUID {
			continue
		}
		where[[2]string{gi, ci}] = in.UUID
		if _, ok := where[[2]string{gi, "N/A"}]; !ok {
			where[[2]string{gi, "N/A"}] = in.UUID
		}
		all = append(all, in)
	}
	return all, where
}

// processes returns the processes of a GPU, each once per GPU or instance.
func (g *smiGPU) processes(gpu string, where map[[2]string]string) (all []Proc) {
	seen := map[Proc]int{}
	for _, f := range g.procs {
		pid, err := strconv.ParseUint(f["pid"], 10, 32)
		if err != nil || pid == 0 || gpu == "" {
			continue
		}
		p := Proc{UUID: gpu, PID: pid}
		if id, ok := where[[2]string{f["gpu_instance_id"], f["compute_instance_id"]}]; ok {
			p.UUID = id
		}
		used, _, _ := f.amount(1<<20, "used_memory")
		at, ok := seen[p]
		if !ok {
			seen[p] = len(all)
			at = len(all)
			all = append(all, p)
		}
		all[at].Used = max(all[at].Used, uint64(max(0, used))) // one row for compute and one for graphics, with the same memory
	}
	return all
}

// migIDs are the UUIDs and profiles of MIG devices, by GPU and index.
type migIDs map[migKey]migID

type (
	migKey struct{ gpu, index string }
	migID  struct{ uuid, profile string }
)

// lacksMIGIDs reports whether a MIG device has no UUID in the XML.
func (log *smiLog) lacksMIGIDs() bool {
	for _, g := range log.gpus {
		for _, m := range g.migs {
			if m["uuid"] == "" {
				return true
			}
		}
	}
	return false
}

// Rows of nvidia-smi -L:
//
//	GPU 0: NVIDIA H200 (UUID: GPU-…)
//	  MIG 1g.18gb     Device  1: (UUID: MIG-…)
var (
	gpuRow = regexp.MustCompile(`^GPU \d+: .*\(UUID: (GPU-[^) ]+)\)`)
	migRow = regexp.MustCompile(`^MIG (\S{1,32})\s+Device\s+(\d+): \(UUID: (MIG-[^) ]+)\)`)
)

func parseList(out []byte) migIDs {
	ids, gpu := migIDs{}, ""
	for _, line := range lines(out) {
		if m := gpuRow.FindStringSubmatch(line); m != nil {
			gpu = m[1]
		} else if m := migRow.FindStringSubmatch(line); m != nil && len(m[3]) <= hivebeat.MaxGPUID {
			ids[migKey{gpu, m[2]}] = migID{uuid: m[3], profile: m[1]}
		}
	}
	return ids
}

func (s *SMI) list(ctx context.Context, path string) (migIDs, error) {
	out, errs, how := s.cmd.run(ctx, path, "-L")
	ids := parseList(out)
	if how != nil {
		return ids, failed(fmt.Errorf("-L: %w", how), lines(errs))
	}
	return ids, nil
}
