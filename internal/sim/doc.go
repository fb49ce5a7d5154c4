// Package sim runs the real cores of hives and queens (internal/hivecore,
// internal/queencore) and the real bus.Schedule under a virtual clock. The bus loses,
// delays, duplicates, reorders and cuts; processes are paused, killed and restarted. The
// package holds what the cores conclude against what is true.
//
// A run is a Plan: a fleet, a network and a list of faults, all of which follow
// from one seed. Every process draws from a stream of its own, so that taking one fault
// out of a plan changes little else: that makes a failing plan easy to shorten. A run
// has no goroutine, and equal plans run alike to the last bit.
//
// Invariant lists what is checked, all the time.
package sim
