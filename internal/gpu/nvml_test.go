//go:build cgo && linux

package gpu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxb200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

const mib = 1 << 20

// dgx adds to one of NVIDIA's mocks what they leave out: memory in use, processes, and the
// facts about errors. Its functions may be changed afterwards.
func dgx(s *server.Server) *server.Server {
	for i, d := range s.Devices {
		d := d.(*server.Device)
		d.UUID = fmt.Sprintf("GPU-%d", i)
		total := d.MemoryInfo.Total
		filled(&d.Device, total, uint64(i)*1000*mib, 600*mib, []nvml.ProcessInfo{{Pid: uint32(100 + i), UsedGpuMemory: uint64(i) * 1000 * mib}})
		d.GetPciInfoFunc = func() (p nvml.PciInfo, ret nvml.Return) {
			for j, c := range fmt.Sprintf("00000000:%02X:00.0", 0x1a+i) {
				p.BusId[j] = int8(c)
			}
			return p, nvml.SUCCESS
		}
	}
	return s
}

// filled sets the functions of a healthy device.
func filled(d *mock.Device, total, used, reserved uint64, procs []nvml.ProcessInfo) {
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
		return nvml.Memory_v2{Total: total, Used: used, Reserved: reserved, Free: total - used - reserved}, nvml.SUCCESS
	}
	d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		return nvml.Memory{Total: total, Used: used + reserved, Free: total - used - reserved}, nvml.SUCCESS
	}
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 7}, nvml.SUCCESS }
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 40, nvml.SUCCESS }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 100500, nvml.SUCCESS }
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return procs, nvml.SUCCESS }
	d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
	d.GetMPSComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED }
	d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, false, nvml.SUCCESS }
	d.GetRetiredPagesPendingStatusFunc = func() (nvml.EnableState, nvml.Return) {
		return nvml.FEATURE_DISABLED, nvml.ERROR_NOT_SUPPORTED
	}
	d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 0, nvml.SUCCESS }
	d.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) { return nvml.ClocksEventReasonSwPowerCap, nvml.SUCCESS }
	recommends(d, nvml.GPU_RECOVERY_ACTION_NONE)
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_NOT_FOUND }
}

// recommends sets the recovery action.
func recommends(d *mock.Device, action nvml.DeviceGpuRecoveryAction) {
	recommendsLater(d).Store(uint32(action))
}

// recommendsLater returns the recovery action, to be changed while the device is read.
func recommendsLater(d *mock.Device) *atomic.Uint32 {
	action := new(atomic.Uint32)
	d.GetFieldValuesFunc = func(v []nvml.FieldValue) nvml.Return {
		for i := range v {
			v[i].NvmlReturn = uint32(nvml.ERROR_NOT_SUPPORTED)
			if v[i].FieldId == nvml.FI_DEV_GET_GPU_RECOVERY_ACTION {
				v[i].NvmlReturn = uint32(nvml.SUCCESS)
				binary.NativeEndian.PutUint32(v[i].Value[:], action.Load())
			}
		}
		return nvml.SUCCESS
	}
	return action
}

func gpuOf(s *server.Server, i int) *server.Device { return s.Devices[i].(*server.Device) }

func on(t *testing.T, s nvml.Interface) *NVML {
	return &NVML{lib: s, Sysfs: t.TempDir(), Kmsg: t.TempDir() + "/none"}
}

// On each of NVIDIA's mocks, eight GPUs are read whose parts of memory add up.
func TestNVMLServers(t *testing.T) {
	for _, c := range []struct {
		server *server.Server
		second string // the second GPU
	}{
		{dgxa100.New(), "1 GPU-1 Mock NVIDIA A100-SXM4-40GB at 0000:1b:00.0, 40960 = 1000 used + 600 reserved + 39360 free"},
		{dgxh100.New(), "1 GPU-1 NVIDIA H100 80GB HBM3 at 0000:1b:00.0, 81920 = 1000 used + 600 reserved + 80320 free"},
		{dgxh200.New(), "1 GPU-1 NVIDIA H200 141GB HBM3e at 0000:1b:00.0, 144384 = 1000 used + 600 reserved + 142784 free"},
		{dgxb200.New(), "1 GPU-1 NVIDIA B200 180GB HBM3e at 0000:1b:00.0, 184320 = 1000 used + 600 reserved + 182720 free"},
	} {
		r, err := on(t, dgx(c.server)).Read(t.Context())
		if err != nil || r.Partial != nil || r.ProcsErr != nil || len(r.Devices) != 8 || len(r.Procs) != 8 || r.Driver == "" || r.Took <= 0 {
			t.Errorf("%s\nerror %v, partial %v, of processes %v, driver %q", told(r), err, r.Partial, r.ProcsErr, r.Driver)
			continue
		}
		lines := strings.Split(told(r), "\n")
		if want := c.second + ", 7 %, 40 °C, 100500 mW"; lines[1] != want {
			t.Errorf("got  %s\nwant %s", lines[1], want)
		}
		for _, d := range r.Devices {
			if d.Used+d.Reserved+d.Free() != d.Total {
				t.Errorf("GPU %d: the parts do not add up", d.Index)
			}
		}
	}
}

// What happens to one GPU of an H100 server, and what is told of it. The others stay well.
func TestNVMLDevices(t *testing.T) {
	const (
		well   = "3 GPU-3 NVIDIA H100 80GB HBM3 at 0000:1d:00.0, 81920 = 3000 used + 600 reserved + 78320 free, 7 %, 40 °C, 100500 mW\n"
		proc   = "pid 103 on GPU-3, 3000\n"
		driver = "  failing, driver: the driver's recovery action is "
	)
	for _, c := range []struct {
		name    string
		change  func(d *server.Device)
		want    string // of GPU 3
		partial string
	}{
		{"nothing", func(*server.Device) {}, well + proc, ""},
		{"recovery action reset", func(d *server.Device) { recommends(&d.Device, nvml.GPU_RECOVERY_ACTION_GPU_RESET) }, well + driver + "Reset -> reset\n" + proc, ""},
		{"recovery action reboot", func(d *server.Device) { recommends(&d.Device, nvml.GPU_RECOVERY_ACTION_NODE_REBOOT) }, well + driver + "Reboot -> reboot\n" + proc, ""},
		{"recovery action drain P2P", func(d *server.Device) { recommends(&d.Device, nvml.GPU_RECOVERY_ACTION_DRAIN_P2P) }, well + driver + "Drain P2P -> drain\n" + proc, ""},
		{"recovery action drain and reset", func(d *server.Device) { recommends(&d.Device, nvml.GPU_RECOVERY_ACTION_DRAIN_AND_RESET) }, well + driver + "Drain and Reset -> drain_reset\n" + proc, ""},
		{"a recovery action of a later driver", func(d *server.Device) { recommends(&d.Device, 99) }, well + driver + "number 99\n" + proc, ""},
		{
			"rows to be remapped", func(d *server.Device) {
				d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 1, 2, true, false, nvml.SUCCESS }
			},
			well + "  degraded, remap: rows of its memory are remapped at the next reset (2 uncorrectable) -> reset\n" + proc, "",
		},
		{
			"a row that could not be remapped", func(d *server.Device) {
				d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, true, nvml.SUCCESS }
			},
			well + "  failing, remap: a row of its memory could not be remapped -> replace\n" + proc, "",
		},
		{
			"pages to be retired, and memory errors, before driver 565", func(d *server.Device) {
				d.GetFieldValuesFunc = func([]nvml.FieldValue) nvml.Return { return nvml.ERROR_NOT_SUPPORTED }
				d.GetRetiredPagesPendingStatusFunc = func() (nvml.EnableState, nvml.Return) { return nvml.FEATURE_ENABLED, nvml.SUCCESS }
				d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 4, nvml.SUCCESS }
			},
			well + "  degraded, remap: pages of its memory are retired at the next reset -> reset\n  degraded, ecc: uncorrectable memory errors (4 since the driver was loaded) -> reset\n" + proc, "",
		},
		{
			"heat", func(d *server.Device) {
				d.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) {
					return nvml.ClocksThrottleReasonHwSlowdown | nvml.ClocksThrottleReasonHwThermalSlowdown, nvml.SUCCESS
				}
			},
			well + "  degraded, throttle: slower because of heat\n" + proc, "",
		},
		{
			"the power brake", func(d *server.Device) {
				d.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) {
					return nvml.ClocksThrottleReasonHwSlowdown | nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, nvml.SUCCESS
				}
			},
			well + "  degraded, throttle: slowed down by the power supply\n" + proc, "",
		},
		{
			"it is lost between two calls", func(d *server.Device) {
				d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 0, nvml.ERROR_GPU_IS_LOST }
				d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_GPU_IS_LOST }
				d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
			},
			strings.Replace(well, ", 40 °C, 100500 mW", "", 1) + "  failing, gpu_lost: GPU is lost -> reboot\n", "",
		},
		{
			"it requires a reset", func(d *server.Device) {
				d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
					return nvml.Utilization{}, nvml.ERROR_RESET_REQUIRED
				}
			},
			strings.Replace(well, ", 7 %", "", 1) + "  failing, reset: GPU requires reset -> reset\n" + proc, "",
		},
		{
			"an unknown error", func(d *server.Device) {
				d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
					return nvml.Utilization{}, nvml.ERROR_UNKNOWN
				}
			},
			strings.Replace(strings.Replace(well, ", 7 %", "", 1), "mW", "mW, unread: utilization: ERROR_UNKNOWN", 1) + proc, "",
		},
		{
			"no values that a small card lacks", func(d *server.Device) {
				d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
					return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
				}
				d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
				d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) {
					return 0, 0, false, false, nvml.ERROR_NOT_SUPPORTED
				}
				d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) {
					return 0, nvml.ERROR_NOT_SUPPORTED
				}
			},
			strings.Replace(strings.Replace(well, ", 7 %", "", 1), ", 100500 mW", "", 1) + proc, "",
		},
		{
			"memory that is the machine's, as on a GB10", func(d *server.Device) {
				d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, nvml.ERROR_NOT_SUPPORTED }
				d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_NOT_SUPPORTED }
			},
			"3 GPU-3 NVIDIA H100 80GB HBM3 at 0000:1d:00.0, unified, 7 %, 40 °C, 100500 mW\n" + proc, "",
		},
		{
			"a process that computes and draws, one whose memory is not known", func(d *server.Device) {
				d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
					return []nvml.ProcessInfo{{Pid: 103, UsedGpuMemory: 3000 * mib}, {Pid: 7, UsedGpuMemory: notAvailable}}, nvml.SUCCESS
				}
			},
			well + proc + "pid 7 on GPU-3, 0\n", "",
		},
		{
			"it disappears", func(d *server.Device) {
				d.GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
			},
			"mention of \"\", index 3: failing, gpu_lost: GPU is lost -> reboot\n", "nvml: GPU 3 cannot be opened: GPU is lost",
		},
		{
			"it cannot be reached", func(d *server.Device) {
				d.GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_UNKNOWN }
			},
			"mention of \"\", index 3: failing, gpu_lost: GPU 3 cannot be opened: ERROR_UNKNOWN\n", "nvml: GPU 3 cannot be opened: ERROR_UNKNOWN",
		},
		{
			"it may not be read", func(d *server.Device) {
				d.GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_NO_PERMISSION }
			},
			"", "nvml: GPU 3 cannot be opened: ERROR_NO_PERMISSION",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dgx(dgxh100.New())
			c.change(gpuOf(s, 3))
			r, err := on(t, s).Read(t.Context())
			if err != nil || !says(r.Partial, c.partial) {
				t.Errorf("error %v, partial %v; want %q", err, r.Partial, c.partial)
			}
			one := Reading{Mentions: r.Mentions}
			for _, d := range r.Devices {
				if d.Index == 3 {
					one.Devices = append(one.Devices, d)
				} else if len(d.Faults) > 0 || d.Err != "" || d.UUID != fmt.Sprintf("GPU-%d", d.Index) {
					t.Errorf("GPU %d beside it: %v %s", d.Index, d.Faults, d.Err)
				}
			}
			for _, p := range r.Procs {
				if p.UUID == "GPU-3" {
					one.Procs = append(one.Procs, p)
				}
			}
			if got := told(one); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			if n := len(r.Devices); n != 8 && n != 7 || n == 7 && c.partial == "" {
				t.Errorf("%d GPUs", n)
			}
		})
	}
}

// A split card has instances with memory and processes of their own.
func TestNVMLInstances(t *testing.T) {
	s := dgx(dgxh200.New())
	d := gpuOf(s, 0)
	d.MigMode = nvml.DEVICE_MIG_ENABLE
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
		return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
	}
	instance := func(uuid, profile string, gi int, total, used uint64, procs ...nvml.ProcessInfo) nvml.Device {
		m := &mock.Device{}
		filled(m, total*mib, used*mib, 0, procs)
		m.GetUUIDFunc = func() (string, nvml.Return) { return uuid, nvml.SUCCESS }
		m.GetNameFunc = func() (string, nvml.Return) { return "NVIDIA H200 MIG " + profile, nvml.SUCCESS }
		m.GetGpuInstanceIdFunc = func() (int, nvml.Return) { return gi, nvml.SUCCESS }
		m.GetComputeInstanceIdFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
		return m
	}
	at := map[int]nvml.Device{
		0: instance("MIG-a", "4g.71gb", 1, 70144, 13526, nvml.ProcessInfo{Pid: 50, UsedGpuMemory: 13500 * mib}),
		2: instance("MIG-b", "1g.18gb", 9, 16384, 0), // an index without an instance lies between
	}
	d.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if m, ok := at[i]; ok {
			return m, nvml.SUCCESS
		}
		return nil, nvml.ERROR_NOT_FOUND
	}
	r, err := on(t, s).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, _, _ := strings.Cut(told(r), "1 GPU-1")
	want := "0 GPU-0 NVIDIA H200 141GB HBM3e at 0000:1a:00.0, 144384 = 0 used + 600 reserved + 143784 free, 40 °C, 100500 mW, MIG\n" +
		"  MIG-a 4g.71gb 1/0, 70144 = 13526 used + 0 reserved + 56618 free\n" +
		"  MIG-b 1g.18gb 9/0, 16384 = 0 used + 0 reserved + 16384 free\n"
	if got != want || r.Procs[0] != (Proc{UUID: "MIG-a", PID: 50, Used: 13500 * mib}) {
		t.Errorf("got\n%s%+v\nwant\n%s", got, r.Procs[0], want)
	}
}

// The calls of an older driver: what its library lacks is not called.
func TestNVMLOlderLibrary(t *testing.T) {
	s := dgx(dgxa100.New())
	s.LookupSymbolFunc = func(symbol string) error {
		switch symbol {
		case "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetTemperature":
			return nil
		}
		return errors.New("undefined symbol")
	}
	for i := range s.Devices {
		d := gpuOf(s, i)
		d.GetMemoryInfo_v2Func, d.GetRemappedRowsFunc, d.GetMigModeFunc = nil, nil, nil // a call would panic
		d.GetGraphicsRunningProcessesFunc, d.GetMPSComputeRunningProcessesFunc, d.GetCurrentClocksEventReasonsFunc = nil, nil, nil
		d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) { return 0, nvml.SUCCESS }
	}
	r, err := on(t, s).Read(t.Context())
	if err != nil || len(r.Devices) != 8 || r.Devices[1].Used != 1600*mib || r.Devices[1].Reserved != 0 {
		t.Errorf("%s%v", told(r), err)
	}
}

func TestNVMLThatCannotBeOpened(t *testing.T) {
	for _, c := range []struct {
		ret  nvml.Return
		none bool
		says string
	}{
		{nvml.ERROR_LIBRARY_NOT_FOUND, true, ""},
		{nvml.ERROR_DRIVER_NOT_LOADED, true, ""}, // and no GPU on the bus
		{nvml.ERROR_LIB_RM_VERSION_MISMATCH, false, "Driver/library version mismatch"},
		{nvml.ERROR_UNKNOWN, false, "ERROR_UNKNOWN"},
	} {
		lib := &mock.Interface{InitFunc: func() nvml.Return { return c.ret }}
		if _, err := on(t, lib).Read(t.Context()); errors.Is(err, ErrNone) != c.none || !c.none && !says(err, c.says) {
			t.Errorf("%d: %v", c.ret, err)
		}
		if !c.none {
			continue // Watch tries again until its context ends
		}
		if err := on(t, lib).Watch(t.Context(), nil); !errors.Is(err, ErrNone) {
			t.Errorf("Watch, %d: %v", c.ret, err)
		}
	}
	bus := tree(t, map[string]string{"bus/pci/devices/a/vendor": "0x10de", "bus/pci/devices/a/class": "0x030200"})
	n := &NVML{lib: &mock.Interface{InitFunc: func() nvml.Return { return nvml.ERROR_DRIVER_NOT_LOADED }}, Sysfs: bus}
	if r, err := n.Read(t.Context()); errors.Is(err, ErrNone) || !says(err, "DRIVER_NOT_LOADED") || r.Present != 1 {
		t.Errorf("a GPU on the bus and no driver: %v, present %d", err, r.Present)
	}
	s := dgx(dgxa100.New())
	s.Devices = nil
	if r, err := on(t, s).Read(t.Context()); err != nil || r.Partial != nil || len(r.Devices) != 0 {
		t.Errorf("a driver without GPUs: %v, %v", r, err)
	}
}

// The library of this machine, or none: the same binary must run.
func TestNVMLOfThisMachine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := NewNVML().Read(ctx)
	t.Logf("%s%v", told(r), err)
	if err == nil && r.Driver == "" {
		t.Error("a driver without a version")
	}
}

// XIDs and changes of the recovery action arrive as they happen. While a GPU waits for its
// reset the library is closed, and then it is watched again.
func TestNVMLEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dgx(dgxh100.New())
		events := make(chan nvml.EventData)
		var open, free, registered atomic.Int32
		s.InitFunc = func() nvml.Return { open.Add(1); return nvml.SUCCESS }
		s.ShutdownFunc = func() nvml.Return { open.Add(-1); return nvml.SUCCESS }
		s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
			return &mock.EventSet{
				WaitFunc: func(ms uint32) (nvml.EventData, nvml.Return) {
					select {
					case e := <-events:
						return e, nvml.SUCCESS
					case <-time.After(time.Duration(ms) * time.Millisecond):
						return nvml.EventData{}, nvml.ERROR_TIMEOUT
					}
				},
				FreeFunc: func() nvml.Return { free.Add(1); return nvml.SUCCESS },
			}, nvml.SUCCESS
		}
		var actions [8]*atomic.Uint32
		for i := range s.Devices {
			d := gpuOf(s, i)
			actions[i] = recommendsLater(&d.Device)
			d.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return nvml.EventTypeXidCriticalError | 1, nvml.SUCCESS }
			d.RegisterEventsFunc = func(kinds uint64, _ nvml.EventSet) nvml.Return {
				if kinds != nvml.EventTypeXidCriticalError {
					t.Errorf("registered for %d", kinds)
				}
				registered.Add(1)
				return nvml.SUCCESS
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		got, ended := make(chan Incident, 1), make(chan error, 1)
		n := on(t, s)
		go func() { ended <- n.Watch(ctx, func(in Incident) { got <- in }) }()
		expect := func(want string) {
			t.Helper()
			in := <-got
			text := in.UUID + " " + in.Bus + " " + in.Note
			if in.Fault.State != "" {
				text += verdict(in.Fault)
			}
			if text != want {
				t.Errorf("got  %s\nwant %s", text, want)
			}
		}
		xid := func(i int, number uint64) {
			events <- nvml.EventData{Device: s.Devices[i], EventType: nvml.EventTypeXidCriticalError, EventData: number}
		}
		xid(2, 31)
		expect("GPU-2 0000:1c:00.0 XID 31: the program accessed memory that is not its own")
		if registered.Load() != 8 || open.Load() != 1 {
			t.Errorf("%d GPUs are registered, opened %d times", registered.Load(), open.Load())
		}

		actions[5].Store(uint32(nvml.GPU_RECOVERY_ACTION_GPU_RESET))
		xid(5, 119)
		expect("GPU-5 0000:1f:00.0 failing, xid: XID 119: the GPU's system processor does not answer -> reset")
		synctest.Wait()
		if open.Load() != 0 || free.Load() != 1 {
			t.Errorf("opened %d times while a GPU waits for its reset, %d sets freed", open.Load(), free.Load())
		}
		time.Sleep(10 * nvmlAgain)
		synctest.Wait()
		if open.Load() != 0 {
			t.Errorf("opened %d times while a GPU still waits", open.Load())
		}

		actions[5].Store(uint32(nvml.GPU_RECOVERY_ACTION_NONE))
		time.Sleep(nvmlAgain)
		synctest.Wait()
		if open.Load() != 1 {
			t.Errorf("opened %d times after the reset", open.Load())
		}
		actions[6].Store(uint32(nvml.GPU_RECOVERY_ACTION_NODE_REBOOT))
		events <- nvml.EventData{Device: s.Devices[6], EventType: nvml.EventTypeGpuRecoveryAction}
		expect("GPU-6 0000:20:00.0 failing, driver: the driver's recovery action is Reboot -> reboot")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if open.Load() != 0 {
			t.Errorf("it is left open %d times", open.Load())
		}
	})
}
