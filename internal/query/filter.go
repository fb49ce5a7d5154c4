package query

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// filter is a parsed Filter, with the hive of the request.
type filter struct {
	api.Filter
	hive     string
	literal  bool // the model has no * and no ?
	selector api.Selector
	text     string // lower case
}

// filterOf reads the filter of a request that was checked.
func filterOf(r *api.Request) filter {
	f := filter{Filter: r.Filter, hive: r.Hive, text: lower(r.Text)}
	f.selector, _ = api.ParseSelector(r.Selector)
	f.literal = !strings.ContainsAny(r.Model, "*?")
	return f
}

// counts reports whether the counts of the view suffice to know how many workers fit.
func (f *filter) counts() bool {
	return f.selector.Empty() && f.text == "" && f.FreeVRAM == 0 && !f.ofMachine() && f.FreeSlots == 0 && f.MaxAge == 0 && !f.Stalled
}

// model reports whether the filter selects a model.
func (f *filter) model(m string) bool {
	switch {
	case f.Model == "":
		return true
	case f.literal:
		return f.Model == m
	}
	return glob(f.Model, m)
}

// ofMachine reports whether the filter has a condition on the machine of a hive.
func (f *filter) ofMachine() bool { return f.FreeDisk > 0 || f.Driver != "" || f.Kernel != "" }

// otherMachine returns why the machine of h does not fit, or "". Versions are those in its newest report,
// however old that is.
func (f *filter) otherMachine(h *index.Hive) string {
	if !f.ofMachine() {
		return ""
	}
	host := &h.Head().Host
	switch {
	case f.FreeDisk > 0 && (!h.Fresh() || !h.Up() || host.CacheFree < f.FreeDisk):
		return "too little free disk"
	case f.Driver != "" && !glob(f.Driver, host.Driver):
		return "another driver"
	case f.Kernel != "" && !glob(f.Kernel, host.Kernel):
		return "another kernel"
	}
	return ""
}

func (f *filter) live(l hivebeat.Live) bool {
	return len(f.Live) == 0 || slices.Contains(f.Live, l) || slices.Contains(f.Live, index.Counted(l))
}

func (f *filter) state(s hivebeat.State) bool {
	return len(f.State) == 0 || slices.Contains(f.State, s)
}

// mix reports whether workers with this mix may fit.
func (f *filter) mix(m index.Mix) bool { return f.live(m.Live) && f.state(m.State) && f.model(m.Model) }

// may returns how many workers of h may fit, by the counts. It returns 0 if h is in another
// zone or on another machine, or if no worker on it has such labels.
func (f *filter) may(h *index.Hive) (n int) {
	if f.Zone != "" && f.Zone != h.Zone() || h.Size() == 0 || f.otherMachine(h) != "" || !f.mayLabels(h) {
		return 0
	}
	if len(f.Live) == 0 && len(f.State) == 0 && f.Model == "" {
		return h.Size()
	}
	h.EachMix(func(m index.Mix, k int) {
		if f.mix(m) {
			n += k
		}
	})
	return n
}

// total counts the workers that fit, if it need not look at each.
func (f *filter) total(v *index.Index) (n int, ok bool) {
	if !f.counts() {
		return 0, false
	}
	if f.hive != "" {
		if h := v.Hive(f.hive); h != nil {
			n = f.may(h)
		}
		return n, true
	}
	v.EachMix(f.Zone, f.Zone != "", func(m index.Mix, k int) {
		if f.mix(m) {
			n += k
		}
	})
	return n, true
}

// worker reports whether worker w of h fits.
func (f *filter) worker(h *index.Hive, w *index.Worker, now time.Time) bool {
	r := w.Record()
	switch {
	case !f.mix(w.Mix()),
		f.Zone != "" && f.Zone != h.Zone(),
		f.hive != "" && f.hive != h.ID(),
		f.Stalled && !r.Stalled,
		f.FreeSlots > 0 && w.FreeSlots() < f.FreeSlots,
		f.MaxAge > 0 && index.EffectiveAge(r.Age, w.Received(), now) > f.MaxAge,
		!f.selector.Empty() && !f.selector.Fits(labelsOf(h, r)),
		f.otherMachine(h) != "",
		f.FreeVRAM > 0 && !hasFreeMemory(h, h.Named(r), f.FreeVRAM):
		return false
	}
	return f.text == "" || has(h.ID(), f.text) || has(r.Worker, f.text) || has(h.Zone(), f.text) || has(r.Model, f.text)
}

// needsWorkers reports whether a hive can only be judged by the records of its workers.
func (f *filter) needsWorkers() bool { return f.FreeSlots > 0 || f.Stalled }

// costOf returns the cost of reading the counts of h, in looks at workers.
func (f *filter) costOf(h *index.Hive) int { return costOf(h) + len(f.selector.Requirements()) }

// costs returns the cost of one look at a worker, in looks at plain workers: labels are in
// maps.
func (f *filter) costs() int {
	if f.selector.Empty() {
		return 1
	}
	return 2
}

// costOf returns the cost of reading the counts of h, in looks at workers.
func costOf(h *index.Hive) int { return 1 + h.Mixes()/4 }

// hivesAreCheap reports whether hives are judged by their own data alone.
func (f *filter) hivesAreCheap() bool {
	return f.Model == "" && len(f.State) == 0 && f.text == "" && f.selector.Empty() && f.FreeVRAM == 0 && !f.needsWorkers()
}

// everyHive reports whether the filter leaves out no hive.
func (f *filter) everyHive() bool {
	return f.hive == "" && f.hivesAreCheap() && len(f.Live) == 0 && f.Zone == "" && f.MaxAge == 0 && !f.ofMachine()
}

// hiveFits reports whether h fits, and how many looks that cost.
func (f *filter) hiveFits(h *index.Hive, now time.Time) (fits bool, looked int) {
	switch {
	case h.Live() == "",
		f.hive != "" && f.hive != h.ID(),
		!f.live(h.Live()),
		f.Zone != "" && f.Zone != h.Zone(),
		f.MaxAge > 0 && (h.Head().Inc == 0 || index.EffectiveAge(0, h.Received(), now) > f.MaxAge),
		!f.selector.Empty() && !f.selector.Fits(labelsOf(h, nil)),
		f.otherMachine(h) != "",
		f.FreeVRAM > 0 && !hasFreeMemory(h, nil, f.FreeVRAM):
		return false, 0
	}
	if f.text != "" && !has(h.ID(), f.text) && !has(h.Zone(), f.text) {
		found := false
		looked += 4 * costOf(h)
		h.EachMix(func(m index.Mix, _ int) { found = found || has(m.Model, f.text) })
		if !found {
			return false, looked
		}
	}
	if f.Model == "" && len(f.State) == 0 && !f.needsWorkers() {
		return true, looked
	}
	looked += costOf(h)
	// The hive needs such a worker, one that is not gone.
	such := func(m index.Mix) bool {
		l := index.Counted(m.Live)
		return (l == hivebeat.Alive || l == hivebeat.Late) && f.state(m.State) && f.model(m.Model)
	}
	some := false
	h.EachMix(func(m index.Mix, _ int) { some = some || such(m) })
	if !some || !f.needsWorkers() {
		return some, looked
	}
	for _, w := range h.Workers() {
		looked++
		if such(w.Mix()) && (!f.Stalled || w.Record().Stalled) && w.FreeSlots() >= f.FreeSlots {
			return true, looked
		}
	}
	return false, looked
}

// among returns hives, by id, such that no other hive can fit or have a worker that fits:
// the shortest suitable list that the view keeps. The caller must not keep or change the
// slice.
func (f *filter) among(v *index.Index) []*index.Hive {
	best := v.Hives()
	shortest := func(list []*index.Hive) {
		if len(list) < len(best) {
			best = list
		}
	}
	if f.Zone != "" {
		shortest(v.InZone(f.Zone))
	}
	if f.Model != "" && f.literal {
		s := v.Model(f.Model)
		if s == nil {
			return nil
		}
		shortest(s.Hives())
	}
	for _, n := range f.selector.Requirements() {
		switch {
		case n.Key == zoneLabel: // a hive may have this label without having sent it
		case n.Op == api.OpHas:
			shortest(v.LabelledAny(n.Key))
		case n.Op == api.OpIn:
			shortest(labelled(v, &n, len(best)/2))
		}
	}
	return best
}

// labelled returns the hives that have one of the labels of n, or have a worker with one.
// If their lists hold more than most entries, it returns all hives.
func labelled(v *index.Index, n *api.Requirement, most int) []*index.Hive {
	if len(n.Values) == 1 {
		return v.Labelled(n.Key, n.Values[0])
	}
	sum, lists := 0, make([][]*index.Hive, len(n.Values))
	for i, value := range n.Values {
		lists[i] = v.Labelled(n.Key, value)
		sum += len(lists[i])
	}
	if sum > most {
		return v.Hives()
	}
	for len(lists) > 1 { // in pairs, since each list is sorted
		half := (len(lists) + 1) / 2
		for i := range len(lists) / 2 {
			lists[i] = union(lists[i], lists[half+i])
		}
		lists = lists[:half]
	}
	return lists[0]
}

// union merges two lists of hives in the order of their ids, without duplicates.
func union(a, b []*index.Hive) []*index.Hive {
	out := make([]*index.Hive, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := strings.Compare(a[0].ID(), b[0].ID()); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// mayLabels reports whether, by the counts, each requirement of the selector is met by some
// worker of h.
func (f *filter) mayLabels(h *index.Hive) bool {
	for _, n := range f.selector.Requirements() {
		value, inherited := labelsOf(h, nil)(n.Key)
		with, among := h.LabelledAny(n.Key), 0
		for _, v := range n.Values {
			among += h.Labelled(n.Key, v)
		}
		without := h.Size() > with // some workers have only the labels of the hive
		met := false
		switch n.Op {
		case api.OpHas:
			met = with > 0 || without && inherited
		case api.OpHasNot:
			met = without && !inherited
		case api.OpIn:
			met = among > 0 || without && inherited && slices.Contains(n.Values, value)
		default:
			met = with > among || without && !(inherited && slices.Contains(n.Values, value))
		}
		if !met {
			return false
		}
	}
	return true
}

// zoneLabel is the label that says where a hive is.
const zoneLabel = "zone"

// labelsOf returns a lookup of the labels of a worker, which override those of its hive. If
// neither has the label zone, it is the hive's zone.
func labelsOf(h *index.Hive, r *hivebeat.Record) func(string) (string, bool) {
	return func(key string) (string, bool) {
		if r != nil {
			if v, ok := r.Labels[key]; ok {
				return v, true
			}
		}
		if v, ok := h.Head().Labels[key]; ok {
			return v, true
		}
		if key == zoneLabel && h.Zone() != "" {
			return h.Zone(), true
		}
		return "", false
	}
}

// hasFreeMemory reports whether a place on one of these GPUs of h has this many bytes free. Without names
// it looks at all places of h.
func hasFreeMemory(h *index.Hive, uuids []string, bytes uint64) bool {
	if !h.Fresh() || !h.Up() {
		return false
	}
	gpus := h.GPUs()
	for i := range gpus {
		if g := &gpus[i]; g.Usable() && g.Free() >= bytes && (len(uuids) == 0 || g.IsAmong(uuids)) {
			return true
		}
	}
	return false
}

// glob reports whether s matches pattern: * matches any text, ? one character.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	i, k := 0, 0
	for k < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, k
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[k]):
			if pattern[i] == '?' {
				k += runeLen(s[k:])
			} else {
				k++
			}
			i++
		case star >= 0:
			mark++
			i, k = star+1, mark
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

func runeLen(s string) int {
	n := 1
	for n < len(s) && s[n]&0xc0 == 0x80 {
		n++
	}
	return n
}

// lower is strings.ToLower for the letters of ASCII.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// has reports whether s contains text, without regard to the case of ASCII letters. text is
// in lower case.
func has(s, text string) bool {
	for i := 0; i+len(text) <= len(s); i++ {
		k := 0
		for k < len(text) {
			c := s[i+k]
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			if c != text[k] {
				break
			}
			k++
		}
		if k == len(text) {
			return true
		}
	}
	return false
}
