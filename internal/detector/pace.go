package detector

import (
	"math"
	"time"

	"github.com/beatfabric/hivebeat"
)

// paceOver is the time of work that a pace is about: older work counts less and less.
const paceOver = time.Minute

// pace is how fast a worker finishes requests and generates tokens while it has work. Time
// without work does not count, so that the pace of a worker with little to do is its
// ability, and (busy + queue) / rate is how long its work will take.
type pace struct {
	at        time.Time // of the beat with the last figures
	done      uint64
	tokens    uint64
	rate, tps float64 // per second, rounded; 0: unknown
}

// hear takes the figures of an accepted beat. Its step has those of the beat before.
func (p *pace) hear(now time.Time, f *hivebeat.Facts, b beatStep) {
	was := b.work
	if b.outcome.Begins() || f.Done < p.done || f.Tokens < p.tokens || p.at.IsZero() {
		*p = pace{at: now, done: f.Done, tokens: f.Tokens}
		return
	}
	if !was.any() && f.Done == p.done && f.Tokens == p.tokens { // there was no work
		p.at = now
		return
	}
	took := now.Sub(p.at)
	if took < time.Second { // too short to say much
		return
	}
	p.rate = average(p.rate, f.Done-p.done, took)
	p.tps = average(p.tps, f.Tokens-p.tokens, took)
	p.at, p.done, p.tokens = now, f.Done, f.Tokens
}

// average moves the average old towards the pace of the last interval, by the weight that
// the interval has in an exponential average.
func average(old float64, done uint64, took time.Duration) float64 {
	pace := float64(done) / took.Seconds()
	if old > 0 {
		pace = old + (pace-old)*(1-math.Exp(-took.Seconds()/paceOver.Seconds()))
	}
	return math.Round(pace*1000) / 1000
}
