// Package embedded runs a nats-server inside the process: for hivebeat up, for
// programs that bring their own NATS along, and for tests. It is the only
// package that imports nats-server; what workers link does not import it.
//
// nats-server as a library trusts its caller with much. This package adds what a
// caller would have to know: a server is ready or Start returns an error that
// says why, it listens on loopback unless told otherwise, two servers never
// share a store directory, nothing is printed, no signal is handled, and after
// Stop no goroutine is left.
package embedded
