package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// The store comes and goes while most of a zone dies. No hive is lost without an
// acknowledgement of the store, and in the end all are lost: none stays held or
// unverified.
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

// The answer to a request from before the cut may be from before the cut too.
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

// Without a replicated store, and with the brake off, no queen believes that it may be
// cut off.
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

// The brake has released a hive, and its key is being read, when this queen finds that it
// may be cut off, and then that it is not. The hive is judged again, and not forgotten.
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

// A queen that may be cut off cannot hear for an hour before the store acknowledges again.
// Its adopted workers do not get credit for that hour twice: each has the time of one that
// fell silent just now, and one that was heard since is judged as usual.
func TestWhatAdoptedWorkersGetWhenAQueenIsNotApartAnyMore(t *testing.T) {
	v := New(45 * time.Second)
	v.SetReplicas(3)
	mustFeed(t, v, snapshotOf("lost", 100, 1, workersOf(2)...), at(0))
	mustFeed(t, v, snapshotOf("silent", 100, 1), at(0))
	v.LearnKey("lost", rosterOf(2, hivebeat.Lost, 100, 1), at(1))
	settleChecks(v, at(22.5))
	settleChecks(v, at(45))
	if v.Hive("silent").Live() != hivebeat.Unverified || v.Apart() == "" {
		t.Fatalf("%s, apart %q", v.Hive("silent").Live(), v.Apart())
	}
	v.Doubt(at(50))
	v.BlindFor(3600 * time.Second)
	w := workerOf("w01")
	beat := hivebeat.Beat{V: 1, Hive: "lost", Worker: "w01", Facts: w.Facts}
	beat.Seq += 10
	body, err := wire.EncodeBeat(&beat)
	if err == nil {
		err = v.Beat("lost", "", body, at(3650))
	}
	if err != nil {
		t.Fatal(err)
	}
	v.Prove(at(3655), at(3655))
	for _, tt := range []struct {
		at   float64
		want string
	}{
		{3650 + 46, "w00=alive w01=late"}, // the verdict of its hive on w00 stands until it is judged
		{3650 + 91, "w00=alive w01=lost"},
		{3655 + 91, "w00=lost w01=lost"},
	} {
		v.Prove(at(tt.at-1), at(tt.at-1)) // else it is apart again, for the hive that is silent still
		settleChecks(v, at(tt.at-1))      // the roll is called first
		settleChecks(v, at(tt.at))
		if got := lives(v, "lost"); got != tt.want {
			t.Errorf("after %v s: %s, want %s", tt.at, got, tt.want)
		}
	}
}
