package gpu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

// AMD reads the GPUs of the driver amdgpu from sysfs, and their processes from the fdinfo of
// procfs. It runs no tool. To see the processes of other users it must be root, or have the
// capability CAP_SYS_PTRACE.
//
// An APU whose firmware sets less memory aside than the driver may take of the machine's (the
// GTT) is unified. One with a larger share of its own is an ordinary GPU with that memory.
// Partitions of an Instinct card are not told apart.
type AMD struct {
	Faults Table  // nil is DefaultFaults
	Sysfs  string // where sysfs is mounted; empty is /sys
	Procfs string // where procfs is mounted; empty is /proc

	call call
}

// NewAMD returns a reader of the machine's AMD GPUs.
func NewAMD() *AMD { return &AMD{} }

// Name is part of Reader.
func (*AMD) Name() string { return "amdgpu" }

// Read is part of Reader. It returns ErrNone where the driver has no GPU.
func (a *AMD) Read(ctx context.Context) (Reading, error) {
	sysfs, procfs, table := a.Sysfs, a.Procfs, a.Faults
	if sysfs == "" {
		sysfs = "/sys"
	}
	if procfs == "" {
		procfs = "/proc"
	}
	if table == nil {
		table = DefaultFaults()
	}
	return a.call.do(ctx, func() (Reading, error) {
		began := time.Now()
		var r Reading
		for _, c := range amdCards(sysfs) {
			d := c.device(table)
			d.Index = uint64(len(r.Devices))
			r.Devices = append(r.Devices, d)
		}
		if len(r.Devices) == 0 {
			return Reading{}, ErrNone
		}
		r.Driver, r.Present = sysText(filepath.Join(sysfs, "module/amdgpu"), "version"), CountPCI(sysfs, vendorAMD)
		r.Procs, r.ProcsErr = amdProcs(procfs, r.Devices)
		r.Took = time.Since(began)
		return r, nil
	})
}

// call runs a function that may hang in the driver, where nothing can end it: do returns
// once ctx ends, and runs no other function beside one that still hangs.
type call struct{ hangs chan struct{} }

func (c *call) do(ctx context.Context, f func() (Reading, error)) (r Reading, err error) {
	if c.hangs != nil {
		select {
		case <-c.hangs:
			c.hangs = nil
		default:
			return Reading{}, fmt.Errorf("an earlier call still hangs in the driver")
		}
	}
	ended := make(chan struct{})
	var got Reading
	var how error
	go func() {
		defer close(ended)
		got, how = f()
	}()
	select {
	case <-ended:
		return got, how
	case <-ctx.Done():
		c.hangs = ended
		return Reading{}, context.Cause(ctx)
	}
}

// amdCard is the device directory of a GPU.
type amdCard struct{ bus, dir string }

var cardName = regexp.MustCompile(`^card\d{1,3}$`) // not card0-DP-1, a connector

// amdCards returns the GPUs of AMD, by their PCI address.
func amdCards(sysfs string) (all []amdCard) {
	root := filepath.Join(sysfs, "class/drm")
	list, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	for _, e := range list {
		dir := filepath.Join(root, e.Name(), "device")
		if v, ok := sysNumber(dir, "vendor"); !ok || v != vendorAMD || !cardName.MatchString(e.Name()) {
			continue
		}
		c := amdCard{bus: NormalBus(ueventValue(dir, "PCI_SLOT_NAME")), dir: dir}
		if driver := ueventValue(dir, "DRIVER"); driver != "" && driver != "amdgpu" || len(all) >= hivebeat.MaxGPUs {
			continue
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b amdCard) int { return strings.Compare(a.bus+a.dir, b.bus+b.dir) })
	return all
}

// ueventValue returns a value of the uevent file of a device.
func ueventValue(dir, key string) string {
	for line := range strings.Lines(sysText(dir, "uevent")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return v
		}
	}
	return ""
}

func (c amdCard) device(table Table) Device {
	d := Device{GPU: hivebeat.GPU{Bus: c.bus, Name: oneLine(sysText(c.dir, "product_name"), hivebeat.MaxHostText)}}
	if id := strings.ToLower(sysText(c.dir, "unique_id")); id != "" && strings.Trim(id, "0") != "" && len(id) <= 32 {
		d.UUID = "GPU-" + oneLine(id, 32) // as ROCm names it
	} else {
		d.UUID = "amdgpu-" + c.bus
	}
	if d.Name == "" {
		d.Name = oneLine("AMD GPU "+strings.ToLower(ueventValue(c.dir, "PCI_ID")), hivebeat.MaxHostText)
	}
	total, ok := sysNumber(c.dir, "mem_info_vram_total")
	used, ok2 := sysNumber(c.dir, "mem_info_vram_used")
	switch gtt, _ := sysNumber(c.dir, "mem_info_gtt_total"); {
	case !ok || !ok2:
		d.Err = "mem_info_vram cannot be read"
	case c.apu() && total < gtt:
		d.Unified = true
	default:
		d.Total, d.Used = min(total, hivebeat.MaxInt), min(used, total, hivebeat.MaxInt)
	}
	util, _ := sysNumber(c.dir, "gpu_busy_percent")
	d.Util = min(util, 100)
	hot := false
	if mons, err := filepath.Glob(filepath.Join(c.dir, "hwmon/hwmon*")); err == nil && len(mons) > 0 {
		m := mons[0]
		temp, _ := strconv.ParseInt(sysText(m, "temp1_input"), 10, 32)
		d.Temp = temp / 1000
		power, ok := sysNumber(m, "power1_average") // in µW
		if !ok {
			power, _ = sysNumber(m, "power1_input")
		}
		d.Power = min(power/1000, hivebeat.MaxInt)
		for _, sensor := range []string{"temp1", "temp2", "temp3"} { // edge, junction, memory
			now, ok := sysNumber(m, sensor+"_input")
			crit, ok2 := sysNumber(m, sensor+"_crit")
			hot = hot || ok && ok2 && crit > 0 && now >= crit
		}
	}
	add := func(fact Fact, detail string) {
		if f, ok := table.fault(fact, detail); ok {
			d.Faults = append(d.Faults, f)
		}
	}
	if n := c.uncorrectable(); n > 0 {
		add(FactUncorrectable, strconv.FormatUint(n, 10)+" since the driver was loaded")
	}
	if hot {
		add(FactThermal, "")
	}
	sortFaults(d.Faults)
	return d
}

// apu reports whether the GPU is part of a processor: their metrics have formats of their
// own, revision 2 and 3. (An MI300A has the format of a card, and its memory is its own.)
func (c amdCard) apu() bool {
	b, err := os.ReadFile(filepath.Join(c.dir, "gpu_metrics"))
	return err == nil && len(b) >= 4 && (b[2] == 2 || b[2] == 3)
}

// uncorrectable returns the number of memory errors that were not corrected. The file has two
// lines, "ue: 0" and "ce: 0"; newer kernels call it aca_umc.
func (c amdCard) uncorrectable() uint64 {
	for _, name := range []string{"ras/umc_err_count", "ras/aca_umc"} {
		for line := range strings.Lines(sysText(c.dir, name)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "ue:"); ok {
				n, _ := strconv.ParseUint(strings.TrimSpace(v), 10, 32)
				return n
			}
		}
	}
	return 0
}

// amdProcs returns the processes that have a GPU open. A client (an open file of the driver)
// that several processes share counts for the first of them.
func amdProcs(procfs string, devices []Device) ([]Proc, error) {
	list, err := os.ReadDir(procfs)
	if err != nil {
		return nil, err
	}
	at := map[string]*Device{}
	for i := range devices {
		at[devices[i].Bus] = &devices[i]
	}
	var pids []uint64
	for _, e := range list {
		if pid, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	var all []Proc
	clients := map[[2]string]bool{}
	for _, pid := range pids {
		dir := filepath.Join(procfs, strconv.FormatUint(pid, 10))
		files, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // it ended, or belongs to another user
		}
		used := map[string]uint64{}
		for _, f := range files {
			if target, _ := os.Readlink(filepath.Join(dir, "fd", f.Name())); !strings.HasPrefix(target, "/dev/dri/") {
				continue
			}
			info := fdinfo(sysText(filepath.Join(dir, "fdinfo"), f.Name()))
			bus := NormalBus(info["drm-pdev"])
			d := at[bus]
			if info["drm-driver"] != "amdgpu" || d == nil {
				continue
			}
			if id := info["drm-client-id"]; id != "" {
				if clients[[2]string{bus, id}] {
					continue
				}
				clients[[2]string{bus, id}] = true
			}
			n := memoryIn(info, "vram")
			if d.Unified {
				n += memoryIn(info, "gtt")
			}
			used[d.UUID] += min(n, hivebeat.MaxInt)
		}
		for i := range devices {
			if n, ok := used[devices[i].UUID]; ok && len(all) < maxProcesses {
				all = append(all, Proc{UUID: devices[i].UUID, PID: pid, Used: min(n, hivebeat.MaxInt)})
			}
		}
	}
	return all, nil
}

// fdinfo returns the values of a file below /proc/…/fdinfo.
func fdinfo(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m
}

// memoryIn returns the bytes that a client holds in a region. Kernels before 6.13 know one
// figure (drm-memory-…); later ones say what is resident, and keep the old key.
func memoryIn(info map[string]string, region string) uint64 {
	for _, kind := range []string{"drm-resident-", "drm-memory-", "drm-total-"} {
		number, unit, _ := strings.Cut(info[kind+region], " ")
		n, err := strconv.ParseUint(number, 10, 40)
		if err != nil {
			continue
		}
		switch unit {
		case "KiB":
			n <<= 10
		case "MiB":
			n <<= 20
		}
		return n
	}
	return 0
}
