package plaintext

import (
	"strings"
	"unicode/utf8"
)

// Clip returns s as one line of valid UTF-8 of at most n bytes. Runs of white space and
// control characters become one space, and bytes that are no UTF-8 a question mark.
func Clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }), " ")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
