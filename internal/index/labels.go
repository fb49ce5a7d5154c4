package index

// Labels are kept by what a selector asks for: for each label and each key the hives that have it
// themselves or have a worker with it, and for each hive the number of those workers. A question by
// label looks at no other hive. A record whose labels did not change costs nothing: its map is the
// one that was counted.

// label is one label, or with anyValue all labels of one key.
type label struct{ key, value string }

// anyValue is no label's value, as those are UTF-8.
const anyValue = "\xff"

// bearers are the hive and its workers that have a label.
type bearers struct {
	workers int32
	hive    bool // the hive has the label itself
}

// relabelWorker counts w by the labels that it has now.
func (x *Index) relabelWorker(w *Worker) {
	was, is := w.shown.labels, w.rec.Labels
	if mapAt(was) == mapAt(is) {
		return
	}
	x.bear(w.hive, is, 1, false)
	x.bear(w.hive, was, -1, false)
	w.shown.labels = is
}

// relabelHive counts h by the labels that it has now.
func (x *Index) relabelHive(h *Hive) {
	was, is := h.labels, h.head.Labels
	if mapAt(was) == mapAt(is) {
		return
	}
	x.bear(h, was, -1, true)
	x.bear(h, is, 1, true)
	h.labels = is
}

// bear counts labels on h: of one worker more or less, or of the hive itself.
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

// LabelledAny returns the hives that have a label with this key, or have a worker with one.
func (x *Index) LabelledAny(key string) []*Hive { return x.labelled(label{key, anyValue}) }

func (x *Index) labelled(l label) []*Hive {
	if of := x.labels[l]; of != nil {
		return *of
	}
	return nil
}

// Labelled is the number of workers of h that have a label themselves.
func (h *Hive) Labelled(key, value string) int {
	if value == anyValue {
		return 0
	}
	return int(h.bearers[label{key, value}].workers)
}

// LabelledAny is the number of workers of h that have a label with this key themselves.
func (h *Hive) LabelledAny(key string) int { return int(h.bearers[label{key, anyValue}].workers) }
