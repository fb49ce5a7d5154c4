// Package prose checks the English of Go comments and Markdown pages. It counts marks: words
// and turns that make a text sound translated, or that this project does not use. A single
// mark can be right. Many of them make a text hard to read, so their number is limited.
package prose_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root  = "../.." // of the module, relative to this package
	limit = 3.0     // marks per 1,000 words, over all Go comments and over all Markdown pages
	worst = 20      // files and lines in the report
)

// mark is one kind of mark, with a hint for the writer.
type mark struct {
	name, hint string
	find       *regexp.Regexp
	but        *regexp.Regexp // matches of find that also match this are right
}

// newMark compiles a mark. A space in find stands for any white space.
func newMark(name, find, hint string) mark {
	return mark{name: name, hint: hint, find: regexp.MustCompile(`(?i)\b(?:` + strings.ReplaceAll(find, " ", `\s+`) + `)`)}
}

// except returns m without the matches that contain this.
func (m mark) except(this string) mark {
	m.but = regexp.MustCompile(`(?i)` + strings.ReplaceAll(this, " ", `\s+`))
	return m
}

var marks = []mark{
	newMark("can not", `can not\b`, "cannot"),
	newMark("anew", `anew\b`, "again"),
	newMark("a pronoun for people", `(?:nobody|somebody|anybody|everybody|whoever|whomever|whom|whose turn|he|she|him|his|hers?)\b`, "a program is it: name the worker, hive, queen or client"),
	newMark("who", `(?:[\w-]+[,:;]? )?who\b`, "a program is it: that, which").except(`\b(?:people|person|operators?|users?|maintainers?|readers?|writers?|someone|anyone|those|you|authors?|reporters?),? who`),
	newMark("tell", `(?:tells?|told|telling)\b`, "report, say, show, distinguish"),
	newMark("what is", `what (?:is|was|are|were|it|they|comes?|came|has|had|became|becomes?|follows|waits|remains|every|each|another|other)\b`, "name the thing").except(`what (?:is|are) (?:wrong|new|this|it)\b`),
	newMark("all that", `all that (?:is|was|are|it|they|has|had|waits?|comes?|came|can|a|the|one)\b`, "everything, or name the things"),
	newMark("is to be done", `(?:is|are|was|were) to be \w+`, "must be, will be"),
	newMark("one's to do", `(?:is|are) (?:ours|yours|theirs|\w+'s) to \w+`, "it must, it may"),
	newMark("so long", `(?:for as|for so|as|so) long(?: as)?\b`, "while, until, or a time").except(`as long as (?:it|the)\b`),
	newMark("go on", `(?:go|goes|went|gone|going) on(?:[.,;:]| (?:from|in|with|as|until|for|and)\b)`, "continue"),
	newMark("of such", `of (?:which|whom|such|those|which each)\b`, "whose, or a second sentence").except(`(?:one|each|all|some|most|none|many|both|part|half|two|three) of (?:which|those)`),
	newMark("by which", `(?:by|for|from|through|after|over|out of|beside) which\b`, "a second sentence, or that"),
	newMark("trailing then", `then[.;]`, "say when"),
	newMark("no more", `(?:no|any) more(?:[.,;:)]|$)`, "no longer, any longer"),
	newMark("but for", `(?:but|save) for (?:the|a|an|that|its|one)\b`, "except"),
	newMark("of before", `of (?:before|since)(?:[.,;:)]| and\b| the\b)`, "earlier, later, or a time"),
	newMark("takes for", `(?:take|takes|took|taken) (?:it|itself|themselves|one|them) for\b`, "believe, treat as"),
	newMark("of its own accord", `(?:of|by) (?:its|their) own (?:accord|making|will)\b`, "by itself"),
	newMark("a word that we dropped", `(?:wards?|seats?|tellers?|orphans?|sightings?|tally|tallies|bury|buries|buried)\b`, "a word of docs/GLOSSARY.md"),
}

// block is one comment, or one paragraph of a page.
type block struct {
	line int
	text string
}

// hit is a mark in a file.
type hit struct {
	file string
	line int
	mark *mark
	text string // the line that it is in
}

// count is the number of words and marks in a text.
type count struct{ words, marks int }

func (c count) rate() float64 { return 1000 * float64(c.marks) / float64(max(c.words, 1)) }

func TestProse(t *testing.T) {
	kinds := map[string]*count{".go": {}, ".md": {}}
	files := make(map[string]count)
	var hits []hit
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (name[0] == '.' || name == "testdata" || name == "bin" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		kind := kinds[filepath.Ext(path)]
		if kind == nil || !d.Type().IsRegular() {
			return nil
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if name == "internal/prose/prose_test.go" { // it quotes the marks
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		blocks, err := read(name, src)
		if err != nil {
			return err
		}
		n := count{}
		for _, b := range blocks {
			n.words += len(strings.Fields(b.text))
			hits = append(hits, find(name, b, &n.marks)...)
		}
		kind.words, kind.marks = kind.words+n.words, kind.marks+n.marks
		files[name] = n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for ext, kind := range kinds {
		t.Logf("%s: %.1f marks per 1,000 of %d words; the limit is %.1f", ext, kind.rate(), kind.words, limit)
		if kind.rate() > limit {
			t.Errorf("%s: too many marks of translated English\n%s", ext, report(ext, files, hits))
		}
	}
	if testing.Verbose() {
		t.Logf("\n%s\n%s", report(".go", files, hits), report(".md", files, hits))
	}
}

// read returns the blocks of a file.
func read(name string, src []byte) ([]block, error) {
	if strings.HasSuffix(name, ".md") {
		return paragraphs(string(src)), nil
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil || ast.IsGenerated(f) {
		return nil, err
	}
	var blocks []block
	for _, g := range f.Comments {
		for _, c := range g.List {
			text := strings.TrimPrefix(c.Text, "//")
			switch line := set.Position(c.Pos()).Line; {
			case strings.HasPrefix(text, "/*"), strings.HasPrefix(text, "\t"): // a diagram, or code
			case directive.MatchString(text):
			case len(blocks) > 0 && c != g.List[0]: // blank lines end no sentence
				blocks[len(blocks)-1].text += "\n" + text
			default:
				blocks = append(blocks, block{line, text})
			}
		}
	}
	return blocks, nil
}

var (
	directive = regexp.MustCompile(`^(?:[a-z]+:[a-z]|nolint|export )`)
	code      = regexp.MustCompile("`[^`]*`")
	target    = regexp.MustCompile(`\]\([^)]*\)`)
)

// paragraphs returns the text of a page without code and the targets of links. Blocks keep their
// lines.
func paragraphs(page string) (blocks []block) {
	fenced, open := false, false
	for i, line := range strings.Split(page, "\n") {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "```") {
			fenced, open = !fenced, false
			continue
		}
		if fenced || trimmed == "" {
			open = false
			continue
		}
		line = target.ReplaceAllString(code.ReplaceAllString(line, "X"), "]")
		if open {
			blocks[len(blocks)-1].text += "\n" + line
			continue
		}
		blocks, open = append(blocks, block{i + 1, line}), true
	}
	return blocks
}

// find returns the marks in b, and adds their number to n.
func find(file string, b block, n *int) (hits []hit) {
	lines := strings.Split(b.text, "\n")
	for i := range marks {
		m := &marks[i]
		for _, at := range m.find.FindAllStringIndex(b.text, -1) {
			if m.but != nil && m.but.MatchString(around(b.text, at)) {
				continue
			}
			line := strings.Count(b.text[:at[0]], "\n")
			hits = append(hits, hit{file, b.line + line, m, strings.TrimSpace(lines[line])})
		}
	}
	*n += len(hits)
	return hits
}

// around returns the match with the word before it and the word after it.
func around(text string, at []int) string {
	from := strings.LastIndexAny(strings.TrimRight(text[:at[0]], " \n"), " \n") + 1
	to := len(text)
	if after := strings.TrimLeft(text[at[1]:], " \n"); after != "" {
		to -= len(after)
		if end := strings.IndexAny(after, " \n"); end >= 0 {
			to += end
		} else {
			to = len(text)
		}
	}
	return text[from:to]
}

// report lists the files with the highest rates, and the lines with most marks in them.
func report(ext string, files map[string]count, hits []hit) string {
	var b strings.Builder
	names := slices.SortedFunc(maps.Keys(files), func(x, y string) int {
		return cmp.Or(cmp.Compare(files[y].rate(), files[x].rate()), cmp.Compare(x, y))
	})
	shown := 0
	for _, name := range names {
		if n := files[name]; strings.HasSuffix(name, ext) && n.words >= 100 && n.marks > 1 && shown < worst {
			fmt.Fprintf(&b, "%7.1f  %s (%d words)\n", n.rate(), name, n.words)
			shown++
		}
	}
	type place struct {
		file string
		line int
	}
	lines := make(map[place][]hit)
	for _, h := range hits {
		if strings.HasSuffix(h.file, ext) {
			lines[place{h.file, h.line}] = append(lines[place{h.file, h.line}], h)
		}
	}
	places := slices.SortedFunc(maps.Keys(lines), func(x, y place) int {
		return cmp.Or(cmp.Compare(len(lines[y]), len(lines[x])), cmp.Compare(files[y.file].rate(), files[x.file].rate()),
			cmp.Compare(x.file, y.file), cmp.Compare(x.line, y.line))
	})
	for _, p := range places[:min(worst, len(places))] {
		fmt.Fprintf(&b, "%s:%d: %s\n", p.file, p.line, lines[p][0].text)
		for _, h := range lines[p] {
			fmt.Fprintf(&b, "\t%s → %s\n", h.mark.name, h.mark.hint)
		}
	}
	return b.String()
}

// TestMarks shows what counts as a mark, and what does not.
func TestMarks(t *testing.T) {
	for _, c := range []struct {
		name, src string
		want      string // the marks, with their lines
	}{
		{"a.go", "// Package a can\n// not do that anew.\npackage a\n", "1 can not, 2 anew"},
		{"a.go", "package a\n\n// A hive who tells nobody.\nvar x int // it waits then.\n", "3 a pronoun for people, 3 who, 3 tell, 4 trailing then"},
		{"a.go", "package a\n\n// For people who read: whoever.\n", "3 a pronoun for people"},
		{"a.go", "package a\n\n//nolint:x // told\n//\n//\ttold in a diagram\n/* told */ var x = \"told\"\n", ""},
		{"a.go", "// Code generated by x. DO NOT EDIT.\n\npackage a\n\n// told\n", ""},
		{"a.md", "One is\ntold `told` [told](told.md).\n\n```\ntold\n```\n\n| cell | told |\n", "2 tell, 2 tell, 8 tell"},
		{"a.md", "What is wrong with it? One of those. It goes on. It depends on what comes.", "1 what is, 1 go on"},
	} {
		blocks, err := read(c.name, []byte(c.src))
		if err != nil {
			t.Errorf("%q: %v", c.src, err)
			continue
		}
		var got []string
		n := 0
		for _, b := range blocks {
			for _, h := range find(c.name, b, &n) {
				got = append(got, fmt.Sprint(h.line, " ", h.mark.name))
			}
		}
		if s := strings.Join(got, ", "); s != c.want || n != len(got) {
			t.Errorf("%q: marks %q (%d), want %q", c.src, s, n, c.want)
		}
	}
}
