// Package query answers questions about a queen's view of the fleet: filters, pages,
// summaries, changes, picks, holds, events and history. Like internal/fleet it is pure:
// time is an argument, there is no lock and no goroutine, and the owner of the view calls
// it. A question that must look at many workers is answered in steps, so that it never
// occupies the view for more than a moment.
package query
