package detector

import (
	"strconv"
	"time"
)

// bounds are the upper bounds of the buckets of a Histogram. Longer durations are in a
// last bucket.
var bounds = [...]time.Duration{
	time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute,
}

// Histogram counts durations. The zero Histogram is empty; copies are independent.
type Histogram struct {
	N   uint64        // number of durations
	Sum time.Duration // sum of all durations
	Max time.Duration
	in  [len(bounds) + 1]uint64
}

// Add counts d. A negative d counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(0, d)
	at := 0
	for at < len(bounds) && d > bounds[at] {
		at++
	}
	h.in[at]++
	h.N++
	h.Sum += d
	h.Max = max(h.Max, d)
}

// Buckets returns the counts that are not zero, by upper bound in ms: "50" counts
// durations over the previous bound and at most 50 ms, "more" counts the rest.
func (h Histogram) Buckets() map[string]uint64 {
	if h.N == 0 {
		return nil
	}
	m := make(map[string]uint64)
	for i, n := range h.in {
		if n == 0 {
			continue
		}
		name := "more"
		if i < len(bounds) {
			name = strconv.FormatInt(bounds[i].Milliseconds(), 10)
		}
		m[name] = n
	}
	return m
}

// Cumulative returns, by upper bound in seconds, how many durations do not exceed it.
// Durations above the last bound are in N only.
func (h Histogram) Cumulative() map[float64]uint64 {
	m := make(map[float64]uint64, len(bounds))
	var n uint64
	for i, bound := range bounds {
		n += h.in[i]
		m[bound.Seconds()] = n
	}
	return m
}
