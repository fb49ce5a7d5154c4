package enginefile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
)

// keys has a function for each key that a mapping may have.
type keys map[string]func(n *yaml.Node, key string)

// resolve returns the node that an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// mapping reads a mapping whose keys are known.
func (r *reader) mapping(n *yaml.Node, at string, known keys) {
	r.pairs(n, at, func(k, v *yaml.Node, key string) {
		if read := known[k.Value]; read != nil {
			read(v, key)
			return
		}
		r.add(k.Line, key, "is not a key here%s", nearest(k.Value, slices.Sorted(maps.Keys(known))))
	})
}

// pairs calls fn for each key of a mapping with its value, and reports keys that are there twice.
func (r *reader) pairs(n *yaml.Node, at string, fn func(k, v *yaml.Node, key string)) {
	line := n.Line
	if n = resolve(n); n.Kind != yaml.MappingNode {
		r.add(line, at, "is %s, not keys with values", kindOf(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := k.Value
		if at != "" {
			key = at + "." + k.Value
		}
		if seen[k.Value] {
			r.add(k.Line, key, "is there twice")
			continue
		}
		seen[k.Value] = true
		fn(k, v, key)
	}
}

// list calls fn for each entry of a list.
func (r *reader) list(n *yaml.Node, at string, most int, fn func(n *yaml.Node, key string)) {
	line := n.Line
	if n = resolve(n); n.Kind != yaml.SequenceNode {
		r.add(line, at, "is %s, not a list", kindOf(n))
		return
	}
	if len(n.Content) > most {
		r.add(line, at, "has %d entries, at most %d are allowed", len(n.Content), most)
		return
	}
	for i, e := range n.Content {
		fn(e, fmt.Sprintf("%s[%d]", at, i))
	}
}

func (r *reader) has(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

// text reads a text of most bytes; 0 is any.
func (r *reader) text(n *yaml.Node, at string, most int) string {
	line := n.Line
	n = resolve(n)
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
		r.add(line, at, "is %s, not a text%s", kindOf(n), quoteHint(n))
	case n.Value == "":
		r.add(line, at, "is empty")
	case most > 0 && len(n.Value) > most:
		r.add(line, at, "has %d bytes, at most %d are allowed", len(n.Value), most)
	case !utf8.ValidString(n.Value):
		r.add(line, at, "is not UTF-8")
	default:
		return n.Value
	}
	return ""
}

// number reads a whole number from least to most.
func (r *reader) number(n *yaml.Node, at string, least, most uint64) uint64 {
	line := n.Line
	n = resolve(n)
	v, err := strconv.ParseUint(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil {
		r.add(line, at, "is %s, not a whole number", kindOf(n))
		return 0
	}
	if v < least || v > most {
		r.add(line, at, "is %d, not %d to %d", v, least, most)
		return 0
	}
	return v
}

// size reads bytes, as a number or with a unit.
func (r *reader) size(n *yaml.Node, at string) uint64 {
	line := n.Line
	n = resolve(n)
	v, err := show.ParseSize(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < 0 || uint64(v) > hivebeat.MaxInt {
		r.add(line, at, "is %s, not a size such as 40GiB", kindOf(n))
		return 0
	}
	return uint64(v)
}

// duration reads a time such as 5s from least to most.
func (r *reader) duration(n *yaml.Node, at string, least, most time.Duration) time.Duration {
	line := n.Line
	n = resolve(n)
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		r.add(line, at, "is %s, not a time such as 10s or 5m", kindOf(n))
		return 0
	}
	if d < least || d > most {
		r.add(line, at, "is %s, not %s to %s", d, least, most)
		return 0
	}
	return d
}

// kindOf describes a value.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "empty"
		}
		return fmt.Sprintf("%.40q", n.Value)
	}
	return "no value"
}

// quoteHint says how a number or true becomes a text.
func quoteHint(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		return ": put it in quotes"
	}
	return ""
}

// nearest says which key may be meant.
func nearest(word string, known []string) string {
	for _, k := range known {
		if near(word, k) {
			return "; " + k + " is"
		}
	}
	return "; these are: " + strings.Join(known, ", ")
}

// near reports whether a and b differ by one letter that is missing, added, changed or exchanged
// with its neighbour, or by case and underscores only.
func near(a, b string) bool {
	plain := func(s string) string { return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s)) }
	if a, b = plain(a), plain(b); a == b {
		return true
	}
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	x, y := a[i:], b[i:]
	if len(x) > 1 && len(y) > 1 && x[0] == y[1] && x[1] == y[0] && x[2:] == y[2:] {
		return true
	}
	return len(x) > 0 && len(y) > 0 && x[1:] == y[1:] || len(x) > 0 && x[1:] == y || len(y) > 0 && x == y[1:]
}
