// Package embedded runs a nats-server inside the process: for hivebeat up, for programs
// that bring their own NATS, and for tests. It is the only package that imports
// nats-server; the packages that workers link do not import it.
//
// nats-server as a library trusts its caller with much. This package adds the
// guarantees that a caller would otherwise have to provide. A server is ready, or Start
// returns an error that says why. It listens on loopback unless configured otherwise.
// Two servers never share a store directory. Nothing is printed, no signal is handled,
// and after Stop no goroutine is left.
package embedded
