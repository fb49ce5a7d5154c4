//go:build unix

package life

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// reusePort lets several processes listen on one port, as engines do that are replaced in place.
func reusePort(_, _ string, c syscall.RawConn) (err error) {
	_ = c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return err
}
