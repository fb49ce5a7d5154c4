// Package fleet is the pure core of a queen: the view of all hives and their
// workers, the verdicts on hives, what there is to be told of both, and what waits
// to be told. Time comes in as an argument; there is no clock, no goroutine and no
// lock. Package queen drives it by real messages, internal/sim by simulated ones.
package fleet
