package verdict_test

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/verdict"
)

// sender is what a receiver keeps of one storage node.
type sender struct {
	guard verdict.Guard
	heard time.Time // by the clock of the receiver
	every time.Duration
}

// live returns the verdict on the node at now.
func (s *sender) live(now time.Time) hivebeat.Live {
	switch age := now.Sub(s.heard); {
	case s.guard.Ended():
		return hivebeat.Left
	case age >= verdict.LostAfter(s.every, 0):
		return hivebeat.Lost
	case age >= verdict.LateAfter(s.every, 0):
		return hivebeat.Late
	}
	return hivebeat.Alive
}

// hear handles a message of the node that was received at now.
func (s *sender) hear(now time.Time, inc, seq uint64, every time.Duration, bye bool) verdict.Outcome {
	o := s.guard.Hear(inc, seq, s.live(now) == hivebeat.Alive)
	if o.Accepted() { // otherwise the message must change nothing
		s.heard, s.every = now, every
		if bye {
			s.guard.End()
		}
	}
	return o
}

// A receiver judges storage nodes that promise a message every 10 s.
func Example() {
	const every = 10 * time.Second
	began := time.Now()
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	var node sender

	fmt.Println(" 0 s:", node.hear(at(0), 100, 1, every, false))
	for _, s := range []int{14, 15, 29, 30} { // silence
		fmt.Printf("%2d s: %s, %d missed\n", s, node.live(at(s)), verdict.Missed(at(s).Sub(node.heard), node.every, 0))
	}
	fmt.Println("31 s:", node.hear(at(31), 101, 1, every, false)) // the process was started again
	fmt.Println("32 s:", node.hear(at(32), 100, 2, every, false)) // a message of the old one, which was delayed
	fmt.Println("33 s:", node.hear(at(33), 101, 2, every, true))  // goodbye
	fmt.Println("99 s:", node.live(at(99)))
	// Output:
	//  0 s: first
	// 14 s: alive, 1 missed
	// 15 s: late, 1 missed
	// 29 s: late, 2 missed
	// 30 s: lost, 3 missed
	// 31 s: restarted
	// 32 s: stale
	// 33 s: next
	// 99 s: left
}
