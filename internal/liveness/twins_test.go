package liveness

import (
	"math/rand/v2"
	"testing"
	"time"
)

const s = time.Second

// process beats every 30 s and answers roll calls, in a virtual time that begins at 0.
type process struct {
	inc, seq uint64
	clock    time.Duration // how far it is ahead
	delay    time.Duration // of its messages
	mute     bool          // its messages say neither its clock nor when they were sent
	from, to time.Duration // its lifetime
	next     time.Duration
	answers  time.Duration // when it answers the pending roll call; 0: none
}

// pair is an observer of processes with one id.
type pair struct {
	Lineage
	list   []*process
	flying []flying
	calls  []time.Duration
	found  []time.Duration // when conflicts were reported
	more   func(now time.Duration) time.Duration
}

type flying struct {
	at time.Duration
	m  Message
}

var epoch = time.Unix(1_790_000_000, 0)

func (p *pair) run(until time.Duration) {
	for now := time.Duration(0); now < until; now += 10 * time.Millisecond {
		for _, x := range p.list {
			if now < x.from || now >= x.to || now < x.next && (x.answers == 0 || now < x.answers) {
				continue
			}
			x.seq++
			x.next, x.answers = now+27*s, 0
			m := Message{Inc: x.inc, Seq: x.seq, Sent: epoch.Add(now + x.clock).UnixMilli()}
			if x.mute {
				m.Sent = 0
			}
			at := now + x.delay
			if p.more != nil {
				at += p.more(now)
			}
			p.flying = append(p.flying, flying{at, m})
		}
		for i := 0; i < len(p.flying); i++ {
			f := p.flying[i]
			if f.at > now {
				continue
			}
			p.flying = append(p.flying[:i], p.flying[i+1:]...)
			i--
			f.m.Heard = epoch.Add(now)
			p.hear(now, f.m)
		}
		if n := len(p.calls); p.Asks() && (n == 0 || now-p.calls[n-1] >= 2*s) {
			p.Asked(epoch.Add(now), 3*s)
			p.calls = append(p.calls, now)
			for i, x := range p.list {
				x.answers = now + time.Duration(1+i)*150*time.Millisecond
			}
		}
	}
}

func (p *pair) hear(now time.Duration, m Message) {
	o := p.Hear(m.Inc, m.Seq, true)
	inc, _ := p.Beside(o, m, true)
	if o == Conflict || inc != 0 {
		p.found = append(p.found, now)
	}
}

const forever = time.Hour

func TestTwinsAreFoundByTheirAnswers(t *testing.T) {
	for _, c := range []struct {
		name  string
		old   process // begins first
		new   process
		most  time.Duration // after the second one began
		least time.Duration
	}{
		{"the second has a higher incarnation", process{inc: 10, to: forever}, process{inc: 20, from: 100 * s, to: forever}, 10 * s, 0},
		{"the second has a lower one", process{inc: 20, to: forever}, process{inc: 10, from: 100 * s, to: forever}, 10 * s, 0},
		{"their clocks differ by hours", process{inc: 10, to: forever, clock: -3 * time.Hour}, process{inc: 20, from: 100 * s, to: forever, clock: 5 * time.Hour}, 10 * s, 0},
		{"their messages take a while", process{inc: 10, to: forever, delay: 400 * time.Millisecond}, process{inc: 20, from: 100 * s, to: forever, delay: 50 * time.Millisecond}, 10 * s, 0},
		{"one does not say when it sends", process{inc: 10, to: forever, mute: true}, process{inc: 20, from: 100 * s, to: forever}, 110 * s, 10 * s},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &pair{list: []*process{&c.old, &c.new}}
			p.run(400 * s)
			if len(p.found) != 1 {
				t.Fatalf("found %d times, want once: %v, calls %v", len(p.found), p.found, p.calls)
			}
			if after := p.found[0] - c.new.from; after > c.most || after < c.least {
				t.Errorf("found after %v, want %v to %v", after, c.least, c.most)
			}
			if len(p.calls) > 8 {
				t.Errorf("%d roll calls: %v", len(p.calls), p.calls)
			}
		})
	}
}

// A message that a process sent before it ended may be in flight for long: it is no
// answer.
func TestOldMailIsNoAnswer(t *testing.T) {
	for _, c := range []struct {
		name string
		more func(now time.Duration) time.Duration // transit time of a message sent at now
	}{
		{"none", func(time.Duration) time.Duration { return 0 }},
		{"in a bunch", func(now time.Duration) time.Duration {
			if now > 40*s && now < 100*s { // held until 110 s
				return 110*s - now
			}
			return 0
		}},
		{"one by one, in the times of answers", func(now time.Duration) time.Duration {
			if now > 30*s && now < 99*s {
				return 100*s - now + (now-30*s)/20
			}
			return 0
		}},
		{"a minute each", func(now time.Duration) time.Duration {
			if now > 20*s && now < 99*s {
				return 60 * s
			}
			return 0
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := &process{inc: 10, to: 99 * s}
			p := &pair{list: []*process{old, {inc: 20, from: 100 * s, to: forever}}, more: c.more}
			for at := 32 * s; at < 99*s; at += 2 * s { // it sends more than its interval needs
				m := Message{Inc: 10, Seq: 1000 + uint64(at/s), Sent: epoch.Add(at).UnixMilli()}
				p.flying = append(p.flying, flying{at + c.more(at), m})
			}
			p.run(400 * s)
			if len(p.found) != 0 {
				t.Errorf("a conflict after %v; calls %v", p.found, p.calls)
			}
		})
	}
}

// If one of the two is gone, the remaining one has no rival, whichever it is.
func TestOneThatAnswersAloneIsNoConflict(t *testing.T) {
	for name, list := range map[string][]*process{
		"the second ended at once":    {{inc: 10, to: forever}, {inc: 20, from: 100 * s, to: 100*s + 20*time.Millisecond}},
		"the first ended unseen":      {{inc: 10, to: 95 * s}, {inc: 20, from: 100 * s, to: forever}},
		"and its clock was behind":    {{inc: 20, to: 95 * s}, {inc: 10, from: 100 * s, to: forever}},
		"both, the first a bit later": {{inc: 10, to: 100*s + 200*time.Millisecond}, {inc: 20, from: 100 * s, to: forever}},
	} {
		p := &pair{list: list}
		p.run(400 * s)
		if len(p.found) != 0 {
			t.Errorf("%s: a conflict after %v, calls %v", name, p.found, p.calls)
		}
		if len(p.calls) > 15 {
			t.Errorf("%s: %d roll calls: %v", name, len(p.calls), p.calls)
		}
	}
}

// A process that restarts over and over is no reason for a roll call each time.
func TestACrashLoopCallsSeldom(t *testing.T) {
	p := &pair{}
	for i := range 100 {
		at := time.Duration(3*i) * s
		p.list = append(p.list, &process{inc: uint64(10 + i), from: at, to: at + 2*s})
	}
	p.run(300 * s)
	if len(p.found) > 0 || len(p.calls) < 4 || len(p.calls) > 6 {
		t.Errorf("%d conflicts, and calls %v", len(p.found), p.calls)
	}
}

// An observer that begins after one process ended does not know how long its messages
// take: a fifth of them arrive up to a minute later, in any order and in bunches.
func TestOldMailOfOneThatIsNotKnown(t *testing.T) {
	const runs = 2000
	conflicts, calls := 0, 0
	for seed := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := &pair{}
		every := time.Duration(1000+r.IntN(26_000)) * time.Millisecond
		held := time.Duration(r.IntN(60_000)) * time.Millisecond // until when a link holds all messages, in a third of the runs
		for at, seq := 30*s, uint64(1); at < 99*s; at, seq = at+every, seq+1 {
			comes := at
			switch {
			case r.IntN(5) == 0:
				comes += time.Duration(r.IntN(60_000)) * time.Millisecond
			case seed%3 == 0:
				comes = max(comes, 100*s+held)
			}
			if comes > 100*s { // otherwise the observer was not there yet
				p.flying = append(p.flying, flying{comes, Message{Inc: 10 + 20*(seed%2), Seq: seq, Sent: epoch.Add(at).UnixMilli()}})
			}
		}
		p.list = []*process{{inc: 20, from: 100 * s, to: forever}}
		p.run(200 * s)
		conflicts += len(p.found)
		calls += len(p.calls)
	}
	if conflicts > 0 || calls > 8*runs {
		t.Errorf("%d conflicts in %d runs, and %d roll calls", conflicts, runs, calls)
	}
}
