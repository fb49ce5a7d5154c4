package detector

import (
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
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

// Public returns the same counts in the form that other programs see.
func (h Histogram) Public() hivebeat.Histogram {
	out := hivebeat.Histogram{N: h.N, Sum: h.Sum, Max: h.Max, Buckets: make([]hivebeat.Bucket, len(bounds))}
	for i, bound := range bounds {
		out.Buckets[i] = hivebeat.Bucket{UpTo: bound, N: h.in[i]}
	}
	return out
}

// PublicByCause returns the public form of histograms by cause.
func PublicByCause(m map[hivebeat.Cause]Histogram) map[hivebeat.Cause]hivebeat.Histogram {
	out := make(map[hivebeat.Cause]hivebeat.Histogram, len(m))
	for cause, h := range m {
		out[cause] = h.Public()
	}
	return out
}
