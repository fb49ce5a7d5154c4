package bootid

import "golang.org/x/sys/unix"

func clock() uint64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return uint64(t.Nano() / 1_000_000)
}
