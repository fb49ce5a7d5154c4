package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// tells returns what this view would tell other queens of silences.
func (s *stage) tells() (list []string) {
	for _, h := range s.v.Hives() {
		say, _ := h.Say(s.now)
		for i := range say.Events {
			switch k := say.Events[i].Data.Kind; k {
			case hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindUnverified:
				list = append(list, h.ID()+" "+string(k))
			}
		}
	}
	for _, z := range s.v.zones {
		if _, ok := z.Say(s.now); ok {
			list = append(list, z.Key())
		}
	}
	return list
}

// A queen that may be the one that is cut off loses nobody at once, and tells nobody of
// whom it holds.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		name  string
		mute  bool // the store does not answer
		hives int
		dead  int
		apart bool
	}{
		{"the store is mute, and one hive is silent", true, 8, 1, true},
		{"3 of 4 are silent", false, 4, 3, true},
		{"2 of 4 are silent", false, 4, 2, false},
		{"2 of 3 are silent", false, 3, 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, BrakeRule{})
			s.v.StoreMute(false)
			s.add("eu", c.hives).run(time.Minute)
			s.v.StoreMute(c.mute)
			s.silence("eu", 0, c.dead)
			apart := false
			s.until("all are lost", 90*time.Second, func() bool {
				apart = apart || s.v.Apart() != ""
				// Those that were late while most were heard are told as that.
				if told := s.tells(); s.v.Apart() != "" && slices.ContainsFunc(told, func(x string) bool { return c.mute || !strings.HasSuffix(x, " late") }) {
					t.Fatalf("tells %v", told)
				}
				return s.count("eu", hivebeat.Lost) == c.dead
			})
			if apart != c.apart {
				t.Errorf("apart: %t, want %t", apart, c.apart)
			}
			for _, id := range s.order[:c.dead] {
				if held := slices.Contains(s.kinds[id], hivebeat.KindUnverified); held != c.apart {
					t.Errorf("%s: %v, want held: %t", id, s.kinds[id], c.apart)
				}
			}
			s.v.StoreMute(false)
			s.run(50 * time.Second)
			told := s.tells()
			told = slices.DeleteFunc(told, func(x string) bool { return !strings.HasSuffix(x, " lost") })
			if len(told) != c.dead || s.v.Apart() != "" {
				t.Errorf("tells %v in the end, %q", told, s.v.Apart())
			}
		})
	}
}

// What a queen found while it was apart, and what is no longer so, no other one is told.
func TestApartAndBack(t *testing.T) {
	s := newStage(t, BrakeRule{})
	s.v.StoreMute(false)
	s.add("eu", 8).run(time.Minute)
	s.v.StoreMute(true)
	s.silence("eu", 0, 7).until("all are lost in their turn", 90*time.Second, func() bool { return s.count("eu", hivebeat.Lost) == 7 })
	if told := s.tells(); len(told) > 0 {
		t.Fatalf("tells %v while it is apart", told)
	}
	s.v.StoreMute(false)
	for _, id := range s.order[:6] { // one is dead
		s.silent[id] = false
	}
	for range 440 {
		if told := s.tells(); len(told) > 0 {
			t.Fatalf("tells %v before they can have answered", told)
		}
		s.run(100 * time.Millisecond)
	}
	if n := s.called[s.order[6]]; n != 2 { // when it was held, and when the queen was not apart any more
		t.Errorf("the one that is dead was called %d times", n)
	}
	s.run(2 * time.Second)
	if told := s.tells(); !slices.Equal(told, []string{s.order[6] + " lost"}) {
		t.Errorf("tells %v, want the one that is dead", told)
	}
}

// A queen that was given no store has nobody to share with: it is never apart.
func TestNeverApartWithoutAStore(t *testing.T) {
	s := newStage(t, BrakeRule{Off: true})
	s.add("eu", 8).run(time.Minute)
	s.silence("eu", 0, 7).run(46 * time.Second)
	if n := s.count("eu", hivebeat.Lost); n != 7 || s.v.Apart() != "" {
		t.Errorf("%d are lost, %q", n, s.v.Apart())
	}
}
