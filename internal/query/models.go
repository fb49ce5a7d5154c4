package query

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Models answers the verb models: one page of the models that r selects, by name. The cursor is the name of the
// last model of the page before.
func Models(v *index.Index, r *api.Request) (a api.Answer) {
	f, limit := filterOf(r), limitOf(r)
	var list []*index.Model
	v.EachModel(func(m *index.Model) bool {
		if m.Name != "" && m.Name > r.After && (f.Model == "" || f.model(m.Name)) {
			list = append(list, m)
		}
		return true
	})
	slices.SortFunc(list, func(a, b *index.Model) int { return strings.Compare(a.Name, b.Name) })
	if r.After == "" {
		a.Total = new(len(list))
	}
	if len(list) > limit {
		a.Next = list[limit-1].Name
		list = list[:limit]
	}
	at := make(map[string]*api.ModelInfo, len(list))
	a.Models = make([]api.ModelInfo, len(list))
	for i, m := range list {
		a.Models[i] = modelInfo(m)
		at[m.Name] = &a.Models[i]
	}
	v.EachMix("", false, func(x index.Mix, n int) {
		if m := at[x.Model]; m != nil {
			m.Workers[index.Counted(x.Live)] += n
			if x.Live == hivebeat.Alive {
				m.States[x.State] += n
			}
		}
	})
	return a
}

func modelInfo(m *index.Model) api.ModelInfo {
	load, vram := m.Load()
	pace := m.Pace()
	i := api.ModelInfo{
		Model: m.Name, Hives: len(m.Hives()), Slots: load.Slots, Busy: load.Busy, Queue: load.Queue, Free: m.FreeSlots(), VRAM: vram,
		Rate: float64(pace.Requests) / 1000, TPS: float64(pace.Tokens) / 1000,
		Workers: make(map[hivebeat.Live]int), States: make(map[hivebeat.State]int), Zones: make(map[string]int),
	}
	m.EachZone(func(zone string, n int) {
		i.Able += n
		i.Zones[zone] += n
	})
	m.EachEngine(func(e index.Engine, n int) {
		if i.Engines == nil {
			i.Engines = make(map[string]int)
		}
		i.Engines[strings.TrimSpace(e.Name+" "+e.Version)] += n
	})
	return i
}

// gpuHives is how many hives one page of GPUs looks at.
const gpuHives = 4_000

// GPUs answers the verb gpus: one page of the GPUs of the hives that r selects, by hive and index. The cursor is
// <hive>/<position> of the last GPU of the page before, or <hive>/ if that hive is done.
func GPUs(v *index.Index, r *api.Request, now time.Time) (a api.Answer) {
	if r.Hive != "" && known(v, r.Hive) == nil {
		return notFound("no hive " + r.Hive + " is known")
	}
	f, limit := filterOf(r), limitOf(r)
	last, at, _ := strings.Cut(r.After, "/")
	list := v.After(last)
	if at != "" {
		if h := v.Hive(last); h != nil {
			list = slices.Concat([]*index.Hive{h}, list)
		}
	}
	if r.Hive != "" {
		list = []*index.Hive{v.Hive(r.Hive)}
	}
	for n, h := range list {
		if n == gpuHives {
			a.Next = list[n-1].ID() + "/"
			return a
		}
		if fits, _ := f.hiveFits(h, now); !fits {
			continue
		}
		for i := range h.Head().GPUs {
			if h.ID() == last && at != "" && i <= atoi(at) {
				continue
			}
			if len(a.GPUs) == limit {
				g := &a.GPUs[limit-1]
				a.Next = g.Hive + "/" + strconv.Itoa(slices.IndexFunc(v.Hive(g.Hive).Head().GPUs, func(o hivebeat.GPU) bool { return o.UUID == g.UUID && o.Index == g.Index }))
				return a
			}
			a.GPUs = append(a.GPUs, gpuInfo(h, i, now))
		}
	}
	return a
}

// atoi returns the number in a cursor. A made-up cursor is a number too.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return hivebeat.MaxGPUs
	}
	return n
}

func gpuInfo(h *index.Hive, i int, now time.Time) api.GPUInfo {
	g := &api.GPUInfo{Hive: h.ID(), Zone: h.Zone(), Live: h.Live(), GPU: h.Head().GPUs[i]}
	g.Age, g.Since = index.EffectiveAge(g.Age, h.Received(), now), index.EffectiveAge(g.Since, h.Received(), now)
	g.Foreign = g.GPU.Foreign()
	if g.Drained = imposed(h.Drain(), now); g.Drained == nil {
		g.Drained = imposed(h.GPUDrain(g.UUID), now)
	}
	places := h.GPUs()
	for k := range places {
		p := &places[k]
		if _, d := p.Device(); d != &h.Head().GPUs[i] {
			continue
		}
		g.Held, g.Announced = g.Held+p.Held(), g.Announced+p.Announced()
		if p.Fit() {
			g.Free += p.Free()
		}
	}
	is := func(uuid string) bool {
		return uuid == g.UUID || slices.ContainsFunc(g.Instances, func(p hivebeat.GPUInstance) bool { return p.UUID == uuid })
	}
	for _, w := range h.Workers() {
		if r := w.Record(); index.Counted(w.Mix().Live) != hivebeat.Lost && index.Counted(w.Mix().Live) != hivebeat.Left &&
			(slices.ContainsFunc(r.GPUs, is) || slices.ContainsFunc(r.On, is)) {
			g.Workers = append(g.Workers, r.Worker)
		}
	}
	return *g
}
