package detector

import "time"

// BackGrace is added to the time that a hive was cut off: those who were cut off
// with it need some to come back themselves (nats.go's default takes 2.1 s) and
// to answer the roll call.
const BackGrace = 5 * time.Second

// Sight says whether a hive can hear at all. While it can not, silence is no
// evidence: nobody is judged, and once it can again the blind time is credited to
// all. This is all that the detector knows of its own troubles, in one place, so
// that better evidence can take its place.
type Sight struct {
	open bool
	// seen is the last time that something proved the connection to be good. It
	// breaks some time before anybody notices, so the blind time begins here.
	seen time.Time
	ever bool // it was open once
}

// Open reports whether the hive can hear.
func (s *Sight) Open() bool { return s.open }

// Prove notes that something came in.
func (s *Sight) Prove(now time.Time) { s.seen = now }

// Close notes that the connection is gone, and reports whether that is news. It
// can not have been gone for longer than unnoticed without being missed.
func (s *Sight) Close(now time.Time, unnoticed time.Duration) bool {
	was := s.open
	if earliest := now.Add(-unnoticed); was && s.seen.Before(earliest) {
		s.seen = earliest
	}
	s.open = false
	return was
}

// Reopen notes that the connection is there. It returns the time to be credited,
// and whether it is there for the first time, when there is nothing to credit.
func (s *Sight) Reopen(now time.Time) (blind time.Duration, first bool) {
	first = !s.ever
	if !first {
		blind = now.Sub(s.seen) + BackGrace
	}
	s.open, s.ever, s.seen = true, true, now
	return blind, first
}
