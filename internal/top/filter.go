package top

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// errFilter is the start of every error about a filter.
var errFilter = errors.New("filter")

// filter is a parsed filter line. Hive, Worker and Kinds apply to events, Hive also to
// workers.
type filter struct {
	api.Filter
	Hive, Worker string
	Kinds        []hivebeat.Kind
}

// parseFilter parses a filter as people type it. Words that are key=value set a field, other
// words with = or ! are requirements on labels (as in Kubernetes, but without in and notin),
// and the rest is text that a row must contain.
func parseFilter(line string, of tab) (f filter, err error) {
	var text, labels []string
	for _, word := range strings.Fields(line) {
		key, value, has := strings.Cut(word, "=")
		switch {
		case word == "stalled" && of != tabEvents:
			f.Stalled = true
		case has && value != "" && f.set(key, value, of, &err):
		case has && of == tabEvents:
			return f, fmt.Errorf("%w: events have hive=, worker= and kind=, but not %s", errFilter, plaintext.Line(word))
		case strings.ContainsAny(word, "=!") && of != tabEvents:
			labels = append(labels, word)
		default:
			text = append(text, word)
		}
		if err != nil {
			return f, fmt.Errorf("%w: %s: %w", errFilter, plaintext.Line(word), err)
		}
	}
	f.Text, f.Selector = strings.Join(text, " "), strings.Join(labels, ",")
	if _, err := api.ParseSelector(f.Selector); err != nil {
		return f, fmt.Errorf("%w: %w", errFilter, err)
	}
	return f, nil
}

// set sets the field of a key, and reports false for an unknown key.
func (f *filter) set(key, value string, of tab, err *error) bool {
	if key == "hive" && of != tabHives {
		f.Hive, *err = value, hivebeat.CheckID("hive", value)
		return true
	}
	if of == tabEvents {
		switch key {
		case "worker":
			f.Worker, *err = value, hivebeat.CheckID("worker", value)
		case "kind":
			for k := range strings.SplitSeq(value, ",") {
				f.Kinds = append(f.Kinds, hivebeat.Kind(k))
			}
		default:
			return false
		}
		return true
	}
	switch key {
	case "model":
		f.Model = value
	case "zone":
		f.Zone = value
	case "live":
		for l := range strings.SplitSeq(value, ",") {
			f.Live = append(f.Live, hivebeat.Live(l))
		}
	case "state":
		for s := range strings.SplitSeq(value, ",") {
			f.State = append(f.State, hivebeat.State(s))
		}
	case "free":
		var n int64
		n, *err = show.ParseSize(value)
		f.FreeVRAM = uint64(n)
	case "disk":
		var n int64
		n, *err = show.ParseSize(value)
		f.FreeDisk = uint64(n)
	case "driver":
		f.Driver = value
	case "kernel":
		f.Kernel = value
	case "slots":
		f.FreeSlots, *err = strconv.ParseUint(value, 10, 32)
	case "age":
		var d time.Duration
		d, *err = time.ParseDuration(value)
		f.MaxAge = hivebeat.MillisOf(d)
	default:
		return false
	}
	return true
}

// fits reports whether an event matches. The queen filters the events of its answers; fits
// filters those of the subscription.
func (f *filter) fits(e *hivebeat.Event) bool {
	d := &e.Data
	if f.Hive != "" && d.Hive != f.Hive || f.Worker != "" && d.Worker != f.Worker {
		return false
	}
	if len(f.Kinds) > 0 {
		found := false
		for _, k := range f.Kinds {
			found = found || k == d.Kind
		}
		if !found {
			return false
		}
	}
	if f.Text == "" {
		return true
	}
	text := strings.ToLower(f.Text)
	for _, s := range []string{e.Subject, d.Model, d.Reason, string(d.Kind), d.Zone, d.To, d.From, string(d.Cause), d.GPU, d.Owner, d.Action} {
		if strings.Contains(strings.ToLower(s), text) {
			return true
		}
	}
	return false
}
