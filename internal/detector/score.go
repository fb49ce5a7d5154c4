package detector

import (
	"maps"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Score measures how good the verdicts were, where the truth is known.
type Score struct {
	// Margins of the workers that were lost and then heard again in the same
	// incarnation: how long after the verdict. The stats count how many had been cut
	// off.
	Margins Histogram
	// Detect is the time from the end of a worker to the verdict, by cause, where the
	// end was observed.
	Detect map[hivebeat.Cause]Histogram
}

// Score returns the score so far.
func (r *Registry) Score() Score { return Score{Margins: r.margins, Detect: maps.Clone(r.detects)} }

// score counts a verdict that the worker itself has disproved.
func (r *Registry) score(margin time.Duration, wentOn bool) {
	r.margins.Add(margin)
	if wentOn {
		r.stats.CutOff++
	} else {
		r.stats.FalseDead++
	}
}

// detected counts how long verdicts on observed ends took.
func (r *Registry) detected(steps []Step) {
	for i := range steps {
		s := &steps[i]
		if s.Kind != hivebeat.KindLost {
			continue
		}
		switch s.Cause {
		case hivebeat.CauseExit, hivebeat.CauseOOM, hivebeat.CauseDisconnect:
		default:
			continue
		}
		if r.detects == nil {
			r.detects = make(map[hivebeat.Cause]Histogram)
		}
		h := r.detects[s.Cause]
		h.Add(s.Detect)
		r.detects[s.Cause] = h
	}
}
