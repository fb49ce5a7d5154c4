package liveness

import (
	"iter"
	"time"
)

// Deadlines keeps one deadline for each key and yields the ones that have passed.
// Extending a deadline costs one map lookup, whatever the number of keys, and allocates
// nothing: the entry stays where it is in the heap and is queued again when its old
// time comes. The zero value is empty. All times must carry a monotonic reading, as
// time.Now returns it, or none may.
type Deadlines[K comparable] struct {
	base  time.Time // queued and at count from here
	items map[K]*deadline[K]
	heap  []*deadline[K]
}

type deadline[K comparable] struct {
	key    K
	queued time.Duration // its position in the heap: never after at
	at     time.Duration
	pos    int
}

// Len returns the number of keys with a deadline.
func (d *Deadlines[K]) Len() int { return len(d.heap) }

// Set gives k the deadline at, in place of any earlier one.
func (d *Deadlines[K]) Set(k K, at time.Time) {
	if d.items == nil {
		d.items, d.base = make(map[K]*deadline[K]), at
	}
	t := at.Sub(d.base)
	it, ok := d.items[k]
	if !ok {
		it = &deadline[K]{key: k, queued: t, at: t, pos: len(d.heap)}
		d.items[k] = it
		d.heap = append(d.heap, it)
		d.up(it.pos)
		return
	}
	it.at = t
	if t < it.queued {
		it.queued = t
		d.up(it.pos)
	}
}

// Remove removes the deadline of k, if there is one.
func (d *Deadlines[K]) Remove(k K) {
	if it, ok := d.items[k]; ok {
		d.remove(it)
	}
}

// At returns the deadline of k.
func (d *Deadlines[K]) At(k K) (time.Time, bool) {
	it, ok := d.items[k]
	if !ok {
		return time.Time{}, false
	}
	return d.base.Add(it.at), true
}

// Next returns a time before which nothing is due, and false if there is no deadline.
// It may be earlier than the first deadline if that was extended: a timer set to it
// calls Due, gets nothing, and calls Next again.
func (d *Deadlines[K]) Next() (time.Time, bool) {
	if len(d.heap) == 0 {
		return time.Time{}, false
	}
	return d.base.Add(d.heap[0].queued), true
}

// Due yields each key whose deadline is not after now, with that deadline, the earliest
// first. A yielded key no longer has a deadline. The loop may set it a new one, which
// must be after now, and may set and remove others.
func (d *Deadlines[K]) Due(now time.Time) iter.Seq2[K, time.Time] {
	return func(yield func(K, time.Time) bool) {
		t := now.Sub(d.base)
		for len(d.heap) > 0 && d.heap[0].queued <= t {
			it := d.heap[0]
			if it.queued < it.at {
				it.queued = it.at
				d.down(0)
				continue
			}
			d.remove(it)
			if !yield(it.key, d.base.Add(it.at)) {
				return
			}
		}
	}
}

// Shift moves all deadlines by s: time in which the observer was blind does not count
// as silence. It costs the same for any number of keys.
func (d *Deadlines[K]) Shift(s time.Duration) { d.base = d.base.Add(s) }

func (d *Deadlines[K]) remove(it *deadline[K]) {
	delete(d.items, it.key)
	pos, last := it.pos, len(d.heap)-1
	d.swap(pos, last)
	d.heap[last] = nil
	d.heap = d.heap[:last]
	if pos < last {
		d.down(pos)
		d.up(pos)
	}
}

func (d *Deadlines[K]) swap(i, j int) {
	d.heap[i], d.heap[j] = d.heap[j], d.heap[i]
	d.heap[i].pos, d.heap[j].pos = i, j
}

func (d *Deadlines[K]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if d.heap[parent].queued <= d.heap[i].queued {
			return
		}
		d.swap(i, parent)
		i = parent
	}
}

func (d *Deadlines[K]) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(d.heap); c++ {
			if d.heap[c].queued < d.heap[least].queued {
				least = c
			}
		}
		if least == i {
			return
		}
		d.swap(i, least)
		i = least
	}
}
