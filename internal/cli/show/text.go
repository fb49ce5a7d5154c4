package show

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// columns returns the width of a rune in columns of a terminal.
func columns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1100 && r <= 0x115f, // Hangul
		r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, // CJK
		r >= 0xac00 && r <= 0xd7a3,                // Hangul syllables
		r >= 0xf900 && r <= 0xfaff,                // CJK compatibility
		r >= 0xfe30 && r <= 0xfe6f,
		r >= 0xff00 && r <= 0xff60, // full width forms
		r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1faff, // pictures
		r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// Width returns the width of s in columns of a terminal. The codes of Paint take none.
func Width(s string) int {
	n := 0
	for i := 0; i < len(s); {
		if skip := escape(s[i:]); skip > 0 {
			i += skip
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		n += columns(r)
		i += size
	}
	return n
}

// Cut shortens s to width columns; a shortened text ends in an ellipsis. The codes of Paint
// take no column, and none is left open.
func Cut(s string, width int) string {
	if len(s) <= width || Width(s) <= width {
		return s
	}
	if width <= 0 {
		return ""
	}
	n, painted := 0, false
	for i := 0; i < len(s); {
		if skip := escape(s[i:]); skip > 0 {
			painted = s[i:i+skip] != reset
			i += skip
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if n += columns(r); n > width-1 {
			s = s[:i] + "…"
			if painted {
				s += reset
			}
			return s
		}
		i += size
	}
	return s
}

const reset = "\x1b[0m"

// escape returns the length of the code of Paint that s begins with, or 0. No text from
// plaintext contains one.
func escape(s string) int {
	if len(s) > 2 && s[0] == '\x1b' && s[1] == '[' {
		return strings.IndexByte(s, 'm') + 1
	}
	return 0
}

// Bare returns s without the codes of Paint.
func Bare(s string) string {
	if !strings.Contains(s, "\x1b") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if skip := escape(s[i:]); skip > 0 {
			i += skip
			continue
		}
		b.WriteByte(s[i])
		i++
	}
	return b.String()
}

// Pad appends spaces to s until it is width columns wide.
func Pad(s string, width int) string { return pad(s, width) }

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
	return "\x1b[" + codes[st] + "m" + s + reset
}
