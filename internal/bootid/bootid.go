// Package bootid identifies where a process id is valid: the ns of a beat. Only
// processes that see the same value may interpret the pid in that beat.
// processes.
package bootid

import "strings"

// Namespace returns an id of the running kernel boot and of the pid namespace of this
// process: "<boot id>/<pid namespace>", or "<boot id>" on a system without pid
// namespaces. It is empty if either is unknown; then no process interprets the pid.
// Each call reads the system again.
func Namespace() string { return namespace() }

// Clock returns the boot clock of the machine in ms. It starts with the kernel,
// continues while the machine is suspended, and cannot be set. It is 0 on a system
// without one.
func Clock() uint64 { return clock() }

// Same reports whether processes with these namespaces share a boot clock: they run
// under one boot of one kernel.
func Same(a, b string) bool {
	a, _, _ = strings.Cut(a, "/")
	b, _, _ = strings.Cut(b, "/")
	return a != "" && a == b
}
