// Package top is the full-screen view of the fleet.
//
// Model is the whole of it but for the clock, the terminal and the queen: keys,
// answers and ticks go in with the time they came at, questions come out, and Lines
// renders what is known at a moment. Run is the thin loop around it, on Bubble Tea.
//
// It asks only for the rows that are shown and half a screen around them, so that
// what it costs does not grow with the fleet.
package top
