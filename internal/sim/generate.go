package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat/verdict"
)

// Generate makes the plan of a seed. length is the duration of the run; if 0, the seed
// determines it. late is Plan.Late.
func Generate(seed uint64, length, late time.Duration) Plan {
	p := Plan{Seed: seed, Late: Span(late)}
	// Each part draws from its own stream, so that it does not change the others.
	part := func(stream uint64) *draw { return &draw{Rand: rand.New(rand.NewPCG(seed, stream)), Plan: &p} }
	r := part(0x9e3779b97f4a7c15)
	p.Zones, p.Hives, p.Workers, p.Queens = 1+r.IntN(2), 1+r.IntN(5), 1+r.IntN(3), 1+r.IntN(3)
	promises := [][2]Span{{30e9, 15e9}, {30e9, 15e9}, {10e9, 15e9}, {60e9, 15e9}, {5e9, 5e9}, {120e9, 15e9}}
	e := promises[r.IntN(len(promises))]
	p.WorkerEvery, p.HiveEvery = e[0], e[1]
	p.Paged = r.IntN(4) == 0
	p.Net = r.network()

	p.Settle = Span(2*verdict.LostAfter(max(p.WorkerEvery, p.HiveEvery).D(), 0) + 2*time.Minute)
	troubled := length - p.Settle.D()
	if length <= 0 || troubled < time.Minute {
		troubled = between(r.Rand, 4*time.Minute, 10*time.Minute)
	}
	p.For = Span(troubled) + p.Settle
	for range 1 + r.IntN(10) {
		f := r.fault()
		f.At = r.at(20 * time.Second)
		r.adds(f)
	}
	part(0x2545f4914f6cdd1d).ends()
	part(0x6a09e667f3bcc909).more()
	part(0xbb67ae8584caa73b).strangers()
	part(0x9b05688c2b3e6c1f).batch()
	if r := part(0x3c6ef372fe94f82b); p.HiveClosings && p.Queens > 1 && r.IntN(2) == 0 {
		p.Untold = 1 + r.IntN(p.Queens-1)
	}
	if r := part(0xa54ff53a5f1d36f1); r.IntN(3) == 0 {
		r.frozen()
	}
	p.NoJetStream = part(0x510e527fade682d1).IntN(10) == 0
	if r := part(0xb5c0fbcfec4d3b2f); !p.NoJetStream && r.IntN(4) == 0 {
		p.Replicas = 3
		f := Fault{Kind: Storage, At: r.at(20 * time.Second), For: r.upTo(3 * time.Minute)}
		r.adds(f) // the queens are in a minority partition
		r.adds(Fault{Kind: Zone, At: f.At, For: f.For, N: r.IntN(r.Zones)})
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return p
}

// draw draws one part of a plan.
type draw struct {
	*rand.Rand
	*Plan
}

func (r *draw) hive() string      { return fmt.Sprintf("h%d", 1+r.IntN(r.Hives)) }
func (r *draw) anyWorker() string { return fmt.Sprintf("%s/w%d", r.hive(), 1+r.IntN(r.Workers)) }
func (r *draw) queen() string     { return fmt.Sprintf("q%d", 1+r.IntN(r.Queens)) }

// anyOf draws the name of a hive, worker or queen, from the kinds that it is given.
func (r *draw) anyOf(kinds ...func() string) string { return kinds[r.IntN(len(kinds))]() }

// upTo draws from 0 to d.
func (r *draw) upTo(d time.Duration) Span { return Span(between(r.Rand, 0, d)).round() }

// at draws the start of a fault, not before earliest.
func (r *draw) at(earliest time.Duration) Span {
	return Span(between(r.Rand, earliest, (r.For-r.Settle).D()-10*time.Second)).round()
}

// adds puts a fault into the plan and ends it before the time to settle.
func (r *draw) adds(f Fault) {
	f.For = min(f.For, r.For-r.Settle-f.At).round()
	r.Faults = append(r.Faults, f)
}

// ends lets hives see the ends of processes and of connections, in some plans.
func (r *draw) ends() {
	r.Exits = r.IntN(2) == 0
	if r.IntN(2) == 0 {
		return
	}
	r.Closings = []Span{Span(250 * time.Millisecond), Span(2 * time.Second)}[r.IntN(2)]
	for range r.IntN(5) {
		f := Fault{Kind: Kick, At: r.at(20 * time.Second)}
		if r.IntN(3) == 0 {
			f.N, f.By = 2+r.IntN(8), r.upTo(2*time.Second)
		} else {
			f.Who = r.anyWorker()
		}
		r.adds(f)
	}
}

// more adds work that stalls, closed connections reported to queens, and queens of an
// earlier version, each in some plans.
func (r *draw) more() {
	if r.IntN(10) == 0 {
		r.Before = 1 + r.IntN(r.Queens)
	}
	if r.IntN(3) == 0 {
		r.Stall, r.StallSaid = []Span{Span(20e9), Span(45e9), Span(120e9)}[r.IntN(3)], r.IntN(2) == 0
		for range 1 + r.IntN(4) {
			f := Fault{At: r.at(20 * time.Second), Who: r.anyWorker()}
			f.Kind = []Kind{Idle, Hang, Hang, Hang}[r.IntN(4)]
			if r.IntN(4) > 0 {
				f.For = Span(between(r.Rand, time.Second, 3*r.Stall.D()))
			}
			r.adds(f)
		}
	}
	if r.Closings == 0 || r.IntN(3) == 0 {
		return
	}
	r.HiveClosings = true
	for range r.IntN(4) {
		f := Fault{Kind: Kick, At: r.at(20 * time.Second), Who: r.hive()}
		switch r.IntN(6) {
		case 0:
			f.Kind, f.For = Cut, r.upTo(10*time.Second)
		case 1:
			f.Kind, f.For = Deaf, r.upTo(time.Minute)
			f.Who = []string{f.Who, r.queen()}[r.IntN(2)]
		}
		r.adds(f)
	}
}

// strangers adds foreign clients that come and go, in some plans whose observers see
// connections close: scripts, and clients that stay for a while.
func (r *draw) strangers() {
	if r.Closings == 0 || r.IntN(2) == 0 {
		return
	}
	stays := []Span{Span(time.Second), Span(time.Second), Span(11 * time.Second), Span(20 * time.Second)}
	for range 1 + r.IntN(3) {
		r.adds(Fault{Kind: Strangers, At: r.at(10 * time.Second), N: 1 + r.IntN(20), By: stays[r.IntN(4)], For: r.upTo(2 * time.Minute)})
	}
}

// batch makes all workers of a machine die at once, in some plans whose hives see
// connections close. They are more than an observer believes without proof.
func (r *draw) batch() {
	if r.Closings == 0 || r.IntN(3) > 0 {
		return
	}
	r.Workers = 4 + r.IntN(5)
	r.adds(Fault{Kind: Batch, At: r.at(20 * time.Second), Who: r.hive(), For: r.upTo(time.Minute)})
}

// frozen stops the NATS server for a while, and kills a worker in the meantime while its
// beats wait in the server.
func (r *draw) frozen() {
	f := Fault{Kind: Frozen, At: r.at(20 * time.Second), For: r.upTo(pingLimit), Hold: true, Notice: Span(pingLimit)}
	r.adds(f)
	r.adds(Fault{Kind: Crash, At: (f.At + r.upTo(f.For.D())).round(), Who: r.anyWorker(), For: r.upTo(time.Minute)})
}

func (s Span) round() Span { return Span(s.D().Round(time.Millisecond)) }

// network draws the behaviour of the bus.
func (r *draw) network() Net {
	n := Net{Delay: r.upTo(20 * time.Millisecond), Jitter: r.upTo(20 * time.Millisecond)}
	if r.IntN(2) == 0 {
		n.Loss, n.LossRun = 0.3*r.Float64(), 1+r.IntN(2)
	}
	if r.IntN(3) == 0 {
		n.Jitter = r.upTo(min(r.WorkerEvery, r.HiveEvery).D() / 10)
	}
	if r.IntN(3) == 0 {
		n.Reorder = 0.5 * r.Float64()
	}
	if r.IntN(3) == 0 {
		n.Dup, n.Replay = 0.2*r.Float64(), Span(time.Duration(r.IntN(90))*time.Second)
	}
	return n
}

// fault draws a fault without its start.
func (r *draw) fault() Fault {
	long := func() Span { // short in most cases
		if r.IntN(3) == 0 {
			return r.upTo(3 * time.Minute)
		}
		return r.upTo(20 * time.Second)
	}
	again := func() Span {
		if r.IntN(3) == 0 {
			return 0
		}
		return max(long(), Span(time.Millisecond))
	}
	f := Fault{For: long()}
	switch n := r.IntN(100); {
	case n < 20:
		f.Kind, f.Who = Pause, r.anyOf(r.hive, r.anyWorker, r.queen)
	case n < 38:
		f.Kind, f.Who, f.For = Crash, r.anyOf(r.hive, r.anyWorker, r.queen), again()
	case n < 44:
		f.Kind, f.Who, f.For = Leave, r.anyOf(r.hive, r.anyWorker), again()
	case n < 58:
		f.Kind, f.Who, f.Hold = Cut, r.anyOf(r.hive, r.anyWorker, r.queen), r.IntN(2) == 0
		f.Notice = []Span{0, r.upTo(5 * time.Second), Span(pingLimit)}[r.IntN(3)]
	case n < 62:
		f.Kind, f.N = Zone, r.IntN(r.Zones)
		f.Notice = []Span{0, Span(pingLimit)}[r.IntN(2)]
	case n < 66:
		f.Kind, f.Who, f.For = Machine, r.hive(), again()
	case n < 69:
		f.Kind, f.N, f.For = Mass, 1+r.IntN(r.Hives), again()
	case n < 74:
		f.Kind, f.Who, f.By = Clock, r.hive(), Span(between(r.Rand, -2*time.Hour, 2*time.Hour)).round()
	case n < 78:
		f.Kind, f.Who = Rival, r.anyOf(r.hive, r.anyWorker)
	case n < 82:
		f.Kind, f.Who, f.By = Quiet, r.anyWorker(), Span(between(r.Rand, 30*time.Second, 5*time.Minute)).round()
	case n < 87:
		f.Kind, f.Who, f.N = Change, r.anyWorker(), 1+r.IntN(14)
	case n < 93:
		f.Kind = Storage
	case n < 95:
		f.Kind = Wipe
	case n < 98:
		f.Kind = Server
	default:
		f.Kind, f.Who, f.N = Dropping, r.anyOf(r.hive, r.queen), 1+r.IntN(20)
	}
	return f
}
