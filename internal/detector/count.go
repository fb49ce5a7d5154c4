package detector

import "github.com/beatfabric/hivebeat"

// Mix counts the workers by verdict and, for those that are alive, by the state that
// they report.
func (r *Registry) Mix() (lives map[hivebeat.Live]int, states map[hivebeat.State]int) {
	lives, states = make(map[hivebeat.Live]int), make(map[hivebeat.State]int)
	for _, w := range r.workers {
		lives[w.live]++
		if w.live == hivebeat.Alive {
			states[w.facts.State]++
		}
	}
	return lives, states
}
