package probe

import (
	"time"

	"github.com/beatfabric/hivebeat"
)

// JudgeConfig has the times of a [Judge]. The zero value works.
type JudgeConfig struct {
	Every   time.Duration // between two readings, [DefaultEvery] by default
	Backoff time.Duration // the longest wait after failures, 30 s by default
}

// Judge turns readings into the state that a worker reports. It has no clock and no lock.
type Judge struct{}

// Report is what a [Judge] concludes from all it heard.
type Report struct {
	State  hivebeat.State
	Reason string
	// Reading is the last good one. Its Done and Tokens never fall: if the engine restarts and
	// counts from zero, they continue from the old count.
	Reading Reading
	Probed  time.Time     // when the last good reading was heard; zero: never
	Next    time.Duration // when to read again, before jitter
}

// NewJudge returns a Judge that has heard nothing.
func NewJudge(JudgeConfig) *Judge { return &Judge{} }

// Hear takes the result of one reading that ended now.
func (j *Judge) Hear(now time.Time, r Reading, err error) Report { return Report{} }
