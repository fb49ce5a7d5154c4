package demo

import (
	"math/rand/v2"
	"time"
)

// scene is something that happens to a worker.
type scene uint8

const (
	restart scene = iota // it ends without a goodbye and starts again at once
	goodbye              // it leaves in order, and comes back later
	crash                // it goes silent long enough to be lost, and comes back
	reload               // it announces silence and loads its model again
	scenes
)

// cue is a scene for one worker.
type cue struct {
	scene scene
	who   int // index among all workers
	wait  time.Duration
}

// plot chooses what happens next. Each round contains every scene once, in a new order, and
// no worker gets two scenes in a row.
type plot struct {
	r     *rand.Rand
	size  int // workers
	pace  time.Duration
	round []int
	last  int
}

func (p *plot) next() cue {
	if len(p.round) == 0 {
		p.round = p.r.Perm(int(scenes))
	}
	s := scene(p.round[0])
	p.round = p.round[1:]
	who := p.r.IntN(p.size)
	if who == p.last {
		who = (who + 1) % p.size
	}
	p.last = who
	return cue{s, who, p.pace/2 + time.Duration(p.r.Int64N(int64(p.pace)))}
}
