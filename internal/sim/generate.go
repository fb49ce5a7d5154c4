package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat/internal/liveness"
)

// Generate makes the plan that follows from a seed. length is how long it runs; 0
// leaves that to the seed.
func Generate(seed uint64, length time.Duration) Plan {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	p := Plan{Seed: seed, Zones: 1 + r.IntN(2), Hives: 1 + r.IntN(5), Workers: 1 + r.IntN(3), Queens: 1 + r.IntN(3)}
	promises := [][2]int{{30, 15}, {30, 15}, {10, 15}, {60, 15}, {5, 5}, {120, 15}}
	e := promises[r.IntN(len(promises))]
	p.WorkerEvery, p.HiveEvery = Span(time.Duration(e[0])*time.Second), Span(time.Duration(e[1])*time.Second)
	p.Paged = r.IntN(4) == 0
	p.Net = network0(r, &p)

	p.Settle = Span(2*liveness.LostAfter(max(p.WorkerEvery, p.HiveEvery).D(), 0) + 2*time.Minute)
	troubled := length - p.Settle.D()
	if length <= 0 || troubled < time.Minute {
		troubled = between(r, 4*time.Minute, 10*time.Minute)
	}
	p.For = Span(troubled) + p.Settle
	for range 1 + r.IntN(10) {
		f := p.fault(r)
		f.At = Span(between(r, 20*time.Second, troubled-10*time.Second).Round(time.Millisecond))
		f.For = min(f.For, Span(troubled)-f.At).round()
		p.Faults = append(p.Faults, f)
	}
	p.ends(rand.New(rand.NewPCG(seed, 0x2545f4914f6cdd1d)), troubled)
	p.more(rand.New(rand.NewPCG(seed, 0x6a09e667f3bcc909)), troubled)
	p.strangers(rand.New(rand.NewPCG(seed, 0xbb67ae8584caa73b)), troubled)
	p.untold(rand.New(rand.NewPCG(seed, 0x3c6ef372fe94f82b)))
	p.NoJetStream = rand.New(rand.NewPCG(seed, 0x510e527fade682d1)).IntN(10) == 0
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return p
}

// ends lets hives see the ends of processes and connections in some plans, with
// random numbers of their own: the rest of a plan is as it was without.
func (p *Plan) ends(r *rand.Rand, troubled time.Duration) {
	p.Exits = r.IntN(2) == 0
	if r.IntN(2) == 0 {
		return
	}
	p.Closings = []Span{Span(250 * time.Millisecond), Span(2 * time.Second)}[r.IntN(2)]
	for range r.IntN(5) {
		f := Fault{Kind: Kick, At: Span(between(r, 20*time.Second, troubled-10*time.Second)).round()}
		if r.IntN(3) == 0 {
			f.N, f.By = 2+r.IntN(8), Span(between(r, 0, 2*time.Second)).round()
		} else {
			f.Who = fmt.Sprintf("h%d/w%d", 1+r.IntN(p.Hives), 1+r.IntN(p.Workers))
		}
		p.Faults = append(p.Faults, f)
	}
}

// more is what was simulated later: work that stalls, queens that hear of
// connections that close, and queens of before, each in some plans.
func (p *Plan) more(r *rand.Rand, troubled time.Duration) {
	at := func() Span { return Span(between(r, 20*time.Second, troubled-10*time.Second)).round() }
	hive := func() string { return fmt.Sprintf("h%d", 1+r.IntN(p.Hives)) }
	if r.IntN(10) == 0 {
		p.Before = 1 + r.IntN(p.Queens)
	}
	if r.IntN(3) == 0 {
		p.Stall, p.StallSaid = []Span{Span(20e9), Span(45e9), Span(120e9)}[r.IntN(3)], r.IntN(2) == 0
		for range 1 + r.IntN(4) {
			f := Fault{Kind: Hang, At: at(), Who: fmt.Sprintf("%s/w%d", hive(), 1+r.IntN(p.Workers))}
			if r.IntN(4) == 0 {
				f.Kind = Idle
			}
			if r.IntN(4) > 0 {
				f.For = min(Span(between(r, time.Second, 3*p.Stall.D())), Span(troubled)-f.At).round()
			}
			p.Faults = append(p.Faults, f)
		}
	}
	if p.Closings == 0 || r.IntN(3) == 0 {
		return
	}
	p.HiveClosings = true
	for range r.IntN(4) {
		f := Fault{Kind: Kick, At: at(), Who: hive()}
		switch r.IntN(6) {
		case 0:
			f.Kind, f.For = Cut, Span(between(r, 0, 10*time.Second)).round()
		case 1:
			f.Kind, f.For = Deaf, Span(between(r, 0, time.Minute)).round()
			f.Who = []string{f.Who, fmt.Sprintf("q%d", 1+r.IntN(p.Queens))}[r.IntN(2)]
		}
		f.For = min(f.For, Span(troubled)-f.At)
		p.Faults = append(p.Faults, f)
	}
}

// strangers lets clients of others come and go in some plans where somebody hears of
// it: scripts, and those that stay for a while.
func (p *Plan) strangers(r *rand.Rand, troubled time.Duration) {
	if p.Closings == 0 || r.IntN(2) == 0 {
		return
	}
	for range 1 + r.IntN(3) {
		f := Fault{Kind: Strangers, At: Span(between(r, 10*time.Second, troubled-10*time.Second)).round(), N: 1 + r.IntN(20)}
		f.By = []Span{Span(time.Second), Span(time.Second), Span(11 * time.Second), Span(20 * time.Second)}[r.IntN(4)]
		f.For = min(Span(between(r, 0, 2*time.Minute)), Span(troubled)-f.At).round()
		p.Faults = append(p.Faults, f)
	}
}

// untold keeps it from some of several queens which connections close, in half of the
// plans where others hear of that.
func (p *Plan) untold(r *rand.Rand) {
	if p.HiveClosings && p.Queens > 1 && r.IntN(2) == 0 {
		p.Untold = 1 + r.IntN(p.Queens-1)
	}
}

func (s Span) round() Span { return Span(s.D().Round(time.Millisecond)) }

func network0(r *rand.Rand, p *Plan) Net {
	n := Net{Delay: Span(between(r, 0, 20*time.Millisecond)), Jitter: Span(between(r, 0, 20*time.Millisecond))}
	if r.IntN(2) == 0 {
		n.Loss, n.LossRun = 0.3*r.Float64(), 1+r.IntN(2)
	}
	if r.IntN(3) == 0 {
		n.Jitter = Span(between(r, 0, min(p.WorkerEvery, p.HiveEvery).D()/10))
	}
	if r.IntN(3) == 0 {
		n.Reorder = 0.5 * r.Float64()
	}
	if r.IntN(3) == 0 {
		n.Dup, n.Replay = 0.2*r.Float64(), Span(time.Duration(r.IntN(90))*time.Second)
	}
	n.Delay, n.Jitter = n.Delay.round(), n.Jitter.round()
	return n
}

// fault draws one fault, but for when.
func (p *Plan) fault(r *rand.Rand) Fault {
	hive := func() string { return fmt.Sprintf("h%d", 1+r.IntN(p.Hives)) }
	worker := func() string { return fmt.Sprintf("%s/w%d", hive(), 1+r.IntN(p.Workers)) }
	queen := func() string { return fmt.Sprintf("q%d", 1+r.IntN(p.Queens)) }
	anybody := func() string { return []func() string{hive, worker, queen}[r.IntN(3)]() }
	long := func() Span { // most are short, and some are not
		if r.IntN(3) == 0 {
			return Span(between(r, 0, 3*time.Minute))
		}
		return Span(between(r, 0, 20*time.Second))
	}
	again := func() Span {
		if r.IntN(3) == 0 {
			return 0
		}
		return long() + 1
	}
	f := Fault{For: long()}
	switch n := r.IntN(100); {
	case n < 20:
		f.Kind, f.Who = Pause, anybody()
	case n < 38:
		f.Kind, f.Who, f.For = Crash, anybody(), again()
	case n < 44:
		f.Kind, f.Who, f.For = Leave, []func() string{hive, worker}[r.IntN(2)](), again()
	case n < 58:
		f.Kind, f.Who, f.Hold = Cut, anybody(), r.IntN(2) == 0
		f.Notice = []Span{0, Span(between(r, 0, 5*time.Second)), Span(pingLimit)}[r.IntN(3)].round()
	case n < 62:
		f.Kind, f.N = Zone, r.IntN(p.Zones)
		f.Notice = []Span{0, Span(pingLimit)}[r.IntN(2)]
	case n < 66:
		f.Kind, f.Who, f.For = Machine, hive(), again()
	case n < 69:
		f.Kind, f.N, f.For = Mass, 1+r.IntN(p.Hives), again()
	case n < 74:
		f.Kind, f.Who, f.By = Clock, hive(), Span(between(r, -2*time.Hour, 2*time.Hour)).round()
	case n < 78:
		f.Kind, f.Who = Rival, []func() string{hive, worker}[r.IntN(2)]()
	case n < 82:
		f.Kind, f.Who, f.By = Quiet, worker(), Span(between(r, 30*time.Second, 5*time.Minute)).round()
	case n < 87:
		f.Kind, f.Who, f.N = Change, worker(), 1+r.IntN(14)
	case n < 93:
		f.Kind = Storage
	case n < 95:
		f.Kind = Wipe
	case n < 98:
		f.Kind = Server
	default:
		f.Kind, f.Who, f.N = Dropping, []func() string{hive, queen}[r.IntN(2)](), 1+r.IntN(20)
	}
	return f
}
