package fleet

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat/internal/detector"
)

// Score is what a view got wrong: verdicts that were disproved by the same
// incarnation, on hives and on the workers it adopted.
type Score struct {
	FalseDead uint64             // it had been alive, and was heard too late
	CutOff    uint64             // the same, but its seq had gone on: its messages did not come
	Margins   detector.Histogram // of both: how long after the verdict it was heard
}

func (s *Score) back(margin time.Duration, cutOff bool) {
	s.Margins.Add(margin)
	if cutOff {
		s.CutOff++
	} else {
		s.FalseDead++
	}
}

// backWords says what a verdict was that is disproved.
func backWords(margin time.Duration, cutOff bool) string {
	if cutOff {
		return fmt.Sprintf("%.1fs past its deadline: it had been cut off, and went on", margin.Seconds())
	}
	return fmt.Sprintf("%.1fs past its deadline: it was falsely taken for dead", margin.Seconds())
}

// Score returns the score so far.
func (v *View) Score() Score { return v.score }
