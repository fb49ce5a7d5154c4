//go:build !linux

package procwatch

import "time"

func thisSystem() system {
	return system{
		now:   func() int64 { return 0 }, // there is no clock that a step of the wall clock does not affect
		look:  lookPortable,
		exits: func() (exits, error) { return nil, errNoTell },
	}
}

// age returns the time since began.
func age(began int64) time.Duration { return max(0, time.Since(time.UnixMilli(began))) }
