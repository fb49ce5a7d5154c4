package index

// Labels are indexed the way a selector asks for them. Each label, and each key with any value, lists
// the hives that have it themselves or have a worker with it. Each hive has the number of its workers
// with the label. A question by label visits no other hive. A record whose labels did not change costs
// nothing, because its map is still the one that was counted.

// label is one label. With any it stands for every label with the key.
type label struct {
	key, value string
	any        bool
}

// relabel counts h under the labels is instead of was, which are those of h itself or of one of its
// workers.
func (x *Index) relabel(h *Hive, was *map[string]string, is map[string]string) {
	if mapAt(*was) == mapAt(is) {
		return
	}
	x.bear(h, is, 1)
	x.bear(h, *was, -1)
	*was = is
}

// bear counts these labels d times for h.
func (x *Index) bear(h *Hive, labels map[string]string, d int) {
	for key, value := range labels {
		x.bearOne(h, label{key: key, value: value}, d)
		x.bearOne(h, label{key: key, any: true}, d)
	}
}

func (x *Index) bearOne(h *Hive, l label, d int) {
	if h.bearers == nil {
		h.bearers = make(map[label]int)
	}
	of := x.labels[l]
	if h.bearers[l] += d; h.bearers[l] > 0 {
		of.Add(h)
	} else {
		delete(h.bearers, l)
		of.Remove(h)
	}
	if x.labels[l] = of; len(of) == 0 {
		delete(x.labels, l)
	}
}

// Labelled returns the hives that have a label, or have a worker with it, in order of their ids.
func (x *Index) Labelled(key, value string) []*Hive { return x.labels[label{key: key, value: value}] }

// LabelledAny returns the hives that have a label with this key, or have a worker with one, in order of
// their ids.
func (x *Index) LabelledAny(key string) []*Hive { return x.labels[label{key: key, any: true}] }

// Labelled returns how many workers of h have this label themselves.
func (h *Hive) Labelled(key, value string) int {
	n := h.bearers[label{key: key, value: value}]
	if own, ok := h.labels[key]; ok && own == value {
		n--
	}
	return n
}

// LabelledAny returns how many workers of h have a label with this key themselves.
func (h *Hive) LabelledAny(key string) int {
	n := h.bearers[label{key: key, any: true}]
	if _, ok := h.labels[key]; ok {
		n--
	}
	return n
}
