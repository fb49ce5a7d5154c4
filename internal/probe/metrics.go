package probe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// The scanner below exists beside prometheus/common/expfmt, which go.mod has indirectly, because of
// cost: of the 565 samples in 66 KiB of vLLM's text, mostly buckets of histograms, a reading wants
// ten, and expfmt builds a message for each. It took 2.5 ms and 20,565 allocations of 729 kB, and
// this scanner 0.13 ms and 24 of 34 kB (BenchmarkScan, one core of 2026): for 40 engines every 10 s,
// 1 % of a core against 0.05 %. It is also tolerant: a line that it does not understand is
// skipped, since a reading that lacks one fact is better than none, and it reads no more than the
// limit of an answer.

// maxSample is the longest line that the scanner understands. Longer ones are skipped.
const maxSample = 32 << 10

// series collects the samples of one metric name whose labels match.
type series struct {
	name  string
	match []label // every one must match
	seen  bool
	// For gauges that describe a part of the engine each, such as the KV cache of each
	// data-parallel engine, the highest counts; for all others the sum.
	sum, high number
	each      func(labels []byte, v float64) // called for each sample; may be nil
}

// label is a condition on a label.
type label struct {
	name, value string
	orNone      bool // also matches where the label is missing
}

// metricSet is the metrics that one reading wants.
type metricSet struct {
	byName map[string][]*series
	prefix string // of the engine's own metrics; empty if it has none
	own    bool   // a name with that prefix was there
	other  string // the first name with the prefix of another engine
}

func newMetricSet(prefix string) *metricSet {
	return &metricSet{byName: make(map[string][]*series), prefix: prefix}
}

// want adds a metric.
func (s *metricSet) want(name string, match ...label) *series {
	w := &series{name: name, match: match}
	s.byName[name] = append(s.byName[name], w)
	return w
}

// alternatives are the names that versions of an engine gave to one metric, the newest first.
type alternatives []*series

func (s *metricSet) wantOne(names ...string) alternatives {
	var alt alternatives
	for _, name := range names {
		alt = append(alt, s.want(name))
	}
	return alt
}

// pick returns the first series that the engine has, or an empty one.
func (alt alternatives) pick() *series {
	for _, w := range alt {
		if w.seen {
			return w
		}
	}
	return &series{}
}

// prefixes are how engines begin the names of their metrics. TGI's and TensorRT-LLM's end with an
// underscore; some exporters write it in place of the colon of the others.
var prefixes = []struct {
	prefix string
	kind   Kind
}{
	{"vllm:", VLLM}, {"sglang:", SGLang}, {"llamacpp:", LlamaCPP}, {"tgi_", TGI}, {"trtllm_", TRTLLM},
}

// metrics asks for Prometheus text and fills set.
func (a *ask) metrics(path string, set *metricSet) error {
	return a.get(path, func(body io.Reader) error {
		if err := set.scan(body); err != nil {
			if errors.Is(err, errNoMetrics) {
				return answerError("%s: %v", where(path), err)
			}
			return err
		}
		return nil
	})
}

var errNoMetrics = errors.New("no Prometheus text")

// scan reads Prometheus text, version 0.0.4 or OpenMetrics. An empty text has no metric, which is
// no error: some engines create their metrics with the first request.
func (s *metricSet) scan(r io.Reader) error {
	in := bufio.NewReaderSize(r, maxSample)
	samples, first := 0, ""
	for {
		line, err := in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // too long: skip the rest of the line
			line = nil
			_, err = in.ReadSlice('\n')
		}
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0 || line[0] == '#':
		case s.sample(line):
			samples++
		case first == "":
			first = string(line[:min(len(line), 256)])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if first != "" && (samples == 0 || first[0] == '<' || first[0] == '{') {
		return fmt.Errorf("%w: %s", errNoMetrics, firstLine([]byte(first)))
	}
	return nil
}

// sample takes one line, and reports whether it is a sample.
func (s *metricSet) sample(line []byte) bool {
	end := 0
	for end < len(line) && nameByte(line[end]) {
		end++
	}
	if end == 0 || end == len(line) {
		return false
	}
	name, rest := line[:end], bytes.TrimLeft(line[end:], " \t")
	if len(rest) == 0 || len(rest) == len(line)-end && rest[0] != '{' {
		return false
	}
	wanted := s.byName[string(name)] // does not allocate
	if wanted == nil && rest[0] != '{' && strings.IndexByte("0123456789+-.NI", rest[0]) < 0 {
		return false // two words
	}
	s.notice(name)
	if wanted == nil {
		return true
	}
	var labels []byte
	if rest[0] == '{' {
		n := closing(rest)
		if n < 0 {
			return false
		}
		labels, rest = rest[1:n], bytes.TrimLeft(rest[n+1:], " \t")
	}
	// A timestamp or an exemplar may follow the value.
	if i := bytes.IndexAny(rest, " \t"); i >= 0 {
		rest = rest[:i]
	}
	v, err := strconv.ParseFloat(text(rest), 64)
	for _, w := range wanted {
		if !w.matches(labels) {
			continue
		}
		w.seen = true
		var n number
		n.set(v, err == nil)
		w.sum.sum(n)
		w.high.highest(n)
		if w.each != nil && n.ok {
			w.each(labels, v)
		}
	}
	return true
}

// text returns b as a string for the time of a call that does not keep it.
func text(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // ParseFloat copies what its error quotes
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':'
}

// notice remembers whose metrics these are.
func (s *metricSet) notice(name []byte) {
	switch {
	case s.own:
		return
	case s.prefix != "" && bytes.HasPrefix(name, []byte(s.prefix)):
		s.own = true
		return
	case s.other != "":
		return
	}
	for _, p := range prefixes {
		if bytes.HasPrefix(name, []byte(p.prefix)) {
			s.other = string(name)
			return
		}
	}
}

// closing returns the index of the brace that closes the labels that b begins with, or -1.
func closing(b []byte) int {
	quoted := false
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '}' && !quoted:
			return i
		}
	}
	return -1
}

func (w *series) matches(labels []byte) bool {
	for _, m := range w.match {
		v, ok := labelOf(labels, m.name)
		if ok && v != m.value || !ok && !m.orNone {
			return false
		}
	}
	return true
}

// labelOf returns the value of a label.
func labelOf(labels []byte, name string) (value string, ok bool) {
	for len(labels) > 0 {
		labels = bytes.TrimLeft(labels, " \t,")
		eq := bytes.IndexByte(labels, '=')
		if eq < 0 {
			return "", false
		}
		key := bytes.TrimSpace(labels[:eq])
		labels = bytes.TrimLeft(labels[eq+1:], " \t")
		if len(labels) == 0 || labels[0] != '"' {
			return "", false
		}
		end := 1
		for end < len(labels) && labels[end] != '"' {
			if labels[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(labels) {
			return "", false
		}
		if string(key) == name {
			return unescape(labels[1:end]), true
		}
		labels = labels[end+1:]
	}
	return "", false
}

var escapes = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n")

func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	return escapes.Replace(string(b))
}

// fieldsOf returns the entries of a label that is a list with commas.
func fieldsOf(labels []byte, name string) (fields []string) {
	list, _ := labelOf(labels, name)
	for field := range strings.SplitSeq(list, ",") {
		if field = strings.TrimSpace(field); field != "" {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}

// numberOf returns the value of a label as a number.
func numberOf(labels []byte, name string) (n number) {
	if v, ok := labelOf(labels, name); ok {
		f, err := strconv.ParseFloat(v, 64)
		n.set(f, err == nil)
		n.bad = false // "None" is an honest answer
	}
	return n
}
