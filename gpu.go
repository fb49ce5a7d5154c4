package hivebeat

// GPUState is what a hive concludes about one of its GPUs. A word that is not listed here
// is valid on the wire and kept unchanged. A GPU in such a state is never picked.
type GPUState string

// The states of a GPU.
const (
	GPUOK       GPUState = "ok"
	GPUDegraded GPUState = "degraded" // usable with less: still picked, after all others
	GPUFailing  GPUState = "failing"  // must not be used; Action says what to do
	GPUGone     GPUState = "gone"     // missing from a good reading
	GPUUnknown  GPUState = "unknown"  // not read for too long: it may work
)

// GPUStates lists the known states, best first.
func GPUStates() []GPUState {
	return []GPUState{GPUOK, GPUDegraded, GPUUnknown, GPUFailing, GPUGone}
}

// Usable reports whether a GPU in this state may be given work.
func (s GPUState) Usable() bool { return s == GPUOK || s == GPUDegraded }

// Bad reports whether a GPU in this state is known not to work.
func (s GPUState) Bad() bool { return s == GPUFailing || s == GPUGone }

// The actions that end a fault of a GPU. The first ones are those of NVIDIA's driver.
const (
	ActionReset      = "reset"       // reset the GPU
	ActionReboot     = "reboot"      // reboot the machine
	ActionDrain      = "drain"       // drain peer-to-peer traffic, then reset the GPU
	ActionDrainReset = "drain_reset" // let the work end, then reset the GPU
	ActionReplace    = "replace"     // replace the GPU, then forget it: the fault has no other end
)

// Causes of a GPU's state.
const (
	CauseDriver   Cause = "driver"    // the driver recommends an action
	CauseLostGPU  Cause = "gpu_lost"  // the driver says that the GPU is lost
	CauseReset    Cause = "reset"     // the driver says that the GPU requires a reset
	CauseXID      Cause = "xid"       // the driver reported an error of the GPU
	CauseECC      Cause = "ecc"       // memory errors
	CauseRemap    Cause = "remap"     // rows of its memory are to be remapped, or cannot be
	CauseThrottle Cause = "throttle"  // it runs slower because of heat or power
	CauseMissing  Cause = "missing"   // it was there, and a good reading lacks it
	CauseUnread   Cause = "unread"    // it could not be read for too long
	CauseMachine  Cause = "machine"   // another GPU of the machine needs a reboot
	CauseFlapping Cause = "flapping"  // it failed repeatedly, and works now
	CauseOrphan   Cause = "orphan"    // of a gpu-orphan event: its worker has ended
	CauseForgot   Cause = "forgotten" // of a gpu-forgotten event: an operator removed it
	CauseOOM      Cause = "oom"       // of a worker: the kernel killed it for want of memory
)

// Limits of the wire for GPUs.
const (
	MaxInstances      = 16 // MIG instances of a GPU
	MaxGPUTransitions = 32 // transitions of GPUs in a snapshot
)

// GPU is one GPU of the machine, or one that the machine had. Its memory has these parts,
// which add up to Total: Ours, Orphaned, Foreign(), Unattributed, Reserved and Free().
type GPU struct {
	UUID  string `msgpack:"uuid" json:"uuid"`
	Index uint64 `msgpack:"index" json:"index"`
	Name  string `msgpack:"name,omitempty" json:"name,omitempty"`
	Bus   string `msgpack:"bus,omitempty" json:"bus,omitempty"`     // PCI address
	Total uint64 `msgpack:"total,omitempty" json:"total,omitempty"` // bytes; 0 if unknown
	Used  uint64 `msgpack:"used,omitempty" json:"used,omitempty"`   // bytes held by processes
	Ours  uint64 `msgpack:"ours,omitempty" json:"ours,omitempty"`   // bytes held by this hive's workers
	// Orphaned is the part of Used that processes hold whose worker has ended,
	// Unattributed the part of which no reading says who holds it, and Reserved what the
	// driver keeps for itself, beside Used. All in bytes.
	Orphaned     uint64 `msgpack:"orphaned,omitempty" json:"orphaned,omitempty"`
	OrphanOf     string `msgpack:"orphan_of,omitempty" json:"orphan_of,omitempty"` // the worker that has ended and whose processes hold most of Orphaned
	Unattributed uint64 `msgpack:"unattributed,omitempty" json:"unattributed,omitempty"`
	Reserved     uint64 `msgpack:"reserved,omitempty" json:"reserved,omitempty"`
	Unified      bool   `msgpack:"unified,omitempty" json:"unified,omitempty"` // its memory is the machine's
	Util         uint64 `msgpack:"util,omitempty" json:"util,omitempty"`       // 0 to 100
	Temp         int64  `msgpack:"temp,omitempty" json:"temp,omitempty"`       // °C
	Power        uint64 `msgpack:"power,omitempty" json:"power,omitempty"`     // mW

	State    GPUState `msgpack:"state,omitempty" json:"state,omitempty"`       // empty from a hive that does not judge: see Condition
	Cause    Cause    `msgpack:"cause,omitempty" json:"cause,omitempty"`       // why it is not ok
	Evidence string   `msgpack:"evidence,omitempty" json:"evidence,omitempty"` // the same in words
	Action   string   `msgpack:"action,omitempty" json:"action,omitempty"`     // what ends the fault; empty if nothing needs to be done
	Since    Millis   `msgpack:"since,omitempty" json:"since,omitempty"`       // how long it has been in this state
	Boots    uint64   `msgpack:"boots,omitempty" json:"boots,omitempty"`       // reboots of the machine that this fault has outlived

	// MIG reports that the GPU is split: work is placed on its Instances only, never on
	// the whole GPU.
	MIG       bool          `msgpack:"mig,omitempty" json:"mig,omitempty"`
	Instances []GPUInstance `msgpack:"instances,omitempty" json:"instances,omitempty"`

	Age Millis `msgpack:"age,omitempty" json:"age,omitempty"` // since these facts were read
	Err string `msgpack:"err,omitempty" json:"err,omitempty"` // why facts of this GPU are missing
}

// GPUInstance is a MIG instance of a GPU. It shares the state of its GPU.
type GPUInstance struct {
	UUID         string `msgpack:"uuid" json:"uuid"`
	Profile      string `msgpack:"profile,omitempty" json:"profile,omitempty"` // such as 1g.18gb
	GI           uint64 `msgpack:"gi,omitempty" json:"gi,omitempty"`           // id of the GPU instance
	CI           uint64 `msgpack:"ci,omitempty" json:"ci,omitempty"`           // id of the compute instance within it
	Total        uint64 `msgpack:"total,omitempty" json:"total,omitempty"`     // bytes, as are the next ones; they are those of GPU
	Used         uint64 `msgpack:"used,omitempty" json:"used,omitempty"`
	Ours         uint64 `msgpack:"ours,omitempty" json:"ours,omitempty"`
	Orphaned     uint64 `msgpack:"orphaned,omitempty" json:"orphaned,omitempty"`
	Unattributed uint64 `msgpack:"unattributed,omitempty" json:"unattributed,omitempty"`
	Reserved     uint64 `msgpack:"reserved,omitempty" json:"reserved,omitempty"`
}

// GPUTransition is one change of a GPU, numbered by its hive.
type GPUTransition struct {
	N        uint64   `msgpack:"n" json:"n"`
	Kind     Kind     `msgpack:"kind" json:"kind"`
	GPU      string   `msgpack:"gpu" json:"gpu"` // UUID
	Index    uint64   `msgpack:"index,omitempty" json:"index,omitempty"`
	From     GPUState `msgpack:"from,omitempty" json:"from,omitempty"`
	To       GPUState `msgpack:"to,omitempty" json:"to,omitempty"`
	Cause    Cause    `msgpack:"cause,omitempty" json:"cause,omitempty"`
	Evidence string   `msgpack:"evidence,omitempty" json:"evidence,omitempty"`
	Action   string   `msgpack:"action,omitempty" json:"action,omitempty"`
	Worker   string   `msgpack:"worker,omitempty" json:"worker,omitempty"` // gpu-orphan: whose processes hold the memory
	Asker    string   `msgpack:"asker,omitempty" json:"asker,omitempty"`   // gpu-forgotten: who asked for it
	Ago      Millis   `msgpack:"ago" json:"ago"`
}

// Condition returns the state of the GPU. A hive that judges no GPUs sends none: then a GPU
// with an error is unknown, and any other ok.
func (g *GPU) Condition() GPUState {
	switch {
	case g.State != "":
		return g.State
	case g.Err != "":
		return GPUUnknown
	}
	return GPUOK
}

// Free returns the bytes that the driver would give a new process on the whole GPU.
func (g *GPU) Free() uint64 { return rest(g.Total, g.Used, g.Reserved) }

// Foreign returns the bytes held by processes that never belonged to a worker.
func (g *GPU) Foreign() uint64 { return rest(g.Used, g.Ours, g.Orphaned, g.Unattributed) }

// Free returns the bytes that the driver would give a new process on the instance.
func (i *GPUInstance) Free() uint64 { return rest(i.Total, i.Used, i.Reserved) }

// Foreign returns the bytes held by processes that never belonged to a worker.
func (i *GPUInstance) Foreign() uint64 { return rest(i.Used, i.Ours, i.Orphaned, i.Unattributed) }

// rest returns n less the parts, and at least 0.
func rest(n uint64, parts ...uint64) uint64 {
	for _, p := range parts {
		n -= min(n, p)
	}
	return n
}
