package cli

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// usageError turns an error of kong about args into a failure with a hint. bad is the value
// that kong stopped at, if it stopped at one.
func usageError(err error, args []string, bad *badValue) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if flag, line := misplaced(err, args); flag != "" {
		return misused(fmt.Errorf("%s comes before the command", flag), "flags come after it: %s", line)
	}
	command, missing := "", ""
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		if node := p.Context.Selected(); node != nil {
			command = " " + node.Name
			for _, arg := range node.Positional {
				if arg.Required && !arg.Set && missing == "" {
					missing = arg.ShortSummary()
				}
			}
		}
	}
	more := "hivebeat" + command + " --help lists the flags"
	if command == "" {
		more = "hivebeat --help lists the commands"
	}
	switch {
	case bad != nil:
		return bad.explain(err, more)
	case missing != "" && strings.HasPrefix(err.Error(), "expected "):
		return misused(fmt.Errorf("%s is missing", missing), "write hivebeat%s %s; %s", command, missing, more)
	}
	if command == "" && strings.HasPrefix(err.Error(), "expected ") {
		err = errors.New("a command is missing")
	}
	return misused(err, "%s", more)
}

// misplaced returns the flag that err reports as unknown because it comes before the
// command, and the corrected command line.
func misplaced(err error, args []string) (flag, line string) {
	p, ok := errors.AsType[*kong.ParseError](err)
	if !ok || p.Context == nil || p.Context.Selected() != nil || len(args) == 0 || !strings.HasPrefix(args[0], "-") || !strings.HasPrefix(err.Error(), "unknown flag ") {
		return "", ""
	}
	for i, arg := range args {
		for _, node := range p.Context.Model.Children {
			if node.Type == kong.CommandNode && node.Name == arg {
				flag, _, _ = strings.Cut(args[0], "=")
				return flag, shellLine(append(append([]string{"hivebeat", arg}, args[:i]...), args[i+1:]...))
			}
		}
	}
	return "", ""
}

// shellLine quotes args as a shell needs it.
func shellLine(args []string) string {
	out := make([]string, len(args))
	for i, arg := range args {
		if out[i] = arg; !plainWord.MatchString(arg) {
			out[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// badValue is a flag or an argument whose value cannot be used.
type badValue struct {
	of   *kong.Value
	text string // the text on the command line
	err  error  // why it cannot be used; nil: it is missing, and text, if any, looks like a flag
}

func (b *badValue) Error() string {
	switch {
	case b.err != nil:
		return b.err.Error()
	case b.text != "":
		return "the value is missing: " + b.text + " is read as a flag"
	}
	return "the value is missing"
}

// fromEnv finds the environment variable that kong took a value from.
var fromEnv = regexp.MustCompile(`\(from envar (\w+)=`)

// explain returns an error for people. err is kong's error about b; more is the command
// that prints more.
func (b *badValue) explain(err error, more string) error {
	if f, ok := errors.AsType[*failure](b.err); ok {
		return f // it names the flag, and what to do
	}
	if b.of.Flag == nil {
		return misused(b, "%s", more)
	}
	name := "--" + b.of.Name
	said, like := fmt.Errorf("%s: %w", name, b), name+" "+example(b.of)
	if env := fromEnv.FindStringSubmatch(err.Error()); env != nil {
		return misused(fmt.Errorf("%s: %w", env[1], b), "it sets %s: use something like %s=%s; %s", name, env[1], example(b.of), more)
	}
	switch {
	case b.err != nil && b.of.IsBool():
		return misused(said, "%s alone is true; %s", name, more)
	case b.err != nil:
		return misused(said, "use something like %s; %s", like, more)
	case b.text != "" && !strings.HasPrefix(b.text, "--"):
		return misused(said, "if it is the value, write %s=%s; %s", name, b.text, more)
	}
	return misused(said, "a value follows it, as in %s; %s", like, more)
}

// example returns a value that v accepts, or its placeholder in the help.
func example(v *kong.Value) string {
	switch {
	case v.IsBool():
		return "true"
	case v.Default != "":
		return v.Default
	case v.Enum != "":
		return v.EnumSlice()[0]
	case v.IsMap():
		return "zone=a"
	case numeric(v):
		return "20"
	}
	switch v.Target.Type() {
	case reflect.TypeFor[time.Duration]():
		return "30s"
	case reflect.TypeFor[byteSize]():
		return "20GiB"
	}
	return strings.Trim(v.Flag.FormatPlaceHolder(), `,."`)
}

// wrong says what is wrong with text, or with the value read from it. err is the error of
// the mapper.
func wrong(v *kong.Value, text string, read reflect.Value, err error) error {
	not := ""
	switch {
	case err == nil:
		if word, ok := outsider(v, read); ok {
			return fmt.Errorf("%.40q is not one of %s", word, joined(v.EnumSlice()))
		}
		return nil
	case v.IsBool():
		return fmt.Errorf("%.40q is neither true nor false", text)
	case v.Target.Type() == reflect.TypeFor[time.Duration]():
		not = "a duration; its units are h, m, s and ms"
	case v.IsMap():
		not = "of the form K=V"
	case !numeric(v):
		return err // sizes and shares have their own errors
	case elem(v).Kind() >= reflect.Uint:
		not = "a whole number of 0 or more"
	default:
		not = "a whole number"
	}
	return fmt.Errorf("%.40q is not %s", text, not)
}

// outsider returns a word of read that v does not accept.
func outsider(v *kong.Value, read reflect.Value) (word string, ok bool) {
	if v.Enum == "" {
		return "", false
	}
	words := []string{}
	if read.Kind() == reflect.Slice {
		for i := range read.Len() {
			words = append(words, read.Index(i).String())
		}
	} else {
		words = append(words, read.String())
	}
	for _, word := range words {
		if !slices.Contains(v.EnumSlice(), word) {
			return word, true
		}
	}
	return "", false
}

// numeric reports whether v takes a plain number.
func numeric(v *kong.Value) bool {
	t := elem(v)
	return t.PkgPath() == "" && t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

func elem(v *kong.Value) reflect.Type {
	t := v.Target.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// readValues is an option of kong that rewords errors about values for people, and stores
// in bad the value that it stopped at.
func readValues(bad **badValue) kong.Option {
	return kong.PostBuild(func(k *kong.Kong) error {
		return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
			if v, ok := node.(*kong.Value); ok {
				v.Mapper = reader(v, v.Mapper, bad)
			}
			return next(nil)
		})
	})
}

// reader returns a mapper that reads the value v with inner.
func reader(v *kong.Value, inner kong.Mapper, bad **badValue) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		token := ctx.Scan.Peek()
		if !token.IsValue() && !v.IsBool() {
			*bad = &badValue{of: v}
			if !token.IsEOL() {
				(*bad).text = token.String()
			}
			return *bad
		}
		err := inner.Decode(ctx, target)
		if err = wrong(v, token.String(), target, err); err != nil {
			*bad = &badValue{v, token.String(), err}
			return *bad
		}
		return nil
	}
}
