// Package query answers what a queen is asked about its view of the fleet: filters,
// pages, summaries, what changed, who can take work, holds, events and history. It
// is pure, as internal/fleet is: time comes in as an argument, there is no lock and
// no goroutine, and whoever owns the view calls it. A question that has to look at
// many workers is answered in steps, so that it never holds the view for long.
package query
