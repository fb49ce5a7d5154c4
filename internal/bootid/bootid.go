// Package bootid tells where a process id is valid: the ns of a beat. Only who
// sees the same value may take the pid in a beat for one of its own processes.
package bootid

import "strings"

// Namespace returns an id of the running kernel boot and of the pid namespace of
// this process: "<boot id>/<pid namespace>", or "<boot id>" on a system without
// pid namespaces. It is empty where either can not be told; nobody then takes the
// pid for one of its own. It reads the system anew at each call.
func Namespace() string { return namespace() }

// Clock returns the boot clock of the machine in ms: it begins with the kernel, goes on
// while the machine is suspended, and nobody sets it. It is 0 on a system without one.
func Clock() uint64 { return clock() }

// Same reports whether the clocks of processes with these namespaces are the same: they
// run under one boot of one kernel.
func Same(a, b string) bool {
	a, _, _ = strings.Cut(a, "/")
	b, _, _ = strings.Cut(b, "/")
	return a != "" && a == b
}
