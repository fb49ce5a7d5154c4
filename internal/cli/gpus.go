package cli

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
)

// GPUFlags say what a hive expects of its machine's GPUs.
type GPUFlags struct {
	GPUsExpected int           `name:"gpus-expected" placeholder:"N" help:"How many GPUs the machine has: fewer that answer are reported, even if they were never seen." group:"GPUs"`
	GPULimit     time.Duration `name:"gpu-limit" default:"30s" help:"Limit of one reading of the GPUs." group:"GPUs"`
	VRAMBudget   byteSize      `name:"vram-budget" placeholder:"SIZE" help:"The most GPU memory that the workers of this machine may hold together: bytes, or a number with M, G, MiB or GiB." group:"GPUs"`
}

// Validate checks the flags.
func (f *GPUFlags) Validate() error {
	switch {
	case f.GPUsExpected < 0 || f.GPUsExpected > hivebeat.MaxGPUs:
		return misused(fmt.Errorf("--gpus-expected: %d is out of range", f.GPUsExpected), "use 1 to %d, or leave it out", hivebeat.MaxGPUs)
	case f.GPULimit < time.Second || f.GPULimit > 10*time.Minute:
		return misused(fmt.Errorf("--gpu-limit: %s is out of range", f.GPULimit), "use 1s to 10m, such as 30s")
	case f.VRAMBudget < 0 || f.VRAMBudget > hivebeat.MaxInt:
		return misused(fmt.Errorf("--vram-budget: %d bytes are out of range", f.VRAMBudget), "use a size such as 120GiB, or leave it out")
	}
	return nil
}

// apply sets what the flags say in cfg.
func (f *GPUFlags) apply(cfg *hive.Config) {
	cfg.GPUsExpected, cfg.GPULimit, cfg.VRAMBudget = f.GPUsExpected, f.GPULimit, uint64(max(0, f.VRAMBudget))
}
