package runner

import (
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// adoptOrphans makes this process the parent of the descendants whose parent ends. Process 1 is
// that anyway.
func adoptOrphans(log *slog.Logger) {
	if os.Getpid() == 1 {
		return
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		log.Warn("children that are left behind are not seen", slog.Any("err", err))
	}
}
