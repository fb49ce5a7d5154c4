package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Mapping says where each fact is in the answer of an engine that this package does not know. An
// empty entry is a fact that the answer does not have.
//
// For [HTTP] an entry is a path of keys and indices with dots between them, such as
// data.0.status. State is one of the words that [Reading] has, or ok, healthy, up, running, idle
// or true for ready, and waiting, starting or initializing for loading; any other word is degraded.
//
// For [Prometheus] an entry is a metric with optional labels, such as queue{engine="0"}. The
// samples that match are summed; of KV the highest counts. State is a metric that is 0 while the
// engine is not ready. Model and Version are texts, so they name a label too: app_info.version is
// the label version of app_info. Triton, for example, is read at its port 8002 with Queue
// nv_inference_pending_request_count and Done nv_inference_request_success
// (docs/user_guide/metrics.md @e1db8a60).
type Mapping struct {
	State, Model, Version            string
	Slots, Busy, Queue, Done, Tokens string
	KV, KVCap, Context               string
}

// entry is a part of a Mapping with its name.
type entry struct {
	field, at string
	text      bool // for Prometheus: a label
}

func (m Mapping) entries() []entry {
	return []entry{
		{"State", m.State, false},
		{"Model", m.Model, true},
		{"Version", m.Version, true},
		{"Slots", m.Slots, false},
		{"Busy", m.Busy, false},
		{"Queue", m.Queue, false},
		{"Done", m.Done, false},
		{"Tokens", m.Tokens, false},
		{"KV", m.KV, false},
		{"KVCap", m.KVCap, false},
		{"Context", m.Context, false},
	}
}

func (m Mapping) validate(kind Kind) error {
	some := false
	for _, e := range m.entries() {
		if e.at == "" {
			continue
		}
		some = true
		if kind == Prometheus {
			if _, _, err := selector(e); err != nil {
				return fmt.Errorf("probe: Config.Mapping.%s: %w", e.field, err)
			}
		}
	}
	if kind == Prometheus && !some {
		return fmt.Errorf("probe: Config.Mapping: kind prometheus needs at least one metric")
	}
	return nil
}

// selector parses an entry for Prometheus: the metric with its conditions, and the label that has the text.
func selector(e entry) (want series, of string, err error) {
	at := strings.TrimSpace(e.at)
	name, labels, braces := strings.Cut(at, "{")
	if braces {
		end := closing([]byte("{" + labels))
		if end < 0 {
			return want, "", fmt.Errorf("%q: the brace is not closed", e.at)
		}
		labels, of = labels[:end-1], labels[end:]
	} else if i := strings.IndexByte(name, '.'); i >= 0 {
		name, of = name[:i], name[i:]
	}
	if name == "" || strings.IndexFunc(name, func(c rune) bool { return c > 127 || !nameByte(byte(c)) }) >= 0 {
		return want, "", fmt.Errorf("%q: %q is no name of a metric", e.at, name)
	}
	of, dot := strings.CutPrefix(of, ".")
	switch {
	case e.text && (!dot || of == ""):
		return want, "", fmt.Errorf("%q: a text is in a label: write %s.label", e.at, name)
	case !e.text && (dot || of != ""):
		return want, "", fmt.Errorf("%q: text after the metric", e.at)
	}
	want.name = name
	for rest := []byte(labels); len(bytes.TrimLeft(rest, " ,")) > 0; {
		key, _, ok := bytes.Cut(rest, []byte("="))
		k := string(bytes.Trim(key, " ,"))
		v, found := labelOf(rest, k)
		if !ok || !found {
			return want, "", fmt.Errorf("%q: labels are name=\"value\" with commas between them", e.at)
		}
		want.match = append(want.match, label{name: k, value: v})
		rest = rest[len(key)+1:]
		rest = rest[1+closingQuote(rest[1:])+1:]
	}
	return want, of, nil
}

// closingQuote returns the index of the quote that ends the value that b begins with.
func closingQuote(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(b) - 1
}

// json reads an answer in JSON.
func (a *ask) json(r *Reading) error {
	var all any
	if err := a.decode("", &all); err != nil {
		return err
	}
	m := a.p.cfg.Mapping
	value := func(at string) any { return lookup(all, at) }
	num := func(at string) (n number) {
		switch v := value(at).(type) {
		case float64:
			n.set(v, true)
		case string:
			f, err := strconv.ParseFloat(v, 64)
			n.set(f, err == nil)
		case []any: // a list of what runs or waits
			n.set(float64(len(v)), true)
		}
		return n
	}
	r.Busy, r.Queue, r.Done, r.Tokens = a.count(num(m.Busy)), a.count(num(m.Queue)), a.count(num(m.Done)), a.count(num(m.Tokens))
	r.Slots, r.KVCap, r.Context = a.positive(num(m.Slots)), a.positive(num(m.KVCap)), a.positive(num(m.Context))
	r.KV = a.share(num(m.KV))
	if name, ok := value(m.Model).(string); ok && name != "" {
		r.Models = []Model{{Name: name, Loaded: true}}
	}
	r.Version, _ = value(m.Version).(string)
	if m.State != "" {
		v := value(m.State)
		if v == nil {
			return answerError("no %s, which Mapping.State names", m.State)
		}
		r.State, r.Reason = stateOf(v)
	}
	return nil
}

// lookup follows a path through decoded JSON. It returns nil if there is nothing.
func lookup(v any, at string) any {
	if at == "" {
		return nil
	}
	for key := range strings.SplitSeq(at, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

// stateOf returns the state that a word of an engine stands for. A goodbye is the worker's, so
// "stopped" and "failed" are degraded.
func stateOf(v any) (state hivebeat.State, reason string) {
	word := plaintext.Clip(strings.ToLower(fmt.Sprint(v)), hivebeat.MaxState)
	switch word {
	case "ready", "ok", "healthy", "up", "running", "idle", "true":
		return "", "" // ready or busy, by Busy
	case "loading", "waiting", "starting", "initializing":
		return hivebeat.Loading, ""
	case string(hivebeat.Busy), string(hivebeat.Draining), string(hivebeat.Degraded), string(hivebeat.Sleeping):
		return hivebeat.State(word), ""
	}
	return hivebeat.Degraded, "state " + word
}

// prometheus reads an answer in Prometheus text.
func (a *ask) prometheus(r *Reading) error {
	set := newMetricSet("")
	num, texts := make(map[string]*series), make(map[string]*string)
	for _, e := range a.p.cfg.Mapping.entries() {
		if e.at == "" {
			num[e.field], texts[e.field] = &series{}, new(string)
			continue
		}
		parsed, of, err := selector(e)
		if err != nil {
			return err
		}
		w, text := set.want(parsed.name, parsed.match...), new(string)
		if e.text {
			w.each = func(labels []byte, _ float64) { *text, _ = labelOf(labels, of) }
		}
		num[e.field], texts[e.field] = w, text
	}
	if err := a.metrics("", set); err != nil {
		return err
	}
	sum := func(field string) number { return num[field].sum }
	r.Busy, r.Queue, r.Done, r.Tokens = a.count(sum("Busy")), a.count(sum("Queue")), a.count(sum("Done")), a.count(sum("Tokens"))
	r.Slots, r.KVCap, r.Context = a.positive(sum("Slots")), a.positive(sum("KVCap")), a.positive(num["Context"].high)
	r.KV = a.share(num["KV"].high)
	if name := *texts["Model"]; name != "" {
		r.Models = []Model{{Name: name, Loaded: true}}
	}
	r.Version = *texts["Version"]
	if at := a.p.cfg.Mapping.State; at != "" {
		n := sum("State")
		switch {
		case !n.ok:
			return answerError("no %s, which Mapping.State names", at)
		case n.value == 0:
			r.State, r.Reason = hivebeat.Degraded, at+" is 0"
		}
	}
	return nil
}

// jsonTime is a time in JSON that may be missing or wrong: then it is zero.
type jsonTime struct{ time.Time }

// UnmarshalJSON never fails.
func (t *jsonTime) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &t.Time) != nil || t.Year() <= 1 {
		t.Time = time.Time{}
	}
	return nil
}
