package query

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/directive"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Limits of a request.
const (
	DefaultLimit = 200
	MaxLimit     = 1000
	maxOffset    = 10_000_000
	maxWords     = 64  // in a list of a filter
	maxText      = 256 // bytes of a text in a filter
	maxPlaces    = 100
	maxWait      = 60_000
	minHold      = 1_000
	maxHold      = 600_000
	minDuring    = 1_000
	maxDuring    = 365 * 24 * 3600 * 1000
	maxSilence   = 7 * 24 * 3600 * 1000
)

// key is a key of a request, as in its JSON.
type key struct {
	name  string
	isSet func(*api.Request) bool
}

var keys = []key{
	{"hive", func(r *api.Request) bool { return r.Hive != "" }},
	{"worker", func(r *api.Request) bool { return r.Worker != "" }},
	{"gpu", func(r *api.Request) bool { return r.GPU != "" }},
	{"model", func(r *api.Request) bool { return r.Model != "" }},
	{"live", func(r *api.Request) bool { return len(r.Live) > 0 }},
	{"state", func(r *api.Request) bool { return len(r.State) > 0 }},
	{"zone", func(r *api.Request) bool { return r.Zone != "" }},
	{"selector", func(r *api.Request) bool { return r.Selector != "" }},
	{"text", func(r *api.Request) bool { return r.Text != "" }},
	{"free_vram", func(r *api.Request) bool { return r.FreeVRAM != 0 }},
	{"free_slots", func(r *api.Request) bool { return r.FreeSlots != 0 }},
	{"free_disk", func(r *api.Request) bool { return r.FreeDisk != 0 }},
	{"driver", func(r *api.Request) bool { return r.Driver != "" }},
	{"kernel", func(r *api.Request) bool { return r.Kernel != "" }},
	{"max_age", func(r *api.Request) bool { return r.MaxAge != 0 }},
	{"stalled", func(r *api.Request) bool { return r.Stalled }},
	{"sort", func(r *api.Request) bool { return r.Sort != "" }},
	{"after", func(r *api.Request) bool { return r.After != "" }},
	{"offset", func(r *api.Request) bool { return r.Offset != 0 }},
	{"limit", func(r *api.Request) bool { return r.Limit != 0 }},
	{"kinds", func(r *api.Request) bool { return len(r.Kinds) > 0 }},
	{"since", func(r *api.Request) bool { return r.Since != 0 }},
	{"wait", func(r *api.Request) bool { return r.Wait != 0 }},
	{"only", func(r *api.Request) bool { return len(r.Only) > 0 }},
	{"n", func(r *api.Request) bool { return r.N != 0 }},
	{"for", func(r *api.Request) bool { return r.For != "" }},
	{"spread", func(r *api.Request) bool { return r.Spread != "" }},
	{"slots", func(r *api.Request) bool { return r.Slots != 0 }},
	{"gpus", func(r *api.Request) bool { return r.GPUs != 0 }},
	{"min_uptime", func(r *api.Request) bool { return r.MinUptime != 0 }},
	{"hold", func(r *api.Request) bool { return r.Hold != "" }},
	{"hold_for", func(r *api.Request) bool { return r.HoldMS != 0 }},
	{"reason", func(r *api.Request) bool { return r.Reason != "" }},
	{"during", func(r *api.Request) bool { return r.During != 0 }},
}

const (
	pickKeys   = "hive model zone selector free_vram free_slots free_disk driver kernel max_age n for spread slots gpus min_uptime "
	filterKeys = "model live state zone selector text free_vram free_slots free_disk driver kernel max_age stalled "
)

// takes lists the keys that each verb takes. A limit on a verb without a list changes
// nothing; older clients send one.
var takes = map[string][]string{
	api.VerbSummary: {"limit"},
	api.VerbHives:   strings.Fields("hive sort after offset limit " + filterKeys),
	api.VerbWorkers: strings.Fields("hive sort after offset limit " + filterKeys),
	api.VerbHive:    {"hive", "limit"},
	api.VerbModels:  {"model", "after", "limit"},
	api.VerbGPUs:    strings.Fields("hive after limit " + filterKeys),
	api.VerbWorker:  {"hive", "worker", "limit"},
	api.VerbEvents:  {"hive", "worker", "kinds", "since", "after", "limit"},
	api.VerbHistory: {"hive", "since"},
	api.VerbPick:    strings.Fields(pickKeys),
	api.VerbHold:    strings.Fields(pickKeys + "hold hold_for"),
	api.VerbRelease: {"hold"},
	api.VerbHolds:   {"after", "limit"},
	api.VerbForget:  {"hive", "gpu"},
	api.VerbDrain:   {"hive", "worker", "gpu", "reason", "during"},
	api.VerbUndrain: {"hive", "worker", "gpu"},

	api.VerbSilence:   {"hive", "worker", "reason", "during"},
	api.VerbUnsilence: {"hive", "worker"},
	api.VerbWatch:     strings.Fields("hive kinds wait only after limit " + filterKeys),
}

// Check returns an error that says why a request is invalid, or nil.
func Check(verb string, r *api.Request) *api.Error {
	if err := check(verb, r); err != nil {
		return &api.Error{Code: api.CodeBadRequest, Message: err.Error()}
	}
	return nil
}

func check(verb string, r *api.Request) error {
	allowed, ok := takes[verb]
	if !ok {
		return fmt.Errorf("unknown verb %.64q", verb)
	}
	for _, k := range keys {
		if k.isSet(r) && !slices.Contains(allowed, k.name) {
			return fmt.Errorf("%s does not take the key %q", verb, k.name)
		}
	}
	needWorker := verb == api.VerbWorker
	needHive := needWorker || verb == api.VerbHive || verb == api.VerbForget || wordsOf[verb].what != ""
	if needHive || r.Hive != "" {
		if err := hivebeat.CheckID("hive", r.Hive); err != nil {
			return err
		}
	}
	if needWorker || r.Worker != "" {
		if r.Hive == "" {
			return errors.New("worker needs hive")
		}
		if err := hivebeat.CheckID("worker", r.Worker); err != nil {
			return err
		}
	}
	if verb == api.VerbHold || verb == api.VerbRelease {
		if err := hivebeat.CheckID("hold", r.Hold); err != nil {
			return err
		}
	}
	switch {
	case verb == api.VerbSilence && (r.During == 0 || r.During > maxSilence):
		return fmt.Errorf("silence needs during, at most %d", maxSilence)
	case r.Worker != "" && r.GPU != "":
		return errors.New("give a worker or a gpu, not both")
	case !directive.ValidText(r.Reason, hivebeat.MaxReason):
		return fmt.Errorf("reason is at most %d bytes of UTF-8", hivebeat.MaxReason)
	case r.GPU != "" && !directive.ValidText(r.GPU, maxText):
		return errors.New("gpu is not a UUID")
	}
	for _, n := range []struct {
		name          string
		v, least, max uint64
	}{
		{"limit", uint64(r.Limit), 1, MaxLimit},
		{"offset", uint64(r.Offset), 1, maxOffset},
		{"n", uint64(r.N), 1, maxPlaces},
		{"wait", uint64(r.Wait), 1, maxWait},
		{"hold_for", uint64(r.HoldMS), minHold, maxHold},
		{"during", uint64(r.During), minDuring, maxDuring},
		{"free_vram", r.FreeVRAM, 1, hivebeat.MaxInt},
		{"free_slots", r.FreeSlots, 1, hivebeat.MaxInt},
		{"free_disk", r.FreeDisk, 1, hivebeat.MaxInt},
		{"slots", r.Slots, 1, hivebeat.MaxInt},
		{"gpus", uint64(r.GPUs), 1, hivebeat.MaxGPUs},
		{"max_age", uint64(r.MaxAge), 1, hivebeat.MaxInt},
		{"min_uptime", uint64(r.MinUptime), 1, hivebeat.MaxInt},
		{"since", uint64(r.Since), 1, hivebeat.MaxInt},
	} {
		if n.v != 0 && (n.v < n.least || n.v > n.max) {
			return fmt.Errorf("%s must be %d to %d", n.name, n.least, n.max)
		}
	}
	for _, n := range []struct {
		name string
		n    int
	}{{"live", len(r.Live)}, {"state", len(r.State)}, {"kinds", len(r.Kinds)}, {"only", len(r.Only)}} {
		if n.n > maxWords {
			return fmt.Errorf("%s has more than %d words", n.name, maxWords)
		}
	}
	for _, t := range []struct{ name, text string }{{"model", r.Model}, {"zone", r.Zone}, {"text", r.Text}, {"driver", r.Driver}, {"kernel", r.Kernel}, {"gpu", r.GPU}} {
		if len(t.text) > maxText {
			return fmt.Errorf("%s has more than %d bytes", t.name, maxText)
		}
	}
	switch {
	case r.For != "" && r.For != api.ForWorker && r.For != api.ForGPU:
		return fmt.Errorf("for is %q or %q", api.ForWorker, api.ForGPU)
	case r.For == api.ForGPU && (r.Slots != 0 || r.FreeSlots != 0 || r.MinUptime != 0):
		return errors.New("slots, free_slots and min_uptime apply to workers, not to a GPU")
	case r.For != api.ForGPU && r.GPUs != 0:
		return fmt.Errorf("gpus is how many GPUs a place has: it needs for %q", api.ForGPU)
	case verb == api.VerbHold && r.For == api.ForGPU && r.FreeVRAM == 0:
		return errors.New("free_vram is how much of a GPU is held: a hold for a GPU needs it")
	case r.Spread != "" && r.Spread != api.SpreadZone && r.Spread != api.SpreadHive && r.Spread != api.SpreadNone:
		return fmt.Errorf("spread is %q, %q or %q", api.SpreadZone, api.SpreadHive, api.SpreadNone)
	}
	for _, o := range r.Only {
		if !slices.Contains([]string{"summary", "hives", "workers", "events"}, o) {
			return fmt.Errorf("only cannot be %.64q", o)
		}
	}
	if _, err := api.ParseSelector(r.Selector); err != nil {
		return err
	}
	return checkSort(verb, r)
}

func checkSort(verb string, r *api.Request) error {
	if verb != api.VerbHives && verb != api.VerbWorkers {
		return nil
	}
	known := api.WorkerSortKeys
	if verb == api.VerbHives {
		known = api.HiveSortKeys
	}
	if !slices.Contains(known, strings.TrimPrefix(sortOf(r), "-")) {
		return fmt.Errorf("%s cannot be sorted by %.64q, only by %s; a leading - reverses the order", verb, r.Sort, strings.Join(known, ", "))
	}
	if sorted := sortOf(r) != "id"; sorted && r.Offset > maxSortedOffset {
		return fmt.Errorf("with sort, offset is at most %d: continue with after", maxSortedOffset)
	}
	_, err := parseCursor(r)
	return err
}

func sortOf(r *api.Request) string { return cmp.Or(r.Sort, "id") }

func limitOf(r *api.Request) int { return cmp.Or(r.Limit, DefaultLimit) }
