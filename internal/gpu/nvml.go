//go:build cgo && linux

package gpu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/beatfabric/hivebeat"
)

// NVML reads NVIDIA's GPUs through the driver's library, libnvidia-ml.so.1. It is opened at
// run time: the same binary runs where there is none.
//
// Each reading opens the library and closes it again, so that the driver can be replaced and
// a GPU be reset between two readings. Watch keeps it open: see there.
type NVML struct {
	Faults Table  // nil is DefaultFaults
	Sysfs  string // where sysfs is mounted; empty is /sys
	Kmsg   string // the kernel log; empty is /dev/kmsg

	lib  nvml.Interface
	call call
}

// NewNVML returns a reader that opens the library as the system finds it.
func NewNVML() *NVML { return &NVML{lib: nvml.New()} }

// Name is part of Reader.
func (*NVML) Name() string { return "nvml" }

// Read is part of Reader. It returns ErrNone where there is no library, or no driver and no
// GPU on the PCI bus. A GPU that cannot be opened is a Mention with its index. Present and
// Took are valid beside an error.
func (n *NVML) Read(ctx context.Context) (Reading, error) {
	return n.call.do(ctx, func() (Reading, error) {
		began := time.Now()
		r, err := n.read(CountPCI(n.Sysfs, vendorNVIDIA))
		r.Took = time.Since(began)
		return r, err
	})
}

func (n *NVML) table() Table {
	if n.Faults == nil {
		return DefaultFaults()
	}
	return n.Faults
}

// open opens the library. Its error is ErrNone where there is nothing to read.
func (n *NVML) open(present int) error {
	switch ret := n.lib.Init(); {
	case ret == nvml.SUCCESS:
		return nil
	case ret == nvml.ERROR_LIBRARY_NOT_FOUND, ret == nvml.ERROR_DRIVER_NOT_LOADED && present == 0:
		return ErrNone
	case ret == nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return errors.New("nvml: Driver/library version mismatch")
	default:
		return fmt.Errorf("nvml: %s", words(ret))
	}
}

func (n *NVML) read(present int) (Reading, error) {
	r := Reading{Present: present}
	if err := n.open(present); err != nil {
		return r, err
	}
	defer n.lib.Shutdown()
	if v, ret := n.lib.SystemGetDriverVersion(); ret == nvml.SUCCESS {
		r.Driver = oneLine(v, hivebeat.MaxHostText)
	}
	count, ret := n.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return r, fmt.Errorf("nvml: the number of GPUs: %s", words(ret))
	}
	table := n.table()
	for i := range min(count, hivebeat.MaxGPUs) {
		dev, ret := n.lib.DeviceGetHandleByIndex(i)
		uuid := ""
		if ret == nvml.SUCCESS {
			uuid, ret = dev.GetUUID()
		}
		if ret == nvml.SUCCESS && (uuid == "" || len(uuid) > hivebeat.MaxGPUID) {
			ret = nvml.ERROR_UNKNOWN
		}
		if ret != nvml.SUCCESS {
			text := fmt.Sprintf("GPU %d cannot be opened: %s", i, words(ret))
			r.Partial = errors.New("nvml: " + text)
			if f, ok := unopened(ret, text); ok {
				r.Mentions = append(r.Mentions, Mention{Index: i, Fault: f})
			}
			continue
		}
		d := nvmlDevice{Device: dev, lib: n.lib}
		d.read(i, uuid, table)
		r.Devices = append(r.Devices, d.out)
		r.Procs = append(r.Procs, d.procs...)
		if d.procsErr != nil {
			r.ProcsErr = d.procsErr
		}
	}
	if count > hivebeat.MaxGPUs {
		r.Partial = fmt.Errorf("nvml: more than %d GPUs", hivebeat.MaxGPUs)
	}
	if len(r.Devices) == 0 && len(r.Mentions) == 0 && r.Partial != nil {
		return r, r.Partial
	}
	return r, nil
}

// words describes a result in the library's words.
func words(ret nvml.Return) string {
	switch ret {
	case nvml.ERROR_GPU_IS_LOST:
		return "GPU is lost"
	case nvml.ERROR_RESET_REQUIRED:
		return "GPU requires reset"
	}
	return oneLine(ret.Error(), maxLine)
}

// unopened returns the fault of a GPU that cannot be opened; ok is false if it is only
// forbidden. An unknown error is a lost GPU, as in messages of nvidia-smi.
func unopened(ret nvml.Return, text string) (f Fault, ok bool) {
	if f, ok = wordsOfFault(words(ret)); ok {
		return f, true
	}
	f = Fault{State: hivebeat.GPUFailing, Cause: hivebeat.CauseLostGPU, Evidence: text}
	return f, ret == nvml.ERROR_UNKNOWN
}

// nvmlDevice reads one GPU. What it may call depends on the driver: a call of a function that
// the library lacks would end the process. Those that came after 2019, and those that NVIDIA
// has called deprecated, are looked up first.
type nvmlDevice struct {
	nvml.Device
	lib      nvml.Interface
	out      Device
	procs    []Proc
	procsErr error
	unread   []string
	told     map[hivebeat.Cause]bool
}

func (d *nvmlDevice) has(symbol string) bool { return d.lib.Extensions().LookupSymbol(symbol) == nil }

// ok reports whether a call succeeded. A value that the GPU does not have is no fault; a lost
// GPU, and one that requires a reset, are; what else fails makes its figures unusable.
func (d *nvmlDevice) ok(what string, ret nvml.Return) bool {
	switch ret {
	case nvml.SUCCESS:
		return true
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_NOT_FOUND, nvml.ERROR_NO_PERMISSION, nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_NO_DATA:
		return false
	}
	f, fault := wordsOfFault(words(ret))
	switch {
	case !fault:
		d.unread = append(d.unread, what+": "+words(ret))
	case !d.told[f.Cause]:
		d.told[f.Cause] = true
		d.out.Faults = append(d.out.Faults, f)
	}
	return false
}

func (d *nvmlDevice) read(index int, uuid string, table Table) {
	d.told = map[hivebeat.Cause]bool{}
	g := &d.out
	g.UUID, g.Index = uuid, uint64(index)
	if name, ret := d.GetName(); d.ok("name", ret) {
		g.Name = oneLine(name, hivebeat.MaxHostText)
	}
	if p, ret := d.GetPciInfo(); d.ok("address", ret) {
		g.Bus = NormalBus(text(p.BusId[:]))
	}
	if u, ret := d.GetUtilizationRates(); d.ok("utilization", ret) {
		g.Util = uint64(min(u.Gpu, 100))
	}
	if d.has("nvmlDeviceGetTemperature") {
		if t, ret := d.GetTemperature(nvml.TEMPERATURE_GPU); d.ok("temperature", ret) {
			g.Temp = int64(t)
		}
	}
	if p, ret := d.GetPowerUsage(); d.ok("power", ret) {
		g.Power = uint64(p)
	}
	if d.has("nvmlDeviceGetMigMode") {
		mode, _, ret := d.GetMigMode()
		g.MIG = d.ok("MIG mode", ret) && mode == nvml.DEVICE_MIG_ENABLE
	}
	var ret nvml.Return
	g.Total, g.Used, g.Reserved, ret = d.memory(d.Device)
	d.ok("memory", ret)
	g.Unified = ret == nvml.ERROR_NOT_SUPPORTED && !g.MIG
	if g.MIG {
		d.instances()
	} else {
		d.processes(d.Device, uuid)
	}
	d.faults(table)
	sortFaults(g.Faults)
	g.Err = oneLine(strings.Join(d.unread, "; "), hivebeat.MaxHostText)
}

// memory returns the parts of a GPU's or an instance's memory. Without the second version of
// the call, which came with driver 510, what is reserved counts as used.
func (d *nvmlDevice) memory(dev nvml.Device) (total, used, reserved uint64, ret nvml.Return) {
	if d.has("nvmlDeviceGetMemoryInfo_v2") {
		if m, ret := dev.GetMemoryInfo_v2(); ret == nvml.SUCCESS {
			total, used = min(m.Total, hivebeat.MaxInt), min(m.Used, m.Total, hivebeat.MaxInt)
			return total, used, total - used - min(total-used, m.Free), ret
		}
	}
	m, ret := dev.GetMemoryInfo()
	total, used = min(m.Total, hivebeat.MaxInt), min(m.Used, m.Total, hivebeat.MaxInt)
	return total, used, total - used - min(total-used, m.Free), ret
}

func (d *nvmlDevice) instances() {
	n, ret := d.GetMaxMigDeviceCount()
	if !d.ok("MIG devices", ret) {
		return
	}
	for i := range n {
		dev, ret := d.GetMigDeviceHandleByIndex(i)
		if ret == nvml.ERROR_NOT_FOUND || !d.ok("MIG device", ret) {
			continue // an index without an instance
		}
		uuid, ret := dev.GetUUID()
		if !d.ok("MIG UUID", ret) || uuid == "" || len(uuid) > hivebeat.MaxGPUID || len(d.out.Instances) >= hivebeat.MaxInstances {
			continue
		}
		in := hivebeat.GPUInstance{UUID: uuid}
		if name, ret := dev.GetName(); ret == nvml.SUCCESS {
			_, profile, _ := strings.Cut(name, "MIG ")
			in.Profile = oneLine(profile, hivebeat.MaxGPUID)
		}
		if id, ret := dev.GetGpuInstanceId(); ret == nvml.SUCCESS {
			in.GI = uint64(max(0, id))
		}
		if id, ret := dev.GetComputeInstanceId(); ret == nvml.SUCCESS {
			in.CI = uint64(max(0, id))
		}
		in.Total, in.Used, in.Reserved, ret = d.memory(dev)
		d.ok("MIG memory", ret)
		d.out.Instances = append(d.out.Instances, in)
		d.processes(dev, uuid)
	}
}

// notAvailable is the memory of a process that the driver does not know.
const notAvailable = ^uint64(0)

// processes adds the processes on a GPU or instance: those that compute, draw, and compute
// through MPS. One that does several counts once, with the most that a list says.
func (d *nvmlDevice) processes(dev nvml.Device, uuid string) {
	at := map[uint32]int{}
	for _, list := range []struct {
		symbol string
		call   func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", dev.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", dev.GetGraphicsRunningProcesses},
		{"nvmlDeviceGetMPSComputeRunningProcesses", dev.GetMPSComputeRunningProcesses},
	} {
		if !d.has(list.symbol) {
			continue
		}
		infos, ret := list.call()
		if _, fault := wordsOfFault(words(ret)); ret != nvml.SUCCESS {
			if absent := ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_FUNCTION_NOT_FOUND; !absent && !fault {
				d.procsErr = fmt.Errorf("nvml: processes: %s", words(ret))
			}
			continue
		}
		for _, p := range infos {
			if p.Pid == 0 || len(d.procs) >= maxProcesses {
				continue
			}
			used := p.UsedGpuMemory
			if used == notAvailable {
				used = 0
			}
			i, ok := at[p.Pid]
			if !ok {
				i = len(d.procs)
				at[p.Pid] = i
				d.procs = append(d.procs, Proc{UUID: uuid, PID: uint64(p.Pid)})
			}
			d.procs[i].Used = max(d.procs[i].Used, min(used, hivebeat.MaxInt))
		}
	}
}

// recovery is what the driver calls its recovery actions, by their numbers.
var recovery = []string{
	"None", "Reset", "Reboot", "Drain P2P", "Drain and Reset", "Recover IMEX domain", "Bus reset", "System reboot",
}

// recoveryField returns the recovery action in words; empty if the driver has none, as those
// before 565.
func recoveryField(dev nvml.Device) string {
	v := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}}
	if dev.GetFieldValues(v) != nvml.SUCCESS || nvml.Return(v[0].NvmlReturn) != nvml.SUCCESS {
		return ""
	}
	n := binary.NativeEndian.Uint32(v[0].Value[:])
	if int64(n) >= int64(len(recovery)) {
		return fmt.Sprintf("number %d", n)
	}
	return recovery[n]
}

// recoveryFault is the fault of a GPU whose driver recommends an action.
func recoveryFault(says string) (Fault, bool) {
	action, against := recoveryAction(says)
	return Fault{hivebeat.GPUFailing, hivebeat.CauseDriver, "the driver's recovery action is " + says, action}, against
}

func (d *nvmlDevice) faults(table Table) {
	add := func(fact Fact, detail string) {
		if f, ok := table.fault(fact, detail); ok {
			d.out.Faults = append(d.out.Faults, f)
		}
	}
	says := recoveryField(d.Device)
	if f, ok := recoveryFault(says); ok {
		d.out.Faults = append([]Fault{f}, d.out.Faults...)
	}
	if d.has("nvmlDeviceGetRemappedRows") {
		_, unc, pending, failure, ret := d.GetRemappedRows()
		if ok := d.ok("remapped rows", ret); ok && failure {
			add(FactRemapFailure, "")
		}
		if ret == nvml.SUCCESS && pending {
			detail := ""
			if unc > 0 {
				detail = fmt.Sprintf("%d uncorrectable", unc)
			}
			add(FactRemapPending, detail)
		}
	}
	if pending, ret := d.GetRetiredPagesPendingStatus(); d.ok("retired pages", ret) && pending == nvml.FEATURE_ENABLED {
		add(FactRetirePending, "")
	}
	if says == "" { // else the driver itself has judged them
		if n, ret := d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC); d.ok("memory errors", ret) && n > 0 {
			add(FactUncorrectable, fmt.Sprintf("%d since the driver was loaded", n))
		}
	}
	var reasons uint64
	ret := nvml.ERROR_NOT_SUPPORTED
	if d.has("nvmlDeviceGetCurrentClocksEventReasons") {
		reasons, ret = d.GetCurrentClocksEventReasons()
	} else if d.has("nvmlDeviceGetCurrentClocksThrottleReasons") { // before driver 535
		reasons, ret = d.GetCurrentClocksThrottleReasons()
	}
	switch d.ok("clocks", ret); {
	case reasons&(nvml.ClocksThrottleReasonHwThermalSlowdown|nvml.ClocksEventReasonSwThermalSlowdown) != 0:
		add(FactThermal, "")
	case reasons&nvml.ClocksThrottleReasonHwPowerBrakeSlowdown != 0:
		add(FactPowerBrake, "")
	case reasons&nvml.ClocksThrottleReasonHwSlowdown != 0:
		add(FactHardwareSlowed, "")
	}
}

// text returns a string of C.
func text(c []int8) string {
	var b []byte
	for _, v := range c {
		if v == 0 {
			break
		}
		b = append(b, byte(v))
	}
	return string(b)
}
