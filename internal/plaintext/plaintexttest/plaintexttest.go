// Package plaintexttest makes hostile text for tests, and checks output that shows it.
package plaintexttest

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Mark is in every hostile text, and survives.
const Mark = "EVIL"

// Evil is a text of Unicode with something of everything that must reach no terminal:
// ANSI codes of both kinds, which none of the commands uses, controls, direction marks,
// characters of no width, separators and a tag.
const Evil = Mark + "\x1b[35m\x1b]0;" + Mark + "\x07\u009b35m\u0085\x7f\x00\u202e\u2066\u200f\u200b\ufeff\u00ad\u2028\u2029\U000e0041\r\n\tgnp"

// Fill sets everything in the value that v points to, and everything below it: texts to
// Evil, lists to two elements, maps to one. The first element of a list has all switches
// on and no word that a command knows; the second is an ordinary one.
func Fill(v any) { fill(reflect.ValueOf(v).Elem(), false, 0) }

func fill(v reflect.Value, ordinary bool, depth int) {
	if depth > 12 || !v.CanSet() {
		return
	}
	if ordinary {
		switch v.Interface().(type) {
		case hivebeat.Live:
			v.SetString(string(hivebeat.Alive))
			return
		case hivebeat.State:
			v.SetString(string(hivebeat.Ready))
			return
		case hivebeat.Kind:
			v.SetString(string(hivebeat.KindLost))
			return
		}
	}
	if _, ok := v.Interface().(time.Time); ok {
		v.Set(reflect.ValueOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(Evil)
	case reflect.Bool:
		v.SetBool(!ordinary)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(3)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(3)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(3)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), ordinary, depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), ordinary, depth+1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), ordinary, depth+1)
		fill(v.Index(1), true, depth+1)
	case reflect.Map:
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, ordinary, depth+1)
		fill(elem, ordinary, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, elem)
	}
}

// ours are the codes that the commands and tint use for colours, and to redraw the screen.
var ours = regexp.MustCompile(`\x1b\[(?:(?:0|1|2|7|31|32|33|36|1;7;31|9[1-3])m|\?(?:2026|1049|25|7)[hl]|2?J|[HK])`)

// Check fails if out holds a character that is not printable, besides ends of lines and
// the codes that the commands use, or if Mark is not in it, and the check would be an empty
// one.
func Check(tb testing.TB, what, out string) {
	tb.Helper()
	if !strings.Contains(out, Mark) {
		tb.Errorf("%s: the text did not arrive: %q", what, out)
	}
	Printable(tb, what, out)
}

// Printable is Check without a Mark.
func Printable(tb testing.TB, what, out string) {
	tb.Helper()
	rest := strings.ReplaceAll(ours.ReplaceAllString(out, ""), "\r\n", "\n")
	for i, r := range rest {
		bad := !plaintext.Printable(r) && r != '\n'
		if r == utf8.RuneError && !strings.HasPrefix(rest[i:], "\ufffd") {
			bad = true
		}
		if bad {
			tb.Errorf("%s: U+%04X in %q", what, r, rest[max(0, i-60):min(len(rest), i+20)])
			return
		}
	}
}

// CheckJSON is Check for JSON values one after another. Evil is in them, letter by letter.
func CheckJSON(tb testing.TB, what, out string) {
	tb.Helper()
	Check(tb, what, out)
	found := false
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var v any
		if err := d.Decode(&v); err != nil {
			tb.Errorf("%s: %v in %q", what, err, out)
			return
		}
		found = found || holds(v)
	}
	if !found {
		tb.Errorf("%s: the text was changed: %s", what, out)
	}
}

// holds reports whether Evil, up to the end of its first line, is in v.
func holds(v any) bool {
	first, _, _ := strings.Cut(Evil, "\r")
	switch v := v.(type) {
	case string:
		return strings.Contains(v, first)
	case []any:
		for _, e := range v {
			if holds(e) {
				return true
			}
		}
	case map[string]any:
		for k, e := range v {
			if strings.Contains(k, first) || holds(e) {
				return true
			}
		}
	}
	return false
}
