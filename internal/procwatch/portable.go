package procwatch

import (
	"context"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// lookPortable is look on every system that gopsutil supports. began is by the wall
// clock: an identity, not comparable with other times. An error is no evidence that a
// process ended.
func lookPortable(pid int) (began int64, there bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	there, err := process.PidExistsWithContext(ctx, int32(pid))
	if err != nil || !there {
		return 0, err != nil
	}
	p := process.Process{Pid: int32(pid)}
	if began, err = p.CreateTimeWithContext(ctx); err != nil {
		return 0, true
	}
	return began, true
}
