//go:build cgo && linux

package gpu

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// The events that are waited for, and how long at a time: the wait cannot be ended earlier.
const (
	nvmlEvents   = nvml.EventTypeXidCriticalError | nvml.EventTypeGpuRecoveryAction
	nvmlWait     = time.Second
	nvmlAgain    = 30 * time.Second // after a failure, or while a GPU is to be reset
	nvmlSessions = 10 * time.Minute // until the GPUs are counted again
)

// errToBeReset ends a session: a GPU can be reset only while no program has it open.
var errToBeReset = errors.New("a GPU waits for a recovery action")

// Watch is part of Watcher. It reports XIDs and changes of the recovery action as the driver
// sends them. An event of the driver names no process, so what a program is at fault for
// comes from the kernel log, if that may be read.
//
// While it watches, the library stays open, and nvidia-smi --gpu-reset would find the GPUs in
// use. Once the driver recommends an action for one, the library is closed until it no longer
// does; readings go on, and show that. Before driver 565, the hive must be stopped for a
// reset.
func (n *NVML) Watch(ctx context.Context, report func(Incident)) error {
	if err := n.open(CountPCI(n.Sysfs, vendorNVIDIA)); errors.Is(err, ErrNone) {
		return err
	} else if err == nil {
		n.lib.Shutdown()
	}
	var one sync.Mutex
	var log sync.WaitGroup
	defer log.Wait()
	log.Go(func() {
		// An error is not reported: the driver's events matter more, and come without it.
		_ = KernelLog{Faults: n.Faults, Path: n.Kmsg}.Watch(ctx, func(in Incident) {
			if in.Fault.State == "" {
				one.Lock()
				defer one.Unlock()
				report(in)
			}
		})
	})
	for ctx.Err() == nil {
		err := n.session(ctx, func(in Incident) {
			one.Lock()
			defer one.Unlock()
			report(in)
		})
		if err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(nvmlAgain):
		}
	}
	return nil
}

// session watches until ctx ends, or for a while: GPUs may come and go.
func (n *NVML) session(ctx context.Context, report func(Incident)) error {
	if err := n.open(0); err != nil {
		return err
	}
	defer n.lib.Shutdown()
	set, ret := n.lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		return errors.New(words(ret))
	}
	defer set.Free()
	count, ret := n.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return errors.New(words(ret))
	}
	registered := 0
	for i := range count {
		dev, ret := n.lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue
		}
		if _, against := recoveryAction(recoveryField(dev)); against {
			return errToBeReset
		}
		kinds, ret := dev.GetSupportedEventTypes()
		if ret == nvml.SUCCESS && kinds&nvmlEvents != 0 && dev.RegisterEvents(kinds&nvmlEvents, set) == nvml.SUCCESS {
			registered++
		}
	}
	if registered == 0 {
		return errors.New("no GPU sends events")
	}
	table := n.table()
	for end := time.Now().Add(nvmlSessions); ctx.Err() == nil && time.Now().Before(end); {
		e, ret := set.Wait(uint32(nvmlWait.Milliseconds()))
		if ret == nvml.ERROR_TIMEOUT {
			continue
		}
		if ret != nvml.SUCCESS {
			return errors.New(words(ret))
		}
		if in, ok := incident(e, table); ok {
			report(in)
			if in.Fault.State.Bad() && recoveryField(e.Device) != "" {
				return errToBeReset
			}
		}
	}
	return nil
}

// incident returns what an event says. A device that no longer answers has no UUID: then its
// address identifies it.
func incident(e nvml.EventData, table Table) (in Incident, ok bool) {
	switch e.EventType {
	case nvml.EventTypeXidCriticalError:
		in = table.Incident(XID{Number: int(e.EventData)})
	case nvml.EventTypeGpuRecoveryAction:
		if in.Fault, ok = recoveryFault(recoveryField(e.Device)); !ok {
			return in, false
		}
	default:
		return in, false
	}
	if uuid, ret := e.Device.GetUUID(); ret == nvml.SUCCESS {
		in.UUID = uuid
	}
	if p, ret := e.Device.GetPciInfo(); ret == nvml.SUCCESS {
		in.Bus = NormalBus(text(p.BusId[:]))
	}
	return in, true
}
