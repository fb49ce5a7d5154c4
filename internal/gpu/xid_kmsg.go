package gpu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// KernelLog reports the XIDs that NVIDIA's driver writes into the kernel log of Linux, from
// now on: earlier ones may have been mended since, and the readings show those that were not.
// It is for builds without cgo, which cannot receive the driver's events.
//
// Where kernel.dmesg_restrict is 1, as on most distributions, it needs the capability
// CAP_SYSLOG. A container also needs the device /dev/kmsg. Process ids in the log are those
// of the machine, whatever namespace the reader is in.
type KernelLog struct {
	Faults Table  // nil is DefaultFaults
	Path   string // empty is /dev/kmsg
}

// maxRecord is more than the kernel's longest record, which a read must take as a whole.
const maxRecord = 64 << 10

// Watch is part of Watcher. It returns ErrNone where there is no kernel log, an error at once
// if it may not be read, and nil once ctx ends.
func (k KernelLog) Watch(ctx context.Context, report func(Incident)) error {
	path := k.Path
	if path == "" {
		path = "/dev/kmsg"
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNone
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: XIDs in the kernel log are not seen; that needs the capability CAP_SYSLOG", err)
	case err != nil:
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() }) // a read that waits ends
	defer func() {
		if stop() {
			_ = f.Close()
		}
	}()
	_, _ = f.Seek(0, io.SeekEnd) // a pipe, in a test, has no end
	table := k.Faults
	if table == nil {
		table = DefaultFaults()
	}
	b := bufio.NewReaderSize(f, maxRecord)
	for {
		line, err := b.ReadString('\n')
		if x, ok := ParseXID(line); ok {
			report(table.Incident(x))
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EPIPE): // records were overwritten before they were read
		case err != nil:
			return err
		}
	}
}
