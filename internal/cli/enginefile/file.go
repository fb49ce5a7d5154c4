// Package enginefile reads the file of "hivebeat sidecar --config": which engines to beat for.
// It is strict: a key that it does not know, or a value that cannot be meant, is an error with
// its line and key, and nothing of the file is used.
package enginefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/worker"
)

// Limits of a file.
const (
	MaxBytes   = 1 << 20
	MaxEngines = 1000
)

// MinStall is the least stall_after: an engine shows no progress while it reads a long prompt.
const MinStall = 5 * time.Minute

// Engine is one entry of a file.
type Engine struct {
	// Worker has ID, Model, Endpoint, Slots, GPUs, Need and Labels.
	Worker worker.Config
	// Probe says how to read the engine; nil: only its process is followed.
	Probe *probe.Config
	// Attach says which process it is; zero: unknown.
	Attach Attach
	// Line is where the entry begins.
	Line int
}

// Version tells one entry from another: it is the same if nothing but its place in the file is
// different.
func (e *Engine) Version() string {
	text := fmt.Sprintf("%+v %+v", e.Worker, e.Attach)
	if e.Probe != nil {
		text += fmt.Sprintf(" %+v", *e.Probe)
	}
	return text
}

// Attach names the process of an engine. At most one field is set.
type Attach struct {
	PID     uint64
	PIDFile string
	Port    uint16
	Unit    string
}

// IsZero reports whether a names no process.
func (a Attach) IsZero() bool { return a == Attach{} }

// String says which process, for people.
func (a Attach) String() string {
	switch {
	case a.PID != 0:
		return fmt.Sprintf("pid %d", a.PID)
	case a.PIDFile != "":
		return "pid file " + a.PIDFile
	case a.Port != 0:
		return fmt.Sprintf("port %d", a.Port)
	case a.Unit != "":
		return "unit " + a.Unit
	}
	return "unknown process"
}

// Problem is a fault of a file.
type Problem struct {
	File string
	Line int    // 0: the file as a whole
	Key  string // such as engines[2].probe.kind; may be empty
	What string
}

func (p *Problem) Error() string {
	at := p.File
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Key != "" {
		at += ": " + p.Key
	}
	return at + ": " + p.What
}

// Parse reads a file. The error joins a [*Problem] for each fault, in the order of lines.
func Parse(name string, b []byte) ([]Engine, error) {
	r := reader{file: name}
	if len(b) > MaxBytes {
		r.add(0, "", "has %d bytes, at most %d are allowed", len(b), MaxBytes)
		return nil, r.err()
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.add(0, "", "is empty: it needs a list \"engines\"")
		return nil, r.err()
	case err != nil:
		r.syntax(err)
		return nil, r.err()
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		r.add(more.Line, "", "has a second document")
		return nil, r.err()
	}
	var list []Engine
	r.mapping(doc.Content[0], "", keys{"engines": func(n *yaml.Node, key string) {
		r.list(n, key, MaxEngines, func(n *yaml.Node, key string) { list = append(list, r.engine(n, key)) })
	}})
	if len(list) == 0 && len(r.problems) == 0 {
		r.add(doc.Content[0].Line, "engines", "is empty")
	}
	r.twice(list)
	if err := r.err(); err != nil {
		return nil, err
	}
	return list, nil
}

// reader collects the faults of a file.
type reader struct {
	file     string
	problems []*Problem
}

func (r *reader) add(line int, key, what string, args ...any) {
	r.problems = append(r.problems, &Problem{r.file, line, key, fmt.Sprintf(what, args...)})
}

// syntax reports what the YAML parser says, which has the line in its text.
func (r *reader) syntax(err error) {
	what, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if _, scanErr := fmt.Sscanf(what, "line %d:", &line); scanErr == nil {
		_, what, _ = strings.Cut(what, ": ")
	}
	r.add(line, "", "is not YAML: %s", what)
}

func (r *reader) err() error {
	slices.SortStableFunc(r.problems, func(a, b *Problem) int { return a.Line - b.Line })
	errs := make([]error, len(r.problems))
	for i, p := range r.problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// engine reads one entry.
func (r *reader) engine(n *yaml.Node, at string) Engine {
	e := Engine{Line: n.Line}
	w := &e.Worker
	w.Labels = map[string]string{}
	r.mapping(n, at, keys{
		"id": func(n *yaml.Node, key string) {
			if w.ID = r.text(n, key, 0); w.ID != "" && !hivebeat.ValidID(w.ID) {
				r.add(n.Line, key, "%q is no id: 1 to %d of A-Z a-z 0-9 _ -", w.ID, hivebeat.MaxID)
			}
		},
		"model":    func(n *yaml.Node, key string) { w.Model = r.text(n, key, hivebeat.MaxModel) },
		"endpoint": func(n *yaml.Node, key string) { w.Endpoint = r.text(n, key, hivebeat.MaxEndpoint) },
		"slots":    func(n *yaml.Node, key string) { w.Slots = r.number(n, key, 1, hivebeat.MaxInt) },
		"need":     func(n *yaml.Node, key string) { w.Need = r.size(n, key) },
		"gpus": func(n *yaml.Node, key string) {
			r.list(n, key, hivebeat.MaxGPUs, func(n *yaml.Node, key string) { w.GPUs = append(w.GPUs, r.text(n, key, hivebeat.MaxGPUID)) })
		},
		"labels": func(n *yaml.Node, key string) { r.labels(n, key, w.Labels) },
		"probe":  func(n *yaml.Node, key string) { e.Probe = r.probe(n, key) },
		"attach": func(n *yaml.Node, key string) { e.Attach = r.attach(n, key) },
		"stall_after": func(n *yaml.Node, key string) {
			if d := r.duration(n, key, MinStall, 24*time.Hour); d > 0 {
				w.Labels[detector.StallLabel] = d.String()
			}
		},
	})
	if len(w.Labels) > hivebeat.MaxLabels {
		r.add(n.Line, at+".labels", "has %d labels with that of stall_after, at most %d are allowed", len(w.Labels), hivebeat.MaxLabels)
	}
	if n.Kind == yaml.MappingNode && w.ID == "" && !r.has(n, "id") {
		r.add(n.Line, at, "has no id")
	}
	if e.Probe == nil && e.Attach.IsZero() && n.Kind == yaml.MappingNode && !r.has(n, "probe") && !r.has(n, "attach") {
		r.add(n.Line, at, "has neither probe nor attach: there is nothing to watch")
	}
	return e
}

// twice reports ids that two engines have.
func (r *reader) twice(list []Engine) {
	first := map[string]int{}
	for i, e := range list {
		if line, ok := first[e.Worker.ID]; ok && e.Worker.ID != "" {
			r.add(e.Line, fmt.Sprintf("engines[%d].id", i), "%q is that of the engine in line %d too", e.Worker.ID, line)
			continue
		}
		first[e.Worker.ID] = e.Line
	}
}

func (r *reader) labels(n *yaml.Node, at string, into map[string]string) {
	r.pairs(n, at, func(k, v *yaml.Node, key string) {
		if k.Value == "" || len(k.Value) > hivebeat.MaxLabelKey {
			r.add(k.Line, key, "a label has a name of 1 to %d bytes", hivebeat.MaxLabelKey)
			return
		}
		into[k.Value] = r.text(v, key, hivebeat.MaxLabelVal)
	})
}

func (r *reader) attach(n *yaml.Node, at string) (a Attach) {
	r.mapping(n, at, keys{
		"pid":      func(n *yaml.Node, key string) { a.PID = r.number(n, key, 1, 1<<31-1) },
		"pid_file": func(n *yaml.Node, key string) { a.PIDFile = r.text(n, key, 4096) },
		"port":     func(n *yaml.Node, key string) { a.Port = uint16(r.number(n, key, 1, 65535)) },
		"unit":     func(n *yaml.Node, key string) { a.Unit = r.text(n, key, 255) },
	})
	switch n := resolve(n); {
	case n.Kind != yaml.MappingNode || len(n.Content) == 2:
	case len(n.Content) == 0:
		r.add(n.Line, at, "needs one of pid, pid_file, port and unit")
	default:
		r.add(n.Line, at, "has more than one of pid, pid_file, port and unit: keep one")
	}
	return a
}

// probe reads how an engine is read. What package probe finds wrong is reported at the key that
// it names.
func (r *reader) probe(n *yaml.Node, at string) *probe.Config {
	before := len(r.problems)
	var c probe.Config
	lines := map[string]*yaml.Node{}
	see := func(field string, set func(n *yaml.Node, key string)) func(*yaml.Node, string) {
		return func(n *yaml.Node, key string) { lines[field] = n; set(n, key) }
	}
	r.mapping(n, at, keys{
		"kind":       see("Kind", func(n *yaml.Node, key string) { c.Kind = probe.Kind(r.text(n, key, 64)) }),
		"url":        see("URL", func(n *yaml.Node, key string) { c.URL = r.text(n, key, hivebeat.MaxEndpoint) }),
		"every":      see("Every", func(n *yaml.Node, key string) { c.Every = r.duration(n, key, hivebeat.MinEvery, hivebeat.MaxEvery) }),
		"timeout":    see("Timeout", func(n *yaml.Node, key string) { c.Timeout = r.duration(n, key, time.Millisecond, hivebeat.MaxEvery) }),
		"token_file": see("TokenFile", func(n *yaml.Node, key string) { c.TokenFile = r.text(n, key, 4096) }),
		"ca_file":    see("CAFile", func(n *yaml.Node, key string) { c.CAFile = r.text(n, key, 4096) }),
		"map": see("Mapping", func(n *yaml.Node, key string) {
			known := keys{}
			for name, into := range mappings(&c.Mapping) {
				known[name] = func(n *yaml.Node, key string) { lines["Mapping."+into.field] = n; *into.to = r.text(n, key, 512) }
			}
			r.mapping(n, key, known)
		}),
	})
	if len(r.problems) > before {
		return &c
	}
	p, err := probe.New(c)
	if err == nil {
		p.Close()
		return &c
	}
	field, what, _ := strings.Cut(strings.TrimPrefix(err.Error(), "probe: Config."), ": ")
	line, key := n.Line, at
	if at := lines[field]; at != nil {
		line = at.Line
	}
	if name := fieldKey(field, &c.Mapping); name != "" {
		key += "." + name
	}
	r.add(line, key, "%s", what)
	return &c
}

type mapEntry struct {
	field string
	to    *string
}

// mappings are the keys of probe.map.
func mappings(m *probe.Mapping) map[string]mapEntry {
	return map[string]mapEntry{
		"state": {"State", &m.State}, "model": {"Model", &m.Model}, "version": {"Version", &m.Version},
		"slots": {"Slots", &m.Slots}, "busy": {"Busy", &m.Busy}, "queue": {"Queue", &m.Queue},
		"done": {"Done", &m.Done}, "tokens": {"Tokens", &m.Tokens},
		"kv": {"KV", &m.KV}, "kv_cap": {"KVCap", &m.KVCap}, "ctx": {"Context", &m.Context},
	}
}

// fieldKey returns the key in a file of a field of probe.Config.
func fieldKey(field string, m *probe.Mapping) string {
	if sub, ok := strings.CutPrefix(field, "Mapping."); ok {
		for name, e := range mappings(m) {
			if e.field == sub {
				return "map." + name
			}
		}
	}
	return map[string]string{
		"Kind": "kind", "URL": "url", "Every": "every", "Timeout": "timeout", "TokenFile": "token_file", "CAFile": "ca_file", "Mapping": "map",
	}[field]
}
