package cli

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// leaks matches kong's own words about values.
var leaks = regexp.MustCompile(`EOL|expected|expecting|envar|but got|must be one of|perhaps try|parse|%!`)

// Any bad value of any flag of any command gives one line with the flag and the problem, and a
// hint with an example.
func TestEveryFlagSaysWhatItTakes(t *testing.T) {
	var bad *badValue
	c := newConsole(Streams{Out: new(strings.Builder), Err: new(strings.Builder)})
	parser, err := c.parser(t.Context(), &bad)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range parser.Model.Children {
		flags := 0
		for _, f := range node.Flags {
			said := func(like string, args ...string) {
				t.Helper()
				code, out, errs := run(t, nil, append([]string{node.Name}, args...)...)
				line, hint, _ := strings.Cut(errs, "\n")
				if code != ExitUsage || out != "" || !strings.HasPrefix(line, "hivebeat: --"+f.Name+": ") || !strings.HasPrefix(hint, "hint: ") ||
					!strings.Contains(hint, like) || leaks.MatchString(strings.ReplaceAll(errs, "--"+f.Name, "")) || strings.Count(errs, "\n") != 2 {
					t.Errorf("hivebeat %s %v: code %d\n%s%s", node.Name, args, code, out, errs)
				}
			}
			if !f.IsBool() {
				said("a value follows it, as in --"+f.Name+" ", "--"+f.Name)
				flags++
			}
			if picky(f) {
				said("", "--"+f.Name+"=*")
			}
		}
		if flags == 0 && node.Name != "version" && node.Name != "decode" {
			t.Errorf("%s has no flags that take a value?", node.Name)
		}
	}
}

// picky reports whether f accepts only some texts.
func picky(f *kong.Flag) bool {
	return f.IsBool() && f.Name != "help" && f.Name != "version" || f.Enum != "" || f.IsMap() || numeric(f.Value) ||
		f.Target.Type() == reflect.TypeFor[time.Duration]() || f.Target.Type() == reflect.TypeFor[byteSize]() || f.Target.Type() == reflect.TypeFor[brakeShare]()
}
