package query

import (
	"math"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Numbers over time are kept in rings of 16-bit values: 11 bits of a number and an
// exponent, so that counts up to 2047 are exact and others to 0.05 %. A hive takes 3.8 kB:
// 38 MB for 10,000 hives.

const (
	fleetStep  = time.Minute
	fleetSteps = 24 * 60
	hiveStep   = 2 * time.Minute
	hiveSteps  = 6 * 30
	sweepTicks = 200 // calls of Sample until each hive was sampled once

	// The value of the current slot is renewed this often, and by each question.
	fleetAgain = 5 * time.Second
)

var fleetSeries = [...]string{
	api.SeriesHivesAlive, api.SeriesHivesLate, api.SeriesHivesDown, api.SeriesWorkersAlive, api.SeriesWorkersLate, api.SeriesWorkersDown,
	api.SeriesBusy, api.SeriesSlots, api.SeriesQueue, api.SeriesVRAMTotal, api.SeriesVRAMUsed, api.SeriesVRAMOurs,
}

var hiveSeries = [...]string{
	api.SeriesWorkersAlive, api.SeriesWorkersLate, api.SeriesWorkersDown, api.SeriesBusy, api.SeriesSlots, api.SeriesQueue,
	api.SeriesVRAMTotal, api.SeriesVRAMUsed, api.SeriesVRAMOurs, api.SeriesCPU, api.SeriesMemUsed,
}

// History keeps numbers of the fleet and of each hive over time. The zero History is empty.
type History struct {
	began time.Time
	hears bool // as of the last Sample
	fleet struct {
		taken time.Time
		last  int64
		at    [fleetSteps][len(fleetSeries)]small
	}
	hives map[*index.Hive]*hiveHistory
	next  string // the next call continues after this hive
}

type hiveHistory struct {
	last int64
	at   [hiveSteps][len(hiveSeries)]small
}

// small is a number in 16 bits; 0 means no number.
type small uint16

const (
	smallBits = 11
	smallMax  = 1<<smallBits - 1
)

func smallOf(x float64) small {
	if x < 0 || math.IsNaN(x) {
		x = 0
	}
	e := 0
	for x > smallMax && e < 31 {
		_, exp := math.Frexp(x)
		d := min(exp-smallBits, 31-e)
		x, e = math.Round(math.Ldexp(x, -max(d, 1))), e+max(d, 1)
	}
	n := min(uint16(math.Round(x)), smallMax)
	return small(uint16(e)<<smallBits|n) + 1
}

// value returns the number, or nil if there is none.
func (s small) value(scale float64) *float64 {
	if s == 0 {
		return nil
	}
	s--
	return new(math.Ldexp(float64(s&smallMax), int(s>>smallBits)) * scale)
}

// scaleOf returns the factor from the unit in which a series is kept to the unit of its
// answers.
func scaleOf(series string) float64 {
	switch series {
	case api.SeriesVRAMTotal, api.SeriesVRAMUsed, api.SeriesVRAMOurs, api.SeriesMemUsed:
		return 1 << 20
	case api.SeriesCPU:
		return 0.1
	}
	return 1
}

// livesOf counts the workers of some mixes by verdict.
func livesOf(mixes func(func(index.Mix, int))) (alive, late, lost int) {
	mixes(func(m index.Mix, n int) {
		switch index.Counted(m.Live) {
		case hivebeat.Alive:
			alive += n
		case hivebeat.Late:
			late += n
		case hivebeat.Lost:
			lost += n
		}
	})
	return alive, late, lost
}

// Sample takes the fleet's numbers if they are due, and the numbers of some hives. It must
// be called several times a second. If hears is false the view is unreliable, and Sample
// takes nothing.
func (s *History) Sample(v *index.Index, hears bool, now time.Time) {
	if s.began.IsZero() {
		s.began = now
	}
	if s.hears = hears; !hears {
		return
	}
	if now.UnixMilli()/fleetStep.Milliseconds() != s.fleet.last || now.Sub(s.fleet.taken) >= fleetAgain {
		s.sampleFleet(v, now)
	}
	list := v.Hives()
	if len(list) == 0 {
		return
	}
	if s.hives == nil {
		s.hives = make(map[*index.Hive]*hiveHistory)
	}
	rest := v.After(s.next)
	n := len(list)/sweepTicks + 1
	if len(rest) <= n {
		s.next = ""
		for h := range s.hives {
			if !v.Has(h) {
				delete(s.hives, h)
			}
		}
	} else {
		rest = rest[:n]
		s.next = rest[n-1].ID()
	}
	for _, h := range rest {
		s.sample(h, now)
	}
}

// sampleFleet takes the numbers of the fleet for the current slot.
func (s *History) sampleFleet(v *index.Index, now time.Time) {
	slot := now.UnixMilli() / fleetStep.Milliseconds()
	advance(&s.fleet.last, slot, s.fleet.at[:])
	s.fleet.taken = now
	t := v.Totals()
	alive, late, lost := livesOf(v.EachShape)
	row := &s.fleet.at[slot%fleetSteps]
	for i, x := range []float64{
		float64(t.Hives[hivebeat.Alive]), float64(t.Hives[hivebeat.Late] + t.Hives[hivebeat.Unverified]), float64(t.Hives[hivebeat.Lost]),
		float64(alive), float64(late), float64(lost), float64(t.Load.Busy), float64(t.Load.Slots),
		float64(t.Load.Queue), float64(t.VRAM.Total), float64(t.VRAM.Used), float64(t.VRAM.Ours),
	} {
		row[i] = smallOf(x / scaleOf(fleetSeries[i]))
	}
}

// sample takes the numbers of a hive, if they are fresh.
func (s *History) sample(h *index.Hive, now time.Time) {
	if !h.Fresh() || !h.Up() {
		return
	}
	r := s.hives[h]
	if r == nil {
		r = &hiveHistory{}
		s.hives[h] = r
	}
	slot := now.UnixMilli() / hiveStep.Milliseconds()
	advance(&r.last, slot, r.at[:])
	alive, late, lost := livesOf(h.EachMix)
	load, vram, host := h.Load(), h.VRAM(), &h.Head().Host
	row := &r.at[slot%hiveSteps]
	for i, x := range []float64{
		float64(alive), float64(late), float64(lost), float64(load.Busy), float64(load.Slots), float64(load.Queue),
		float64(vram.Total), float64(vram.Used), float64(vram.Ours), host.CPU, float64(host.MemUsed),
	} {
		row[i] = smallOf(x / scaleOf(hiveSeries[i]))
	}
}

// advance moves on to a slot; skipped slots are empty. A clock that was set back clears the
// ring.
func advance[T any](last *int64, slot int64, ring []T) {
	n := int64(len(ring))
	if slot <= *last-n || slot >= *last+n || slot < *last {
		clear(ring)
	} else {
		var none T
		for at := *last + 1; at <= slot; at++ {
			ring[at%n] = none
		}
	}
	*last = slot
}

// Answer answers the verb history.
func (s *History) Answer(v *index.Index, r *api.Request, now time.Time) api.Answer {
	if r.Hive == "" {
		if s.hears {
			s.sampleFleet(v, now)
		}
		return api.Answer{History: columns(fleetSeries[:], s.fleet.last, fleetStep, fleetSteps, r.Since, now, func(slot int64, i int) small {
			return s.fleet.at[slot%fleetSteps][i]
		})}
	}
	h := known(v, r.Hive)
	if h == nil {
		return notFound("no hive " + r.Hive + " is known")
	}
	if s.hears {
		s.sample(h, now)
	}
	ring := s.hives[h]
	if ring == nil {
		ring = &hiveHistory{}
	}
	return api.Answer{History: columns(hiveSeries[:], ring.last, hiveStep, hiveSteps, r.Since, now, func(slot int64, i int) small {
		return ring.at[slot%hiveSteps][i]
	})}
}

func columns(names []string, last int64, step time.Duration, steps int64, since hivebeat.Millis, now time.Time, at func(int64, int) small) *api.History {
	slot := max(last, now.UnixMilli()/step.Milliseconds()) // the clock may have been set back
	n := steps
	if since > 0 {
		n = min(n, int64(since)/step.Milliseconds()+1)
	}
	if last != slot { // the current slot has no value yet
		slot--
	}
	h := &api.History{End: slot * step.Milliseconds(), Step: hivebeat.MillisOf(step), Series: make(map[string][]*float64, len(names))}
	for i, name := range names {
		col := make([]*float64, n)
		for k := range n {
			if x := slot - (n - 1) + k; x <= last && x > last-steps {
				col[k] = at(x, i).value(scaleOf(name))
			}
		}
		h.Series[name] = col
	}
	return h
}
