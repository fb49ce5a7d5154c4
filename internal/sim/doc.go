// Package sim runs the real judgement of workers, hives and queens (bus.Schedule,
// internal/hivecore, internal/fleet, internal/wire) under a virtual clock, on a bus
// that loses, delays, duplicates, reorders and cuts, with actors that are paused,
// killed and restarted, and holds what they conclude against what is true. Of a role
// that has a core it plays only what is outside of that: network, store, clock,
// processes and faults.
//
// A run is a Plan: a fleet, a network and a list of faults, all of which follow
// from one seed. Every actor draws from a stream of its own, so that a fault that
// is taken out of a plan changes little else, which is what makes a failing plan
// easy to shorten. There is no goroutine in a run, and equal plans run alike to the
// last bit.
//
// What is checked, all the time, is listed at Invariant.
package sim
