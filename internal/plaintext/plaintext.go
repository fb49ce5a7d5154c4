// Package plaintext makes text of workers, hives, clients and files safe to print. Such
// text may hold codes that move the cursor of a terminal, reorder a line or
// hide a part of it. Every command, log and JSON answer passes its text through this
// package, and [Printable] decides for all of them which characters are replaced or escaped.
//
// The package has no state. Its functions may be called from any goroutine.
package plaintext

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable reports whether a terminal shows r as one character in its place.
// It is false for control characters of both sets (C0 with ESC, C1), DEL, line and
// paragraph separators, characters that set the direction of text, those of no width and
// those that are never drawn, private and unassigned ones, and spaces other than U+0020.
func Printable(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r <= '~'
	}
	return unicode.IsPrint(r) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// Line returns s on one line: tabs and ends of lines become spaces, and each character
// that is not [Printable], or byte that is no UTF-8, becomes U+FFFD.
func Line(s string) string {
	if ascii(s) {
		return s
	}
	return strings.Map(onLine, s)
}

// Lines is like [Line], but keeps tabs and ends of lines.
func Lines(s string) string {
	if ascii(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return onLine(r)
	}, s)
}

// ascii reports whether s holds nothing but printable ASCII, as nearly all text does.
func ascii(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func onLine(r rune) rune {
	switch {
	case r == '\t' || r == '\n' || r == '\r':
		return ' '
	case Printable(r):
		return r
	}
	return unicode.ReplacementChar
}

// Marshal is [json.Marshal] followed by [JSON].
func Marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return JSON(b), err
}

// JSON returns the JSON text b with each character that is not [Printable] written as \u
// and four hexadecimal digits, so that it decodes to the same values. A byte that is no
// UTF-8 becomes \ufffd, which is how encoding/json decodes it. Tabs and ends of lines, which
// JSON has only between values, are kept. JSON never modifies b, and returns b itself if
// nothing has to change.
func JSON(b []byte) []byte {
	i := unprintable(b)
	if i == len(b) {
		return b
	}
	out := make([]byte, 0, len(b)+len(b)/8+16)
	for i < len(b) {
		r, size := utf8.DecodeRune(b[i:])
		out = append(out, b[:i]...)
		if r > 0xffff {
			high, low := utf16.EncodeRune(r)
			out = escape(escape(out, high), low)
		} else {
			out = escape(out, r)
		}
		b = b[i+size:]
		i = unprintable(b)
	}
	return append(out, b...)
}

func escape(out []byte, r rune) []byte { return fmt.Appendf(out, `\u%04x`, r) }

// unprintable returns the index of the first character of b that JSON escapes, or len(b).
func unprintable(b []byte) int {
	for i := 0; i < len(b); {
		if len(b)-i >= 8 && printable8(binary.LittleEndian.Uint64(b[i:])) {
			i += 8
			continue
		}
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 || !Printable(r) && r != '\n' && r != '\t' && r != '\r' {
			return i
		}
		i += size
	}
	return len(b)
}

// printable8 reports whether all eight bytes of x are printable ASCII. The high bit of a
// byte is set by x if it is above ASCII, by the sum from DEL on, and by the difference
// below the space. A carry or borrow comes only from a byte whose high bit is set already.
func printable8(x uint64) bool {
	return (x|(x+0x0101010101010101)|(x-0x2020202020202020))&0x8080808080808080 == 0
}

// JSONWriter returns a writer that passes each Write through [JSON] to w. A Write
// must hold whole characters, as a record of a log does. It is as safe for concurrent use
// as w is.
func JSONWriter(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(b []byte) (int, error) {
	if _, err := j.w.Write(JSON(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}
