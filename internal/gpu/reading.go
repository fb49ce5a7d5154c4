// Package gpu reads the GPUs of a machine and judges them. Readers (nvidia-smi, NVML,
// amdgpu) turn what a driver reports into a Reading. A Fleet, which is pure, keeps what
// is known of each GPU over time and concludes its state.
package gpu

import (
	"context"
	"errors"
	"time"

	"github.com/beatfabric/hivebeat"
)

// ErrNone means that this reader has nothing to read on this machine: no driver, no tool
// or no device of its kind.
var ErrNone = errors.New("no GPU")

// Reader reads the GPUs of one kind of driver. Read is not called again before it has
// returned. It returns ErrNone if there is nothing to read, and any other error if it
// learned nothing about any device. A Reader may be slow: the caller bounds ctx, and Read
// ends soon after ctx does, together with every process that it started.
type Reader interface {
	// Name names the source in errors and logs: nvidia-smi, nvml, amdgpu.
	Name() string
	Read(ctx context.Context) (Reading, error)
}

// Reading is one reading of all GPUs of a Reader.
type Reading struct {
	Driver  string // version of the driver; empty if unknown
	Devices []Device
	// Partial says why some device could not be read; nil after a good reading. Only a
	// good reading proves that a device is missing.
	Partial error
	// Mentions are the devices that messages of the driver name without their facts, such
	// as "Unable to determine the device handle for GPU 0000:1A:00.0: GPU is lost".
	Mentions []Mention
	// Procs are the processes that hold memory, if ProcsErr is nil.
	Procs    []Proc
	ProcsErr error
	// Present is the number of devices of this kind on the PCI bus, whether or not the
	// driver answers for them; 0 if unknown.
	Present int
	Took    time.Duration // how long the reading took
}

// Device is what a reading says of one GPU. Of GPU it fills the facts: not State, Cause,
// Evidence, Action and Since, which Fleet concludes, not Age, and not the parts of memory
// that depend on owners (Ours, Orphaned, Unattributed). A value that the device does not
// have is zero.
type Device struct {
	hivebeat.GPU
	Faults []Fault // what the driver reports against it, worst first
}

// Fault is a finding about one device.
type Fault struct {
	State    hivebeat.GPUState // GPUDegraded, GPUFailing or GPUGone
	Cause    hivebeat.Cause
	Evidence string // in words, with the driver's own where possible
	Action   string // one of hivebeat.Action…; empty if nothing needs to be done
}

// Mention is a finding about a device that is known only by its address or index.
type Mention struct {
	Bus   string // PCI address in any of the driver's forms; empty if unknown
	Index int    // -1 if unknown
	Fault Fault
}

// Proc is a process that holds memory on a device.
type Proc struct {
	UUID string // of the GPU, or of the MIG instance
	PID  uint64 // in the pid namespace of the reader
	Used uint64 // bytes; 0 if the driver does not say
}

// Owner is whose process holds memory.
type Owner uint8

// The owners of a process.
const (
	Unattributed Owner = iota // the process cannot be read, or the driver names no process
	Ours                      // a worker of this hive, or a descendant of one
	Orphaned                  // it belonged to a worker that has ended
	Foreign                   // it never belonged to a worker
)
