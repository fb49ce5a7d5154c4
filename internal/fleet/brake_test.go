package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// stage is a fleet under virtual time: hives that beat every 13.5 s, each at its
// own moment, until they are silenced.
type stage struct {
	t      testing.TB
	v      *View
	now    time.Time
	seq    map[string]uint64
	zone   map[string]string
	next   map[string]time.Time
	silent map[string]bool
	order  []string

	kinds   map[string][]hivebeat.Kind // by hive
	at      map[string]time.Time       // of its last step
	lostAt  []time.Time
	called  map[string]int
	said    []string      // of the brakes
	delay   time.Duration // of the answer to a check
	asked   []asked
	answers bool // a hive that is silenced answers a roll call
}

// asked is a check that waits for its answer.
type asked struct {
	Check
	at time.Time
}

func newStage(t testing.TB, rule BrakeRule) *stage {
	s := &stage{
		t: t, v: New(45 * time.Second), now: at(0), seq: map[string]uint64{}, zone: map[string]string{}, next: map[string]time.Time{},
		silent: map[string]bool{}, kinds: map[string][]hivebeat.Kind{}, at: map[string]time.Time{}, called: map[string]int{},
	}
	s.v.SetBrake(rule)
	return s
}

// add makes n hives in a zone, whose beats are spread over their period.
func (s *stage) add(zone string, n int) *stage {
	for i := range n {
		id := fmt.Sprintf("%s-%04d", strings.ReplaceAll(zone, " ", "_"), i)
		s.order, s.zone[id] = append(s.order, id), zone
		s.next[id] = s.now.Add(time.Duration(i) * 13500 * time.Millisecond / time.Duration(n))
		s.beat(id)
	}
	return s
}

func (s *stage) beat(id string) {
	s.seq[id]++
	b := snapshotOf(id, 100, s.seq[id])
	b.Labels = map[string]string{"zone": s.zone[id]}
	if s.zone[id] == "" {
		b.Labels = nil
	}
	var page wire.SnapshotView
	if err := wire.ParseSnapshot(encode(s.t, b), &page); err != nil {
		s.t.Fatal(err)
	}
	if err := s.v.Apply(&page, s.now); err != nil {
		s.t.Fatalf("%s: %v", id, err)
	}
}

// run lets time pass.
func (s *stage) run(d time.Duration) *stage {
	for end := s.now.Add(d); s.now.Before(end); {
		s.now = s.now.Add(100 * time.Millisecond)
		for _, id := range s.order {
			if !s.silent[id] && !s.now.Before(s.next[id]) {
				s.next[id] = s.now.Add(13500 * time.Millisecond)
				s.beat(id)
			}
		}
		s.settle()
	}
	return s
}

func (s *stage) settle() {
	s.v.Tick(s.now)
	first := s.v.Take()
	for _, c := range first.Checks {
		s.asked = append(s.asked, asked{c, s.now.Add(s.delay)})
	}
	s.asked = slices.DeleteFunc(s.asked, func(a asked) bool {
		if a.at.After(s.now) {
			return false
		}
		s.v.Checked(a.Check, 0, 0, s.now)
		return true
	})
	steps, announcers := slices.Clone(first.Steps), slices.Clone(first.Announcers)
	calls := slices.Clone(first.Calls)
	then := s.v.Take()
	steps, announcers, calls = append(steps, then.Steps...), append(announcers, then.Announcers...), append(calls, then.Calls...)
	for _, c := range calls {
		if c.Workers {
			continue
		}
		s.called[c.Hive]++
		if s.answers {
			s.beat(c.Hive)
		}
	}
	for _, x := range steps {
		s.kinds[x.Hive] = append(s.kinds[x.Hive], x.Kind)
		s.at[x.Hive] = s.now
		if x.Kind == hivebeat.KindLost {
			s.lostAt = append(s.lostAt, s.now)
		}
	}
	for _, t := range announcers {
		z, ok := t.(*Zone)
		if !ok {
			continue
		}
		if say, ok := z.Announce(s.now); ok {
			s.said = append(s.said, say.Events[0].Data.Zone+" "+say.Events[0].Data.To)
			s.v.LearnKey(z.Key(), ledger.RosterItem{RosterEntry: say.Next, Revision: say.Next.N, Epoch: 1}, s.now)
		}
	}
}

// silence ends hives first..last-1 of a zone.
func (s *stage) silence(zone string, first, last int) *stage {
	n := 0
	for _, id := range s.order {
		if s.zone[id] != zone {
			continue
		}
		if n >= first && n < last {
			s.silent[id] = true
		}
		n++
	}
	return s
}

// count returns how many hives of a zone have this verdict now.
func (s *stage) count(zone string, live hivebeat.Live) (n int) {
	for _, h := range s.v.Hives() {
		if s.zone[h.ID()] == zone && h.Live() == live {
			n++
		}
	}
	return n
}

// until runs until cond holds, or fails the test.
func (s *stage) until(what string, limit time.Duration, cond func() bool) *stage {
	s.t.Helper()
	for end := s.now.Add(limit); !cond(); s.run(100 * time.Millisecond) {
		if s.now.After(end) {
			s.t.Fatalf("%s: not within %v", what, limit)
		}
	}
	return s
}

func (s *stage) braking() bool { return len(s.v.Brakes()) > 0 }

func TestTheEdgeOfTheBrake(t *testing.T) {
	for _, c := range []struct {
		name        string
		rule        BrakeRule
		hives, dead int
		brake       bool
	}{
		{"one of one", BrakeRule{}, 1, 1, false},
		{"three of three are believed", BrakeRule{}, 3, 3, false},
		{"all four are not", BrakeRule{}, 4, 4, true},
		{"two of six", BrakeRule{}, 6, 2, false},
		{"three of ten are 30 %", BrakeRule{}, 10, 3, false},
		{"four of ten", BrakeRule{}, 10, 4, true},
		{"thirty of a hundred", BrakeRule{}, 100, 30, false},
		{"thirty-one of a hundred, at once", BrakeRule{}, 100, 31, true},
		{"half, where half is allowed", BrakeRule{Share: 0.5}, 40, 20, false},
		{"more than half", BrakeRule{Share: 0.5}, 40, 21, true},
		{"all, with the brake off", BrakeRule{Off: true}, 50, 50, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, c.rule).add("eu", c.hives).add("us", 20).run(time.Minute)
			for _, id := range s.order { // they fall silent in one moment, heard in one moment
				if s.zone[id] == "eu" {
					s.next[id] = s.now
				}
			}
			s.run(100*time.Millisecond).silence("eu", 0, c.dead)
			s.run(44 * time.Second)
			if n := s.count("eu", hivebeat.Lost) + s.count("eu", hivebeat.Unverified); n != 0 {
				t.Fatalf("%d are lost or unverified before their deadline", n)
			}
			s.run(1500 * time.Millisecond)
			want := hivebeat.Lost
			if c.brake {
				want = hivebeat.Unverified
			}
			if n := s.count("eu", want); n != c.dead || s.braking() != c.brake {
				t.Errorf("%d are %s, want %d; brake %t, want %t", n, want, c.dead, s.braking(), c.brake)
			}
			s.run(2 * time.Minute)
			if n := s.count("eu", hivebeat.Lost); n != c.dead || s.braking() {
				t.Errorf("in the end %d are lost, brake %t", n, s.braking())
			}
			if n := s.count("us", hivebeat.Alive); n != 20 {
				t.Errorf("%d of the other zone are alive", n)
			}
		})
	}
}

// TestMassSilence is the life of one brake: a zone falls silent, is held, called,
// and lost in turn.
func TestMassSilence(t *testing.T) {
	const n = 600
	s := newStage(t, BrakeRule{}).add("eu", n).add("us", 100).run(time.Minute)
	s.silence("eu", 0, n)
	s.until("brake", time.Minute, s.braking)
	began := s.now
	if lost := s.count("eu", hivebeat.Lost); lost != 0 {
		t.Errorf("%d were believed before", lost)
	}
	us := s.order[n]
	s.silent[us] = true // one of another zone dies as well: that is believed at its time
	s.until("end", 5*time.Minute, func() bool { return !s.braking() })
	took := s.now.Sub(began)
	for _, id := range s.order[:n] {
		if got := fmt.Sprint(s.kinds[id]); got != "[joined late unverified lost]" || s.called[id] != 1 {
			t.Fatalf("%s: %s, called %d times", id, got, s.called[id])
		}
	}
	if s.called[us] != 0 || s.v.Hive(us).Live() != hivebeat.Lost {
		t.Errorf("the one of another zone is %s, called %d times", s.v.Hive(us).Live(), s.called[us])
	}
	if got := fmt.Sprint(s.said); got != "[eu on eu off]" {
		t.Errorf("told %s", got)
	}
	// The first has its time to answer, and then max(5, 600/60) a second are lost.
	if first := s.lostAt[0].Sub(began); first < s.v.Spread()+answerTime {
		t.Errorf("the first was lost after %v", first)
	}
	perSecond := map[int64]int{}
	for _, when := range s.lostAt {
		perSecond[when.Unix()]++
	}
	for _, k := range perSecond {
		if k > 13 { // 10, and what brakeBurst lets come together
			t.Errorf("%d were lost in one second", k)
		}
	}
	if took > 95*time.Second {
		t.Errorf("the brake was on for %v", took)
	}
	t.Logf("%d hives: the brake was on for %v", n, took)
}

func TestWhoAnswersTheRollIsAlive(t *testing.T) {
	s := newStage(t, BrakeRule{}).add("eu", 50).run(time.Minute)
	s.answers = true
	s.silence("eu", 0, 50)
	s.run(50 * time.Second)
	for id, kinds := range s.kinds {
		for _, k := range kinds {
			if k == hivebeat.KindLost {
				t.Errorf("%s: %v", id, kinds)
			}
		}
	}
	if len(s.called) != 50 {
		t.Errorf("%d were called", len(s.called))
	}
	s.silent = map[string]bool{}
	s.run(time.Minute)
	if n := s.count("eu", hivebeat.Alive); n != 50 || s.braking() {
		t.Errorf("%d alive, brake %t", n, s.braking())
	}
}

func TestHivesWithoutAZoneAreOne(t *testing.T) {
	s := newStage(t, BrakeRule{}).add("", 20).add("a b", 5).run(time.Minute)
	s.silence("", 0, 20).run(40 * time.Second)
	s.until("brake", 20*time.Second, s.braking)
	z := s.v.Brakes()[0]
	if z.Name() != "" || z.Key() != "brake.=" || s.v.zoneOf("a b").Key() != "brake.=YSBi" {
		t.Errorf("%q %q", z.Name(), z.Key())
	}
	for _, name := range []string{"", "a b", "eu", "eu.west", "ü"} {
		if got, ok := zoneOfKey((&Zone{name: name}).Key()); !ok || got != name {
			t.Errorf("%q became %q", name, got)
		}
	}
	if _, ok := zoneOfKey("brake"); ok {
		t.Error("a hive of the name brake is no brake")
	}
}

// TestDeathsInARowAreOne: the silence comes hive by hive, each believed for
// itself, until they are too many.
func TestDeathsInARowAreOne(t *testing.T) {
	s := newStage(t, BrakeRule{}).add("eu", 20).run(time.Minute)
	for i := range 20 {
		s.silence("eu", i, i+1).run(15 * time.Second)
	}
	s.run(2 * time.Minute)
	if s.count("eu", hivebeat.Lost) != 20 || len(s.said) != 0 {
		t.Errorf("one in 15 s: told %v, %d lost", s.said, s.count("eu", hivebeat.Lost))
	}
	s = newStage(t, BrakeRule{}).add("eu", 20).run(time.Minute)
	for i := range 20 {
		s.silence("eu", i, i+1).run(500 * time.Millisecond)
	}
	s.run(2 * time.Minute)
	if s.count("eu", hivebeat.Lost) != 20 || len(s.said) < 2 || s.said[0] != "eu on" {
		t.Errorf("two a second: told %v, %d lost", s.said, s.count("eu", hivebeat.Lost))
	}
}

// TestColdStart: hives known only from the roster are lost through the brake.
func TestColdStart(t *testing.T) {
	s := newStage(t, BrakeRule{})
	for i := range 40 {
		id := fmt.Sprintf("h%02d", i)
		item := rosterOf(1, hivebeat.Alive, 100, 5)
		item.Zone = "eu"
		s.zone[id] = "eu"
		s.v.LearnKey(id, item, s.now)
	}
	s.run(44 * time.Second)
	if s.braking() || s.count("eu", hivebeat.Unverified) != 40 {
		t.Error("too early")
	}
	s.run(1500 * time.Millisecond)
	if !s.braking() || s.count("eu", hivebeat.Unverified) != 40 || len(s.called) != 40 {
		t.Errorf("brake %t, %d unverified, %d called", s.braking(), s.count("eu", hivebeat.Unverified), len(s.called))
	}
	h := s.v.Hive("h00")
	if kind, to, ok := h.Difference(s.now); !ok || kind != hivebeat.KindUnverified || to != hivebeat.Unverified {
		t.Errorf("what is held is told: %s %s %t", kind, to, ok)
	}
	s.run(15 * time.Second)
	if s.braking() || s.count("eu", hivebeat.Lost) != 40 {
		t.Errorf("brake %t, %d lost", s.braking(), s.count("eu", hivebeat.Lost))
	}
}

// TestABrakeIsToldOnce: two queens brake for the same silence, one shortly after the other.
func TestABrakeIsToldOnce(t *testing.T) {
	a, b := &Zone{name: "eu"}, &Zone{name: "eu"}
	va, vb := New(time.Minute), New(time.Minute)
	va.zones, vb.zones = []*Zone{a}, []*Zone{b}
	var roster ledger.RosterItem
	var told []string
	tell := func(v *View, z *Zone, now time.Time) {
		v.LearnKey(z.Key(), roster, now)
		if say, ok := z.Announce(now); ok {
			roster = ledger.RosterItem{RosterEntry: say.Next, Revision: say.Next.N, Epoch: 1}
			told = append(told, say.Events[0].ID+" "+say.Events[0].Data.To)
			v.LearnKey(z.Key(), roster, now)
		}
	}
	both := func(now time.Time) { tell(va, a, now); tell(vb, b, now); tell(va, a, now); tell(vb, b, now) }
	va.startBrake(a, 9, at(0))
	both(at(0))
	vb.startBrake(b, 9, at(1))
	both(at(1))
	a.on = false
	both(at(5)) // b brakes on: that is no new start
	b.on = false
	both(at(6))
	vb.startBrake(b, 9, at(60)) // another brake, which a does not have
	both(at(60))
	both(at(120))
	b.on = false
	both(at(121))
	vb.startBrake(b, 9, at(200))
	both(at(200))
	vb.zones = nil // and its queen dies
	b.on = false
	tell(va, a, at(300))
	roster.Stored = brakeForgotten + time.Second
	tell(va, a, at(300))
	want := "brake.eu.1 on brake.eu.2 off brake.eu.3 on brake.eu.4 off brake.eu.5 on brake.eu.6 off"
	if got := strings.Join(told, " "); got != want {
		t.Errorf("told\n%s, want\n%s", got, want)
	}
}

// TestBlindTimeIsCreditedToTheBrake: a held hive waits for its answer, which this queen
// could not hear.
func TestBlindTimeIsCreditedToTheBrake(t *testing.T) {
	s := newStage(t, BrakeRule{}).add("eu", 20).run(time.Minute)
	s.silence("eu", 0, 20).until("brake", time.Minute, s.braking)
	s.v.Doubt(s.now)
	s.run(30 * time.Second)
	s.v.BlindFor(30 * time.Second)
	s.run(2 * time.Second)
	if n := s.count("eu", hivebeat.Lost); n != 0 {
		t.Errorf("%d are lost without having had their time to answer", n)
	}
	s.run(30 * time.Second)
	if n := s.count("eu", hivebeat.Lost); n != 20 || s.braking() {
		t.Errorf("%d lost, brake %t", n, s.braking())
	}
}

// TestTheBrakeAlwaysEnds silences hives at random, lets some answer and some come
// back, and looks at every moment.
func TestTheBrakeAlwaysEnds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStage(t, BrakeRule{})
		zones := rapid.IntRange(1, 3).Draw(rt, "zones")
		for z := range zones {
			s.add(fmt.Sprint("z", z), rapid.IntRange(1, 30).Draw(rt, "hives"))
		}
		s.run(20 * time.Second)
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"silence", "silence", "back", "answer", "blind"}).Draw(rt, "op") {
			case "silence":
				for _, id := range s.order {
					if rapid.IntRange(0, 2).Draw(rt, "who") > 0 {
						s.silent[id] = true
					}
				}
			case "back":
				for _, id := range s.order {
					if rapid.Bool().Draw(rt, "who") {
						delete(s.silent, id)
					}
				}
			case "answer":
				s.answers = !s.answers
			case "blind":
				s.v.Doubt(s.now)
				d := time.Duration(rapid.IntRange(1, 60).Draw(rt, "s")) * time.Second
				s.run(d)
				s.v.BlindFor(d)
			}
			s.run(time.Duration(rapid.IntRange(1, 60).Draw(rt, "s")) * time.Second)
			holding := 0
			for _, h := range s.v.Hives() {
				if h.heldBy != nil {
					holding++
					if h.Live() != hivebeat.Unverified || !h.heldBy.on {
						rt.Fatalf("%s is held and %s", h.ID(), h.Live())
					}
				}
			}
			for _, z := range s.v.Brakes() {
				holding -= z.holding
			}
			if holding != 0 {
				rt.Fatalf("%d more are held than the brakes count", holding)
			}
		}
		s.answers = false
		s.run(3 * time.Minute)
		if s.braking() || s.v.Unverified() > 0 {
			rt.Fatalf("the brake is still on: %d unverified", s.v.Unverified())
		}
		for _, id := range s.order {
			if h := s.v.Hive(id); (h.Live() == hivebeat.Lost) != s.silent[id] {
				rt.Fatalf("%s is %s, silent %t", id, h.Live(), s.silent[id])
			}
		}
		for i, said := range s.said {
			if i > 0 && said == s.said[i-1] {
				rt.Fatalf("told twice: %v", s.said)
			}
		}
	})
}
