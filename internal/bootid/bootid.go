// Package bootid tells where a process id is valid: the ns of a beat. Only who
// sees the same value may take the pid in a beat for one of its own processes.
package bootid

// Namespace returns an id of the running kernel boot and of the pid namespace of
// this process: "<boot id>/<pid namespace>", or "<boot id>" on a system without
// pid namespaces. It is empty where either can not be told; nobody then takes the
// pid for one of its own. It reads the system anew at each call.
func Namespace() string { return namespace() }
