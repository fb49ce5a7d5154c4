package query

import (
	"cmp"
	"fmt"
	"math/bits"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// add adds a place to the answer, with the reasons for its rank.
func (f *Finder) add(v *index.Index, c *candidate, inZone, onHive int, now time.Time) {
	p := describe(v, c, now)
	if c.w != nil && c.w.Cold() {
		p.Model = f.coldModel(c.w)
	}
	p.Rank = len(f.answer.Picks) + 1
	say := func(format string, args ...any) { p.Reasons = append(p.Reasons, fmt.Sprintf(format, args...)) }
	if c.w != nil {
		r := c.w.Record()
		switch {
		case c.w.Cold():
			say("has %s on disk, and has to load it first", p.Model)
		case r.Model != "":
			say("serves %s", r.Model)
		}
		if r.Slots > 0 {
			say("%d of %d slots free", p.FreeSlots, r.Slots)
		} else {
			say("does not report how many slots it has")
		}
		sayLoad(c.w, say)
		if h := c.w.Held(); h > 0 {
			say("%d more held", h)
		}
		if r.LoadUnknown() {
			say("its load is not known")
		} else if r.Queue == 0 {
			say("no requests waiting")
		} else {
			say("%d waiting", r.Queue)
		}
		say("heard %.1fs ago", float64(p.Age)/1000)
		if r.Looping {
			say("looping: %d restarts in the last hour", r.Restarts)
		}
		if g := c.w.Worst(); g != nil && g.Condition() != hivebeat.GPUDegraded {
			say("%s", unread(c.hive, g, now))
			f.answer.Status.Unsure = append(f.answer.Status.Unsure, Unsure(c.w, now))
		} else if g != nil {
			say("%s", degraded(g))
		}
		if gpu := c.w.Stranger(); gpu != "" {
			say("names a GPU that its hive does not list: %s", gpu)
			f.answer.Status.Unsure = append(f.answer.Status.Unsure, fmt.Sprintf("%s/%s names a GPU that its hive does not list: %s", c.hive.ID(), r.Worker, gpu))
		}
	} else {
		if len(c.more) > 0 {
			say("%d GPUs, %.1f GiB free on each", f.gpus, gib(p.FreeVRAM))
		} else {
			say("%.1f of %.1f GiB free", gib(p.FreeVRAM), gib(c.g.Total()))
		}
		held, announced := uint64(0), uint64(0)
		for _, g := range c.gpus() {
			held, announced = held+g.Held(), announced+g.Announced()
		}
		if held > 0 {
			say("%.1f GiB more held", gib(held))
		}
		if announced > 0 {
			say("%.1f GiB announced by loading workers", gib(announced))
		}
		for _, g := range c.gpus() {
			if _, d := g.Device(); g.Last() {
				say("%s", degraded(d))
			}
		}
		if p.Serves {
			say("its hive serves %s already", f.filter.Model)
		}
		say("read %.1fs ago", float64(p.Age)/1000)
	}
	switch {
	case f.n == 1:
	case inZone == 0 && c.zone != "" && cmp.Or(f.r.Spread, api.SpreadZone) == api.SpreadZone:
		say("the first in zone %s", c.zone)
	case onHive == 0 && f.r.Spread != api.SpreadNone:
		say("the first on its hive")
	case f.r.Spread != api.SpreadNone:
		say("its hive has %d of these already", onHive)
	}
	f.answer.Picks = append(f.answer.Picks, p)
	f.found = append(f.found, c.found(f.need))
}

func degraded(g *hivebeat.GPU) string {
	return fmt.Sprintf("GPU %d is degraded: %s", g.Index, cmp.Or(g.Evidence, string(g.Cause), "no reason given"))
}

// UnsureOf names the picked workers whose GPUs are not known.
func UnsureOf(v *index.Index, picks []api.Pick, now time.Time) (list []string) {
	for i := range picks {
		h := v.Hive(picks[i].Hive)
		if h == nil || picks[i].Worker == "" {
			continue
		}
		if w := h.Worker(picks[i].Worker); w != nil {
			if why := Unsure(w, now); why != "" {
				list = append(list, why)
			}
		}
	}
	return list
}

func gib(n uint64) float64 { return float64(n) / (1 << 30) }

// describe returns a pick without rank and reasons.
func describe(v *index.Index, c *candidate, now time.Time) api.Pick {
	h := c.hive
	p := api.Pick{Hive: h.ID(), Zone: c.zone, Serves: c.g != nil && c.serves}
	if c.w != nil {
		r := c.w.Record()
		p.Worker, p.Model, p.Endpoint, p.State = r.Worker, r.Model, r.Endpoint, r.State
		p.Slots, p.FreeSlots = r.Slots, c.w.FreeSlots()
		_, p.Age, _ = v.Shown(c.w, now)
		return p
	}
	_, g := c.g.Device()
	p.GPU, p.GPUIndex, p.FreeVRAM = c.g.UUID(), new(g.Index), c.free()
	if i := c.g.Instance(); i != nil {
		p.Profile = i.Profile
	}
	for _, g := range c.gpus() {
		_, d := g.Device()
		p.Age = max(p.Age, index.EffectiveAge(d.Age, h.Received(), now))
		if len(c.more) > 0 {
			p.GPUs = append(p.GPUs, d.UUID)
		}
	}
	return p
}

// explain counts why workers and GPUs are not in the lists of the view, for the first ones
// that the filter selects.
func (f *Finder) explain(v *index.Index) {
	looks := 0
	meant := f.meant()
	hives := meant.among(v)
	skipped := f.skips()
	if f.filter.hive != "" {
		hives = nil
		if h := known(v, f.filter.hive); h != nil {
			hives = []*index.Hive{h}
		}
	}
	for _, h := range hives {
		if looks++; looks > pickExplain {
			return
		}
		if h.Live() == "" || f.filter.Zone != "" && f.filter.Zone != h.Zone() || f.filter.otherMachine(h) != "" {
			continue
		}
		if f.gpu {
			if !f.filter.selector.Empty() && !f.filter.selector.Fits(labelsOf(h, nil)) {
				continue // that is the reason, and it was counted
			}
			gpus := h.GPUs()
			for i := range gpus {
				looks++
				if _, g := gpus[i].Device(); !gpus[i].Fit() {
					f.passed[noRoom(h, g)]++
				} else if index.MemoryLevel(gpus[i].Free()) < f.level() && skipped { // others were looked at
					f.passed[f.tooLittle(h)]++
				}
			}
			for i := range h.Head().GPUs {
				if g := &h.Head().GPUs[i]; g.MIG && len(g.Instances) == 0 {
					f.passed[noRoom(h, g)]++
				}
			}
			continue
		}
		if f.filter.may(h) == 0 {
			continue
		}
		for _, w := range h.Workers() {
			if looks++; looks > pickExplain {
				return
			}
			if r := w.Record(); f.filter.model(r.Model) && (f.filter.selector.Empty() || f.filter.selector.Fits(labelsOf(h, r))) {
				if why := noSlot(h, w); why != "" {
					f.passed[why]++
				} else if bits.Len64(w.FreeSlots())-1 < f.level() && skipped {
					f.passed["too few free slots"]++
				}
			}
		}
	}
}

// skips reports whether the pick skips the levels below f.level.
func (f *Finder) skips() bool { return f.filter.hive == "" && !f.walk.begun }

// noSlot returns why a worker cannot be picked now, or "".
func noSlot(h *index.Hive, w *index.Worker) string {
	m, r := w.Mix(), w.Record()
	switch {
	case w.Fit():
		return ""
	case r.Quiet > 0 && r.Live == hivebeat.Alive && h.Up():
		return "quiet, as announced"
	case m.Live != hivebeat.Alive:
		return string(index.Counted(m.Live))
	case h.Live() != hivebeat.Alive:
		return "its hive is " + string(h.Live())
	case r.Closed:
		return "its connection closed"
	case h.Doubtful():
		return "its hive's connection closed"
	case !w.Fresh() || !h.Fresh():
		return "too old"
	case w.Drain() != nil:
		return api.PassedDrained
	case w.OnBadGPU():
		return "its GPU is " + string(w.Worst().Condition())
	case m.State != hivebeat.Ready && m.State != hivebeat.Busy:
		if !m.State.Known() {
			return "in an unknown state"
		}
		return string(m.State)
	case r.Stalled:
		return "stalled"
	case r.Slots == 0 && r.Engine != "" && r.Queue > 0:
		return "with requests waiting already"
	case r.Slots == 0:
		return api.PassedNoSlots
	case w.Held() > 0 && r.Busy < r.Slots:
		return "held"
	}
	return "no free slot"
}

// noRoom returns why no place on a GPU can be picked.
func noRoom(h *index.Hive, g *hivebeat.GPU) string {
	switch {
	case h.Live() != hivebeat.Alive:
		return "its hive is " + string(h.Live())
	case h.Doubtful():
		return "its hive's connection closed"
	case !h.Fresh():
		return "too old"
	case g.Condition().Bad():
		return string(g.Condition())
	case h.Drain() != nil || h.GPUDrain(g.UUID) != nil:
		return api.PassedDrained
	case g.Condition().Usable() && g.MIG && len(g.Instances) == 0:
		return "split: no instance"
	}
	return "cannot be read"
}
