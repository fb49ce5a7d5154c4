package show

import (
	"slices"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Certainty adds up how sure several answers are that are shown together: no surer
// than the least sure of them. The zero Certainty has none.
type Certainty struct {
	sum api.Status
	any bool
}

// Add adds the status of an answer. What is true of one moment alone, such as the
// time, is that of the last one.
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

// Sum is the status of all that were added.
func (c *Certainty) Sum() *api.Status {
	st := c.sum
	return &st
}
