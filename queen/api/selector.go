package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Selector is a parsed label selector. The zero Selector fits everything.
type Selector struct{ needs []Requirement }

// Requirement is one of those that a Selector has.
type Requirement struct {
	Key    string
	Op     Op
	Values []string // each once, in order; none for OpHas and OpHasNot
}

// Op is what a Requirement asks of a label.
type Op string

// Ops.
const (
	OpIn     Op = "in"     // one of Values: = is this too
	OpNotIn  Op = "notin"  // none of Values, or there is no such label: != is this too
	OpHas    Op = "has"    // there is such a label
	OpHasNot Op = "hasnot" // there is none
)

// Limits of a selector.
const (
	maxSelector = 4096 // bytes
	maxNeeds    = 64
)

// ParseSelector reads a label selector as Kubernetes writes it, of requirements
// that all have to be met, with a comma between them:
//
//	key=value  key==value  key!=value  key in (a,b)  key notin (a,b)  key  !key
//
// What is unequal or notin is met by those too that have no such label. Space
// around words is ignored. Keys and values are any text without space and
// , ( ) = !, and a value may be empty.
func ParseSelector(s string) (Selector, error) {
	if len(s) > maxSelector {
		return Selector{}, fmt.Errorf("selector: %d bytes are too many, the limit is %d", len(s), maxSelector)
	}
	p := selectorParser{rest: s}
	var sel Selector
	if p.peek() == "" {
		return sel, nil
	}
	for {
		n, err := p.need()
		if err != nil {
			return Selector{}, fmt.Errorf("selector: %w at %s", err, p.place())
		}
		sel.needs = append(sel.needs, n)
		if len(sel.needs) > maxNeeds {
			return Selector{}, fmt.Errorf("selector: more than %d requirements", maxNeeds)
		}
		switch p.next() {
		case "":
			return sel, nil
		case ",":
		default:
			return Selector{}, fmt.Errorf("selector: a comma is missing at %s", p.place())
		}
	}
}

// Empty reports whether everything fits.
func (s Selector) Empty() bool { return len(s.needs) == 0 }

// Requirements returns all of them, which are not to be changed.
func (s Selector) Requirements() []Requirement { return s.needs }

// Fits reports whether labels meet all requirements. get returns the value of a
// label, and whether there is one.
func (s Selector) Fits(get func(key string) (string, bool)) bool {
	for i := range s.needs {
		n := &s.needs[i]
		v, ok := get(n.Key)
		switch n.Op {
		case OpHas:
		case OpHasNot:
			ok = !ok
		case OpIn:
			ok = ok && slices.Contains(n.Values, v)
		default:
			ok = !ok || !slices.Contains(n.Values, v)
		}
		if !ok {
			return false
		}
	}
	return true
}

// selectorParser takes a selector apart: into words, and the signs , ( ) = == !=
// and !.
type selectorParser struct {
	rest string
	at   string // what the last token began with
}

const signs = ",()=!"

func (p *selectorParser) next() string {
	p.rest = strings.TrimLeft(p.rest, " \t")
	p.at = p.rest
	n := 0
	switch {
	case p.rest == "":
	case strings.HasPrefix(p.rest, "=="), strings.HasPrefix(p.rest, "!="):
		n = 2
	case strings.IndexByte(signs, p.rest[0]) >= 0:
		n = 1
	default:
		if n = strings.IndexAny(p.rest, signs+" \t"); n < 0 {
			n = len(p.rest)
		}
	}
	tok := p.rest[:n]
	p.rest = p.rest[n:]
	return tok
}

// place says for people where the last token was.
func (p *selectorParser) place() string {
	if p.at == "" {
		return "its end"
	}
	return strconv.Quote(p.at)
}

func (p *selectorParser) peek() string {
	saved := *p
	tok := p.next()
	*p = saved
	return tok
}

func isWord(tok string) bool { return tok != "" && strings.IndexByte(signs, tok[0]) < 0 }

func (p *selectorParser) need() (Requirement, error) {
	tok := p.next()
	if tok == "!" {
		if tok = p.next(); !isWord(tok) {
			return Requirement{}, fmt.Errorf("a label is missing")
		}
		return Requirement{Key: tok, Op: OpHasNot}, nil
	}
	if !isWord(tok) {
		return Requirement{}, fmt.Errorf("a label is missing")
	}
	n := Requirement{Key: tok, Op: OpHas}
	switch p.peek() {
	case "", ",":
		return n, nil
	}
	switch op := p.next(); op {
	case "=", "==", "!=":
		n.Op = OpIn
		if op == "!=" {
			n.Op = OpNotIn
		}
		value := ""
		if isWord(p.peek()) {
			value = p.next()
		}
		n.Values = []string{value}
		return n, nil
	case "in", "notin":
		n.Op = Op(op)
		if p.next() != "(" {
			return Requirement{}, fmt.Errorf("( is missing")
		}
		for {
			value := ""
			if isWord(p.peek()) {
				value = p.next()
			}
			n.Values = append(n.Values, value)
			switch p.next() {
			case ")":
				slices.Sort(n.Values)
				n.Values = slices.Compact(n.Values)
				return n, nil
			case ",":
			default:
				return Requirement{}, fmt.Errorf(") is missing")
			}
		}
	}
	return Requirement{}, fmt.Errorf("no operator")
}
