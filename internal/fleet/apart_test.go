package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// However the store comes and goes while most of a zone dies, nobody is lost whom the
// store did not acknowledge, and all are in the end: none stays held or unverified.
func TestApartEnds(t *testing.T) {
	for _, period := range []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second, 7 * time.Second, 20 * time.Second, 50 * time.Second, 3 * time.Minute} {
		for _, dead := range []int{1, 3, 12} {
			for _, delay := range []time.Duration{0, 700 * time.Millisecond} {
				t.Run(fmt.Sprintf("%v, %d, %v", period, dead, delay), func(t *testing.T) {
					s := newStage(t, BrakeRule{})
					s.v.SetReplicas(3)
					s.delay = delay
					s.add("eu", 14)
					proves := func(d time.Duration, yes bool) {
						for end := s.now.Add(d); s.now.Before(end); s.run(100 * time.Millisecond) {
							if yes {
								s.v.Prove(s.now, s.now)
							}
						}
					}
					proves(time.Minute, true)
					s.silence("eu", 0, dead)
					var proved time.Time
					for end, yes := s.now.Add(6*time.Minute), false; s.now.Before(end); yes = !yes {
						began := len(s.lostAt)
						if proves(period, yes); yes {
							proved = s.now
						} else if len(s.lostAt) > began && s.now.Sub(proved) > time.Minute {
							t.Fatalf("%d are lost %v after the store acknowledged something", len(s.lostAt)-began, s.now.Sub(proved))
						}
					}
					proves(3*time.Minute, true)
					if n := s.count("eu", hivebeat.Lost); n != dead || s.v.Unverified() > 0 || len(s.v.Brakes()) > 0 || s.v.Apart() != "" {
						t.Errorf("%d are lost of %d, %d are unverified, %d brakes are on, and it is %q", n, dead, s.v.Unverified(), len(s.v.Brakes()), s.v.Apart())
					}
				})
			}
		}
	}
}

// What the store acknowledges, and was asked for before, was perhaps acknowledged before
// the cut.
func TestApartEndsByWhatIsAskedSince(t *testing.T) {
	s := newStage(t, BrakeRule{})
	s.v.SetReplicas(3)
	s.add("eu", 4).run(30*time.Second).silence("eu", 0, 4).run(20 * time.Second)
	before := s.now
	s.until("it may be cut off", time.Minute, func() bool { return s.v.Apart() != "" })
	s.run(time.Second)
	if s.v.Prove(before, s.now); s.v.Apart() == "" {
		t.Error("asked before, and it is not cut off any more")
	}
	if s.v.Prove(s.now, s.now); s.v.Apart() != "" {
		t.Errorf("asked since, and %s", s.v.Apart())
	}
}

// Without a replicated store, and where every silence is to be believed, no queen takes
// itself for the one that is cut off.
func TestNeverApart(t *testing.T) {
	for _, s := range []*stage{newStage(t, BrakeRule{}), newStage(t, BrakeRule{Off: true})} {
		if s.v.rule.Off {
			s.v.SetReplicas(3)
		}
		s.add("eu", 8).run(time.Minute)
		s.silence("eu", 0, 3).run(50 * time.Second)
		if n := s.count("eu", hivebeat.Lost); n != 3 || s.v.Apart() != "" {
			t.Errorf("%d are lost, and it is %q", n, s.v.Apart())
		}
	}
}

// A hive whose turn it is by the brake, and whose key is being read, when this queen finds
// that it may be cut off, and then that it is not: it is judged anew, and not forgotten.
func TestAHiveWhoseTurnItIsIsJudgedAnew(t *testing.T) {
	s := newStage(t, BrakeRule{})
	s.v.SetReplicas(3)
	s.add("eu", 12).add("us", 2).run(30 * time.Second)
	s.silence("eu", 0, 12).run(20 * time.Second)
	s.v.Prove(s.now, s.now) // since those of eu were due
	s.silence("us", 0, 1).until("the brake is on", time.Minute, func() bool { return len(s.v.Brakes()) > 0 })
	s.delay = time.Minute
	s.until("the keys of all are read", 20*time.Second, func() bool { return len(s.asked) >= 12 })
	s.delay = 0
	s.until("it may be cut off", time.Minute, func() bool { return s.v.Apart() != "" })
	s.run(time.Second)
	s.v.Prove(s.now, s.now)
	for range 900 {
		s.v.Prove(s.now, s.now)
		s.run(100 * time.Millisecond)
	}
	if n := s.count("eu", hivebeat.Lost) + s.count("us", hivebeat.Lost); n != 13 || len(s.v.Brakes()) > 0 {
		t.Errorf("%d are lost of 13, %d are unverified, %d brakes are on", n, s.v.Unverified(), len(s.v.Brakes()))
	}
}
