package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Selector is a parsed label selector. The zero Selector matches everything.
type Selector struct{ needs []Requirement }

// Requirement is one requirement of a Selector.
type Requirement struct {
	Key    string
	Op     Op
	Values []string // sorted, without duplicates; none for OpHas and OpHasNot
}

// Op is the operator of a Requirement.
type Op string

// Ops.
const (
	OpIn     Op = "in"     // the value is one of Values; also stands for =
	OpNotIn  Op = "notin"  // the value is none of Values, or there is no such label; also stands for !=
	OpHas    Op = "has"    // there is such a label
	OpHasNot Op = "hasnot" // there is no such label
)

// Limits of a selector.
const (
	maxSelector = 4096 // bytes
	maxNeeds    = 64
)

// ParseSelector parses a label selector in the Kubernetes syntax: requirements
// separated by commas, all of which must be met.
//
//	key=value  key==value  key!=value  key in (a,b)  key notin (a,b)  key  !key
//
// A label that does not exist also meets != and notin. Space around words is ignored.
// Keys and values are any text without space and , ( ) = !, and a value may be empty.
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

// Empty reports whether s matches everything.
func (s Selector) Empty() bool { return len(s.needs) == 0 }

// Requirements returns all requirements. The caller must not modify them.
func (s Selector) Requirements() []Requirement { return s.needs }

// Fits reports whether labels meet all requirements. get returns the value of a label,
// and whether there is one.
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

// selectorParser splits a selector into words and the signs , ( ) = == != and !.
type selectorParser struct {
	rest string
	at   string // the input from the last token on
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

// place describes, for people, where the last token was.
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
