package liveness

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// hearing returns an observer that is connected and calls Look at t0.
func hearing() *Observer {
	o := &Observer{}
	o.Look(t0)
	o.Dropped(t0, 0)
	if !o.Connect(t0) || !o.Trusts() {
		panic("it does not begin to hear")
	}
	return o
}

// back lets the token return at now, and returns the credited time.
func back(t *testing.T, o *Observer, now time.Time) time.Duration {
	t.Helper()
	token, ok := o.Token(now)
	if !ok {
		t.Fatal("it sends no token")
	}
	blind, ok := o.Back(now, token)
	if !ok || !o.Trusts() {
		t.Fatalf("the token is back (%t), and it trusts itself: %t", ok, o.Trusts())
	}
	return blind
}

func TestObserverThatWasStopped(t *testing.T) {
	o := hearing()
	for s := 1; s <= 10; s++ {
		if p := o.Look(at(s)); p != 0 || !o.Trusts() {
			t.Fatalf("a pause of %s at %d s", p, s)
		}
	}
	if p := o.Look(at(12)); p != 0 {
		t.Errorf("2 s are no pause: %s", p)
	}
	if p := o.Look(at(72)); p != 60*time.Second || o.Paused() != p || o.Trusts() {
		t.Fatalf("a pause of %s, %s in all, trusts itself: %t", p, o.Paused(), o.Trusts())
	}
	if got := o.HeardAt(at(73)); !got.Equal(at(12)) {
		t.Errorf("what it reads counts as heard at %s, want when the pause began", got.Sub(t0))
	}
	if got := back(t, o, at(73)); got != 61*time.Second || o.Blind() != got {
		t.Errorf("credited %s, want 61 s", got)
	}
	if got := o.HeardAt(at(74)); !got.Equal(at(74)) {
		t.Errorf("after the token what it reads counts as heard at %s", got.Sub(t0))
	}
}

func TestObserverThatIsStoppedAgainWhileItWaits(t *testing.T) {
	o := hearing()
	o.Look(at(10))
	old, _ := o.Token(at(10))
	o.Look(at(40)) // the token has waited since the pause began, ahead of all later messages
	if _, ok := o.Back(at(40), old); ok || o.Trusts() {
		t.Fatalf("a token from before the pause counts: %t, and it trusts itself: %t", ok, o.Trusts())
	}
	if got := back(t, o, at(41)); got != 41*time.Second {
		t.Errorf("credited %s, want all of it", got)
	}
}

func TestObserverThatIsCutOff(t *testing.T) {
	for _, c := range []struct {
		name         string
		proof, from  int
		noticed, end int
	}{
		{"as nothing came in since", 10, 10, 20, 60},
		{"no longer than it may go unnoticed", 10, 20, 50, 60},
	} {
		o := hearing()
		o.Prove(at(c.proof))
		o.ran = at(c.noticed)
		if !o.Cut(at(c.noticed), 30*time.Second) || o.Cut(at(c.noticed), 0) || o.Trusts() || o.Connected() {
			t.Errorf("%s: it is news once, and ends the hearing", c.name)
		}
		if _, ok := o.Token(at(c.noticed)); ok {
			t.Errorf("%s: a token while cut off", c.name)
		}
		if o.Connect(at(c.end)) || o.Trusts() {
			t.Errorf("%s: it trusts itself before its token is back", c.name)
		}
		want := time.Duration(c.end-c.from)*time.Second + BackGrace
		if got := back(t, o, at(c.end)); got != want {
			t.Errorf("%s: credited %s, want %s", c.name, got, want)
		}
	}
}

// TestObserverThatWasStoppedWhileCutOff: a stopped observer sends no pings. Its
// connection may have been dead before the stop for the longest time that this can stay
// unnoticed.
func TestObserverThatWasStoppedWhileCutOff(t *testing.T) {
	for _, c := range []struct {
		name        string
		proof, from int
	}{
		{"as nothing came in since", 80, 80},
		{"no longer than it may go unnoticed", 10, 70},
		{"something waited", 120, 100},
	} {
		o := hearing()
		o.Prove(at(c.proof))
		o.ran = at(100)
		o.Look(at(220))
		if !o.Cut(at(220), 30*time.Second) {
			t.Fatalf("%s: it is no news", c.name)
		}
		o.Connect(at(230))
		want := time.Duration(230-c.from)*time.Second + BackGrace
		if got := back(t, o, at(230)); got != want {
			t.Errorf("%s: credited %s, want %s", c.name, got, want)
		}
	}
}

func TestTheFirstConnectionIsNoDoubt(t *testing.T) {
	var o Observer
	o.Look(t0)
	if cut, pause := o.Cut(t0, time.Minute), o.Look(at(60)); cut || pause == 0 {
		t.Errorf("never connected, then stopped: cut %t, paused %s", cut, pause)
	}
	if first := o.Connect(at(60)); !first || !o.Trusts() {
		t.Errorf("first connection: %t, and it trusts itself: %t", first, o.Trusts())
	}
}

func TestObserverThatIsToldOfDrops(t *testing.T) {
	o := hearing()
	if none, five := o.Dropped(at(1), 0), o.Dropped(at(2), 5); none != 0 || five != 5 || o.Trusts() {
		t.Fatalf("of 0 and 5 drops it counts %d and %d, and trusts itself: %t", none, five, o.Trusts())
	}
	if got := o.HeardAt(at(2)); !got.Equal(at(1)) {
		t.Errorf("in doubt since %s, want since it knew that nothing was dropped", got.Sub(t0))
	}
	token, _ := o.Token(at(2))
	if n := o.Dropped(at(3), 5); n != 0 {
		t.Errorf("told again of %d", n)
	}
	if _, ok := o.Token(at(3)); ok {
		t.Error("a second token while the first is out")
	}
	if again, ok := o.Token(at(4)); !ok || again == token {
		t.Errorf("after token %v got lost: sent again %t, %v", token, ok, again)
	} else if _, ok := o.Back(at(4), token); ok {
		t.Error("the first one counts")
	}
}

// A half-open link accepts everything and delivers nothing: no FIN, and NATS looks
// connected.
func TestObserverOnAHalfOpenLink(t *testing.T) {
	o := hearing()
	o.Prove(at(10))
	if !o.Hears(at(10).Add(proofHolds)) {
		t.Error("it does not believe what it heard just now")
	}
	if _, ok := o.Token(at(10)); ok {
		t.Error("it asks, and nobody doubted")
	}
	if o.Hears(at(13)) {
		t.Fatal("silence of 3 s proves that it hears")
	}
	token, ok := o.Token(at(13))
	if !ok || !o.Trusts() {
		t.Fatalf("it asks for a proof: %t; it is in no doubt yet: %t", ok, o.Trusts())
	}
	// The answer is there: the senders are silent, and nothing is credited.
	if blind, ok := o.Back(at(13), token); !ok || blind != 0 || !o.Hears(at(13)) || !o.Trusts() {
		t.Fatalf("the token is back: %t, credited %s", ok, blind)
	}
	// No answer: the observer doubts since it last heard something, and that time is
	// credited.
	if o.Hears(at(16)) {
		t.Fatal("silence of 3 s proves that it hears")
	}
	o.Token(at(16))
	token, ok = o.Token(at(16).Add(tokenAgain))
	if since, doubts := o.Doubts(); !ok || !doubts || !since.Equal(at(13)) || o.Trusts() {
		t.Fatalf("asks again: %t; doubts: %t, since %s", ok, doubts, since.Sub(t0))
	}
	if blind, ok := o.Back(at(30), token); !ok || blind != 17*time.Second+BackGrace || !o.Trusts() {
		t.Fatalf("the token is back: %t, credited %s", ok, blind)
	}
}

// A message counts as heard no later than it could have arrived, except for a pause that
// is too short to be noticed: no age is shown younger than it is.
func TestNothingIsHeardYoungerThanItIs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type message struct {
			sent  time.Time
			token uint64
		}
		o := &Observer{}
		now := t0
		var line []message // to the observer, in order
		o.Look(now)
		o.Connect(now)
		read := func() {
			for _, m := range line {
				if m.token != 0 {
					o.Back(now, m.token)
					continue
				}
				o.Prove(now)
				if at := o.HeardAt(now); at.After(m.sent.Add(MaxPause)) {
					rt.Fatalf("sent at %s, and heard at %s", m.sent.Sub(t0), at.Sub(t0))
				}
			}
			line = nil
		}
		for range rapid.IntRange(1, 50).Draw(rt, "steps") {
			stop := rapid.SampledFrom([]int{1, 5, 10, 19, 20, 21, 150, 600}).Draw(rt, "stopped for")
			for range stop { // tenths of a second
				now = now.Add(100 * time.Millisecond)
				if rapid.IntRange(0, 9).Draw(rt, "beat") == 0 {
					line = append(line, message{sent: now})
				}
			}
			o.Look(now)
			if rapid.IntRange(0, 5).Draw(rt, "dropped") == 0 {
				o.Dropped(now, o.drops+1)
			}
			read() // an observer that runs reads all waiting messages
			if token, ok := o.Token(now); ok {
				line = append(line, message{token: token})
			}
			if rapid.Bool().Draw(rt, "token is back at once") {
				read()
			}
		}
		o.Look(now)
		if token, ok := o.Token(now.Add(tokenAgain)); ok {
			line = append(line, message{token: token})
		}
		read()
		if !o.Trusts() {
			rt.Fatal("the doubt does not end")
		}
	})
}
