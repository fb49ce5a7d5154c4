// Package bus connects hivebeat's roles to NATS. It provides Connect, with defaults for
// a long-running agent; the codec of the wire messages; and Pulse, the sender that
// workers and hives use for their beats.
//
// It links only nats.go and msgpack, because every worker links it. The server is in
// bus/embedded.
package bus
