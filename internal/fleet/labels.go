package fleet

import (
	"slices"
	"strings"
)

// Labels are kept by what is asked for: of each label, and of each key, the hives
// that have it themselves or have a worker with it, and of each hive how many
// workers those are. So a question by label goes to the hives that may have
// somebody who fits, and looks at nobody else. What does not change costs nothing:
// a record with the labels that it had before is told by the address of its map.

// label is one label, or with anyValue all of one key.
type label struct{ key, value string }

// anyValue is no label's value, as those are UTF-8.
const anyValue = "\xff"

// bearers are those of one hive that have a label.
type bearers struct {
	workers int32
	hive    bool // it has the label itself
}

// hivesByID is a list in the order of ids.
type hivesByID []*Hive

func (l hivesByID) find(id string) (int, bool) {
	return slices.BinarySearchFunc(l, id, func(h *Hive, id string) int { return strings.Compare(h.id, id) })
}

// add lists h, which is not in the list.
func (l *hivesByID) add(h *Hive) {
	at, _ := l.find(h.id)
	*l = slices.Insert(*l, at, h)
}

func (l *hivesByID) remove(h *Hive) {
	if at, ok := l.find(h.id); ok {
		*l = slices.Delete(*l, at, at+1)
	}
}

// relabel counts w by the labels that it has now.
func (v *View) relabel(h *Hive, w *Worker) {
	was, is := w.shown.labels, w.rec.Labels
	if mapAt(was) == mapAt(is) {
		return
	}
	v.bear(h, is, 1, false)
	v.bear(h, was, -1, false)
	w.shown.labels = is
}

// relabelHive does so for the labels of h itself.
func (v *View) relabelHive(h *Hive) {
	was, is := h.counted, h.head.Labels
	if mapAt(was) == mapAt(is) {
		return
	}
	v.bear(h, was, -1, true)
	v.bear(h, is, 1, true)
	h.counted = is
}

// bear counts those of h that have labels: one worker more or less, or the hive.
func (v *View) bear(h *Hive, labels map[string]string, d int32, itself bool) {
	for key, value := range labels {
		v.bearOne(h, label{key, value}, d, itself)
		v.bearOne(h, label{key, anyValue}, d, itself)
	}
}

func (v *View) bearOne(h *Hive, l label, d int32, itself bool) {
	b, had := h.labels[l]
	if itself {
		b.hive = d > 0
	} else {
		b.workers += d
	}
	switch {
	case b == bearers{}:
		delete(h.labels, l)
		of := v.labels[l]
		if of.remove(h); len(*of) == 0 {
			delete(v.labels, l)
		}
		return
	case !had:
		of := v.labels[l]
		if of == nil {
			of = new(hivesByID)
			v.labels[l] = of
		}
		of.add(h)
	}
	if h.labels == nil {
		h.labels = make(map[label]bearers)
	}
	h.labels[l] = b
}

// Labelled returns the hives that have a label, or have a worker with it, by id. The
// slice is not to be kept, nor changed.
func (v *View) Labelled(key, value string) []*Hive {
	if value == anyValue {
		return nil
	}
	return v.labelled(label{key, value})
}

// LabelledAny does so for a label of that key, whatever its value.
func (v *View) LabelledAny(key string) []*Hive { return v.labelled(label{key, anyValue}) }

func (v *View) labelled(l label) []*Hive {
	if of := v.labels[l]; of != nil {
		return *of
	}
	return nil
}

// Labelled is how many workers of h have a label themselves.
func (h *Hive) Labelled(key, value string) int {
	if value == anyValue {
		return 0
	}
	return int(h.labels[label{key, value}].workers)
}

// LabelledAny is how many have a label of that key, whatever its value.
func (h *Hive) LabelledAny(key string) int { return int(h.labels[label{key, anyValue}].workers) }
