package index

// Labels are indexed the way a selector asks for them. Each label, and each key with any value, lists
// the hives that have it themselves or have a worker with it. Each hive has the number of its workers
// with the label. A question by label visits no other hive. A record whose labels did not change costs
// nothing, because its map is still the one that was counted.

// label is one label. With anyValue it stands for every label with the key.
type label struct{ key, value string }

// anyValue differs from every value of a label, because it is not UTF-8.
const anyValue = "\xff"

// bearers counts the workers of a hive that have a label, and says whether the hive has it.
type bearers struct {
	workers int32
	hive    bool // the hive has the label itself
}

// relabelWorker counts w under its present labels.
func (x *Index) relabelWorker(w *Worker) {
	was, is := w.shown.labels, w.rec.Labels
	if mapAt(was) == mapAt(is) {
		return
	}
	x.bear(w.hive, is, 1, false)
	x.bear(w.hive, was, -1, false)
	w.shown.labels = is
}

// relabelHive counts h under its present labels.
func (x *Index) relabelHive(h *Hive) {
	was, is := h.labels, h.head.Labels
	if mapAt(was) == mapAt(is) {
		return
	}
	x.bear(h, was, -1, true)
	x.bear(h, is, 1, true)
	h.labels = is
}

// bear adds d workers with these labels to h, or, if itself is set, adds or removes the labels of the
// hive.
func (x *Index) bear(h *Hive, labels map[string]string, d int32, itself bool) {
	for key, value := range labels {
		x.bearOne(h, label{key, value}, d, itself)
		x.bearOne(h, label{key, anyValue}, d, itself)
	}
}

func (x *Index) bearOne(h *Hive, l label, d int32, itself bool) {
	b, had := h.bearers[l]
	if itself {
		b.hive = d > 0
	} else {
		b.workers += d
	}
	switch {
	case b == bearers{}:
		delete(h.bearers, l)
		of := x.labels[l]
		if of.Remove(h); len(*of) == 0 {
			delete(x.labels, l)
		}
		return
	case !had:
		of := x.labels[l]
		if of == nil {
			of = new(ByID[*Hive])
			x.labels[l] = of
		}
		of.Add(h)
	}
	if h.bearers == nil {
		h.bearers = make(map[label]bearers)
	}
	h.bearers[l] = b
}

// Labelled returns the hives that have a label, or have a worker with it, in order of their ids.
func (x *Index) Labelled(key, value string) []*Hive {
	if value == anyValue {
		return nil
	}
	return x.labelled(label{key, value})
}

// LabelledAny returns the hives that have a label with this key, or have a worker with one, in order of
// their ids.
func (x *Index) LabelledAny(key string) []*Hive { return x.labelled(label{key, anyValue}) }

func (x *Index) labelled(l label) []*Hive {
	if of := x.labels[l]; of != nil {
		return *of
	}
	return nil
}

// Labelled returns how many workers of h have this label themselves.
func (h *Hive) Labelled(key, value string) int {
	if value == anyValue {
		return 0
	}
	return int(h.bearers[label{key, value}].workers)
}

// LabelledAny returns how many workers of h have a label with this key themselves.
func (h *Hive) LabelledAny(key string) int { return int(h.bearers[label{key, anyValue}].workers) }
