//go:build !cgo || !linux

package gpu

import "context"

// NVML reads NVIDIA's GPUs through the driver's library in builds with cgo for Linux. In this
// build it has nothing to read.
type NVML struct {
	Faults Table
	Sysfs  string
	Kmsg   string
}

// NewNVML returns a reader that has nothing to read in this build: use an SMI.
func NewNVML() *NVML { return &NVML{} }

// Name is part of Reader.
func (*NVML) Name() string { return "nvml" }

// Read is part of Reader. It returns ErrNone.
func (*NVML) Read(context.Context) (Reading, error) { return Reading{}, ErrNone }

// Watch is part of Watcher. It returns ErrNone.
func (*NVML) Watch(context.Context, func(Incident)) error { return ErrNone }
