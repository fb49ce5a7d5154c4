// Package whatif estimates what to expect of a network and of settings: how often a live
// sender is declared lost, and how long a crash goes unnoticed. hivebeat sim prints it.
package whatif

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/verdict"
)

// Month is the period that rates refer to.
const Month = 30 * 24 * time.Hour

// Settings describe a network, and the settings that an operator may choose for it.
type Settings struct {
	Loss   float64       // share of messages that are lost, independently: 0 to below 1
	Delay  time.Duration // minimum delay of a message
	Jitter time.Duration // largest additional delay, evenly distributed

	Every     time.Duration // promise of workers. Default hivebeat.WorkerEvery
	HiveEvery time.Duration // promise of hives. Default hivebeat.HiveEvery
	Misses    float64       // lost after this many promises. Default 3, as in the protocol

	Workers, Hives int    // size of the fleet. Defaults 100 and 10
	Seed           uint64 // of the random draws
}

// WithDefaults returns s with the default in each field that is zero.
func (s Settings) WithDefaults() Settings {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	or(&s.Every, hivebeat.WorkerEvery)
	or(&s.HiveEvery, hivebeat.HiveEvery)
	if s.Misses == 0 {
		s.Misses = 3
	}
	if s.Workers == 0 {
		s.Workers = 100
	}
	if s.Hives == 0 {
		s.Hives = 10
	}
	return s
}

// Outlook is the expectation for workers or for hives.
type Outlook struct {
	Patience  time.Duration `json:"lost_after_ns"`
	Survives  int           `json:"losses_survived"` // this many messages lost in a row never make a sender lost
	Sure      bool          `json:"survives_one"`    // at least one
	PerMonth  float64       `json:"false_deaths_per_month_each"`
	FleetWide float64       `json:"false_deaths_per_month_all"`
	Detection Detection     `json:"detection"`
}

// Detection is the time from a crash to the verdict that every client sees.
type Detection struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"` // of the draws
}

// Answer is the answer to Settings.
type Answer struct {
	Workers Outlook `json:"workers"` // lost to their hive, and reported by it to a queen
	Hives   Outlook `json:"hives"`   // lost to a queen
}

// draws is the number of random draws for each figure.
const draws = 20_000

// Ask estimates what to expect with s. It covers machines that fall silent, and
// not deaths that are detected sooner (exit, disconnect, goodbye).
func Ask(s Settings) Answer {
	s = s.WithDefaults()
	r := rand.New(rand.NewPCG(s.Seed, 1))
	var a Answer
	a.Workers = s.outlook(r, s.Every, s.Workers, true)
	a.Hives = s.outlook(r, s.HiveEvery, s.Hives, false)
	return a
}

func (s Settings) patience(every time.Duration) time.Duration {
	return verdict.LostAfter(every, 0) + time.Duration((s.Misses-3)*float64(every))
}

func (s Settings) outlook(r *rand.Rand, every time.Duration, n int, hop bool) Outlook {
	o := Outlook{Patience: s.patience(every)}
	for float64(o.Survives+2)*0.95*float64(every)+float64(s.Jitter) < float64(o.Patience) {
		o.Survives++
	}
	o.Sure = o.Survives >= 1
	o.PerMonth = s.falseDeaths(r, every, o.Patience)
	o.FleetWide = o.PerMonth * float64(n)
	o.Detection = s.detection(r, every, o.Patience, hop)
	return o
}

// falseDeaths is the number of times in a month that a live sender is declared lost.
//
// A silence ends with each message that arrives. Each message is lost independently with
// probability p, so a silence spans k losses with probability (1-p) p^k. It then lasts
// k+1 intervals, plus the difference of the delays at its two ends. With n messages a
// month and q(k) the probability that such a silence is longer than the patience, the
// number is
//
//	n (1-p) × Σ (1-p) p^k q(k)
//
// This equals n (1-p) p^m if exactly m losses in a row are needed: the number of runs of at
// least m failures (Feller, An Introduction to Probability Theory and Its Applications,
// vol. 1, XIII.7). q(k) is drawn, with the intervals of the real schedule, for the few k where
// it is neither 0 nor 1.
func (s Settings) falseDeaths(r *rand.Rand, every, patience time.Duration) float64 {
	p := s.Loss
	n := float64(Month) / (0.9 * float64(every))
	sum := 0.0
	for k := 0; ; k++ {
		low, high := 0.85*float64(k+1)*float64(every)-float64(s.Jitter), 0.95*float64(k+1)*float64(every)+float64(s.Jitter)
		switch weight := (1 - p) * math.Pow(p, float64(k)); {
		case p == 0 && k > 0:
			return n * sum
		case high < float64(patience):
		case low >= float64(patience): // and so are all longer ones: Σ from k on is p^k
			return n * (1 - p) * (sum + math.Pow(p, float64(k)))
		default:
			sum += weight * s.longer(r, every, patience, k)
		}
	}
}

// longer draws the probability that a silence of k losses is longer than patience.
func (s Settings) longer(r *rand.Rand, every, patience time.Duration, k int) float64 {
	hits := 0
	g := newGaps(r, every)
	for range draws {
		first := s.delay(r)
		d := s.delay(r) - first
		for range k + 1 {
			d += g.draw()
		}
		if d >= patience {
			hits++
		}
	}
	return float64(hits) / draws
}

func (s Settings) delay(r *rand.Rand) time.Duration {
	if s.Jitter <= 0 {
		return s.Delay
	}
	return s.Delay + time.Duration(r.Int64N(int64(s.Jitter)))
}

// epoch is the start of the intervals; any time would do.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// gaps draws intervals of the real schedule.
type gaps struct {
	sched *bus.Schedule
	now   time.Time
}

func newGaps(r *rand.Rand, every time.Duration) *gaps {
	g := &gaps{sched: bus.NewSchedule(epoch, every, 0, r.Float64), now: epoch}
	g.draw()
	return g
}

func (g *gaps) draw() time.Duration {
	at, _ := g.sched.Next()
	d := at.Sub(g.now)
	g.now = at
	g.sched.Begin(at)
	g.sched.Sent()
	return d
}

// detection draws how long a crash goes unnoticed by the receiver. If that is a hive, the
// time until a queen has received its verdict is added. The hive sends a snapshot with the
// verdict at once, and later snapshots repeat it in case that one is lost.
func (s Settings) detection(r *rand.Rand, every, patience time.Duration, hop bool) Detection {
	took := make([]time.Duration, draws)
	beats, snaps := newGaps(r, every), newGaps(r, s.HiveEvery)
	for i := range took {
		since := time.Duration(r.Float64() * float64(beats.draw())) // age of the last message at the crash
		for s.Loss > 0 && r.Float64() < s.Loss {
			since += beats.draw()
		}
		d := s.delay(r) - since + patience
		if hop {
			for s.Loss > 0 && r.Float64() < s.Loss {
				d += snaps.draw()
			}
			d += s.delay(r)
		}
		took[i] = max(0, d)
	}
	slices.Sort(took)
	return Detection{took[draws/2], took[draws*99/100], took[draws-1]}
}

// Often renders a rate for people: "2.3 a month", "one in 14 years".
func Often(perMonth float64) string {
	switch years := 1 / (perMonth * 12); {
	case perMonth == 0:
		return "never"
	case perMonth >= 0.5:
		return fmt.Sprintf("%.3g a month", perMonth)
	case years < 2:
		return fmt.Sprintf("one in %.2g months", 1/perMonth)
	case years < 1e6:
		return fmt.Sprintf("one in %.3g years", years)
	}
	return "practically never"
}
