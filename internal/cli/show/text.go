package show

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Width returns the width of s in columns of a terminal. The codes of Paint take none.
func Width(s string) int { return ansi.StringWidth(s) }

// Cut shortens s to width columns; a shortened text ends in an ellipsis. The codes of Paint
// take no column, and none is left open.
func Cut(s string, width int) string { return ansi.Truncate(s, width, "…") }

// Bare returns s without the codes of Paint.
func Bare(s string) string { return ansi.Strip(s) }

// Pad appends spaces to s until it is width columns wide.
func Pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-Width(s))) }

// Style is how a text stands out if colours are shown.
type Style uint8

// The styles are named by their meaning, not by their look.
const (
	Plain  Style = iota
	Faint        // of less interest, or outdated
	Strong       // headings
	Good
	Notice // in motion: loading, busy
	Warn
	Bad
	Alarm  // must not be overlooked
	Chosen // where the cursor is
)

var codes = [...]string{Faint: "2", Strong: "1", Good: "32", Notice: "36", Warn: "33", Bad: "31", Alarm: "1;7;31", Chosen: "7"}

// Paint reports whether text is coloured.
type Paint bool

// Text returns s in a style.
func (p Paint) Text(s string, st Style) string {
	if !p || st == Plain || s == "" {
		return s
	}
	return "\x1b[" + codes[st] + "m" + s + "\x1b[0m"
}
