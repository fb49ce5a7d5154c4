// Package top is the full-screen view of the fleet.
//
// Model is the state of the view, without clock, terminal and queen: keys, answers and
// ticks go in with the time of their arrival, questions come out, and Lines renders the
// state at a given time. Run is the thin loop around it, on Bubble Tea.
//
// The view asks only for the rows on the screen and half a screen around, so that its
// cost does not grow with the fleet.
package top
