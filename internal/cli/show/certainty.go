package show

import (
	"slices"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Certainty combines the status of answers that are shown together: the result is only as sure
// as the least sure answer. The zero Certainty holds no status.
type Certainty struct {
	sum api.Status
	any bool
}

// Add adds the status of an answer. Values of a single moment, such as the time, are those
// of the last answer.
func (c *Certainty) Add(st api.Status) {
	if was := c.sum; c.any {
		st.Warm, st.JetStream = st.Warm && was.Warm, st.JetStream && was.JetStream
		unsure := slices.Clone(was.Unsure)
		for _, why := range st.Unsure {
			if !slices.Contains(unsure, why) {
				unsure = append(unsure, why)
			}
		}
		st.Unsure = unsure
	}
	c.sum, c.any = st, true
}

// Sum returns the combined status.
func (c *Certainty) Sum() *api.Status {
	st := c.sum
	return &st
}
