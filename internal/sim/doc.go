// Package sim runs the real cores of hives and queens (internal/hivecore,
// internal/queencore) and the real bus.Schedule under a virtual clock. The bus loses,
// delays, duplicates, reorders and cuts; processes are paused, killed and restarted. The
// package compares the conclusions of the cores with the truth.
//
// A run is a Plan: a fleet, a network and a list of faults, all derived from one seed. Every
// process has its own stream of random numbers. One fault less in a plan therefore changes
// little else, which makes a failing plan easy to shorten. A run has no goroutine, and equal
// plans give identical runs.
//
// Invariant lists what is checked throughout a run.
package sim
