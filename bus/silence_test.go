package bus

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// played is a connection under a virtual clock, whose server answers pings unless it is
// mute.
type played struct {
	silence
	now      time.Duration
	socket   *socket
	received uint64
	servers  int
	mute     bool
	pings    []time.Duration
	moves    []time.Duration
}

func playSilence(every time.Duration, random float64) *played {
	return &played{
		silence: *newSilence(every, func() float64 { return random }),
		socket:  new(socket), received: 100, servers: 3,
	}
}

// until plays on to end, and calls look whenever it is due.
func (p *played) until(end time.Duration) {
	for {
		due := max(p.now, p.next.Sub(t0))
		if p.next.IsZero() {
			due = p.now
		}
		if due >= end {
			p.now = end
			return
		}
		p.now = due
		ask, move := p.look(at(p.now), p.socket, p.received, p.servers)
		if ask {
			p.pings = append(p.pings, p.now)
			if !p.mute {
				p.received += 6
			}
		}
		if move {
			p.moves = append(p.moves, p.now)
		}
	}
}

func TestAConnectionThatIsNotAnsweredMoves(t *testing.T) {
	for _, c := range []struct {
		every  time.Duration
		random float64
		within time.Duration // since the server last sent something
		of     float64       // in promises, at most
	}{
		{every: 100 * ms, within: 1500 * ms},
		{every: 100 * ms, random: 0.999, within: 1500 * ms},
		{every: time.Second, random: 0.999, within: 1500 * ms},
		{every: 3 * time.Second, random: 0.999, within: 4500 * ms},
		{every: 0, random: 0.999, within: 11500 * ms},
		{every: 15 * time.Second, random: 0.999, within: 11500 * ms},
		{every: time.Hour, random: 0.999, within: 24 * time.Second},
	} {
		t.Run(fmt.Sprintf("%v, %v", c.every, c.random), func(t *testing.T) {
			p := playSilence(c.every, c.random)
			p.until(time.Minute)
			if len(p.moves) > 0 {
				t.Fatalf("it moves from a server that answers: %v", p.moves)
			}
			p.mute = true
			p.until(2 * time.Minute)
			if len(p.moves) != 1 || p.moves[0]-time.Minute > c.within || p.moves[0]-time.Minute < unanswered*p.answer {
				t.Errorf("moves at %v after a minute; asked at %v", p.moves, p.pings)
			}
		})
	}
}

func TestWhoDoesNotMove(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*played)
	}{
		{"who knows one server", func(p *played) { p.servers = 1; p.until(time.Hour) }},
		{"who hears something that is no answer", func(p *played) {
			for range 1000 {
				p.received++
				p.until(p.now + 900*ms)
			}
		}},
		{"who is being connected", func(p *played) { p.socket, p.received = new(socket), 0; p.until(time.Hour) }},
		{"who was stopped while an answer came", func(p *played) {
			for range 10 {
				p.until(p.now + time.Second)
				p.now += 10 * time.Second // look runs before the input is read
				p.until(p.now + 10*ms)
				p.received += 6
			}
		}},
		{"who is stopped time and again", func(p *played) {
			for range 100 {
				p.now += time.Second + overslept + ms
				p.look(at(p.now), p.socket, p.received, p.servers)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := playSilence(time.Second, 0.5)
			p.until(time.Second)
			p.mute = true
			c.do(p)
			if len(p.moves) > 0 {
				t.Errorf("moved at %v, of %v", p.moves, p.now)
			}
		})
	}
}

// If no server answers, the servers are not to blame.
func TestMovesOnceAMinute(t *testing.T) {
	p := playSilence(time.Second, 0.5)
	p.mute = true
	for range 100 {
		n := len(p.moves)
		p.until(p.now + 2*time.Second)
		if len(p.moves) > n { // connected again, and mute after the handshake
			p.socket, p.received = new(socket), 100
		}
	}
	if len(p.moves) != 4 {
		t.Fatalf("moves in 200 s: %v", p.moves)
	}
	for i, at := range p.moves[1:] {
		if gap := at - p.moves[i]; gap < moveGap || gap > moveGap+5*time.Second {
			t.Errorf("moves %v apart", gap)
		}
	}
}

// Whatever happens, a look is due soon, and a server that has just sent something is
// kept.
func TestSilence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "every"))
		p := playSilence(every, rapid.Float64Range(0, 0.999).Draw(t, "random"))
		said := time.Duration(0)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			p.now += time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "later"))
			if rapid.Bool().Draw(t, "said") {
				p.received++
				said = p.now
			}
			if rapid.IntRange(0, 9).Draw(t, "new") == 0 {
				p.socket = new(socket)
				said = p.now
			}
			ask, move := p.look(at(p.now), p.socket, p.received, p.servers)
			if wait := p.next.Sub(at(p.now)); wait <= 0 || wait > maxAsk {
				t.Fatalf("the next look is due in %v", wait)
			}
			if move && (ask || p.now-said < unanswered*p.answer) {
				t.Fatalf("moves %v after a word", p.now-said)
			}
		}
	})
}
