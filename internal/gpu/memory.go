package gpu

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

// memory is who holds the memory of a GPU, as of its last good reading with processes.
type memory struct {
	parts map[string]parts // of the GPU and of each MIG instance, by UUID
	uses  []use
	at    time.Time
	// given means that the reading has the parts itself: its source knows no processes.
	given bool
}

// parts are sums of what processes hold. All of a place's memory is unattributed if it
// has none.
type parts struct{ ours, orphaned, foreign uint64 }

// use is what the processes of one worker hold on one GPU or MIG instance.
type use struct {
	worker, uuid string
	bytes        uint64
}

// holder is a worker that has ended and a GPU on which its processes still hold memory.
type holder struct{ worker, gpu string }

// held is what a holder's processes hold.
type held struct {
	bytes    uint64
	pids     []uint64
	readings int
	last     bool // it is in the reading that is being handled
}

// attribute takes over which processes hold the memory of the GPUs in read. A GPU with a
// fault keeps what is known: its processes may be missing from the reading because of it.
func (f *Fleet) attribute(now time.Time, read map[*device]bool, r *Reading, owner OwnerOf) {
	given, known := errors.Is(r.ProcsErr, ErrNone), r.ProcsErr == nil
	places := make(map[string]*device)
	for d := range read {
		d.memory.given = given
		if !known {
			d.memory.parts = nil // what held the memory earlier need not hold it now
			continue
		}
		if len(d.faults) > 0 && d.faults[0].State.Bad() {
			continue
		}
		d.memory.parts, d.memory.uses, d.memory.at = make(map[string]parts), nil, now
		places[d.key] = d
		for i := range d.gpu.Instances {
			places[d.gpu.Instances[i].UUID] = d
		}
	}
	if !known {
		return
	}
	for _, h := range f.orphans {
		h.bytes, h.pids, h.last = 0, nil, false
	}
	for _, p := range r.Procs {
		d := places[p.UUID]
		if d == nil {
			continue
		}
		whose, worker := Unattributed, ""
		if owner != nil {
			whose, worker = owner(p.PID)
		}
		d.memory.add(d.key, whose, p.Used)
		if p.UUID != d.key {
			d.memory.add(p.UUID, whose, p.Used)
		}
		if worker == "" || len(worker) > hivebeat.MaxID {
			continue
		}
		switch whose {
		case Ours:
			d.memory.use(worker, p.UUID, p.Used)
		case Orphaned:
			k := holder{worker, d.key}
			h := f.orphans[k]
			if h == nil {
				h = new(held)
				f.orphans[k] = h
			}
			h.bytes, h.pids, h.last = sum(h.bytes, p.Used), append(h.pids, p.PID), true
		}
	}
	f.announceOrphans(now, places)
}

func (m *memory) add(uuid string, whose Owner, bytes uint64) {
	p := m.parts[uuid]
	switch whose {
	case Ours:
		p.ours = sum(p.ours, bytes)
	case Orphaned:
		p.orphaned = sum(p.orphaned, bytes)
	case Foreign:
		p.foreign = sum(p.foreign, bytes)
	}
	m.parts[uuid] = p
}

func (m *memory) use(worker, uuid string, bytes uint64) {
	for i := range m.uses {
		if u := &m.uses[i]; u.worker == worker && u.uuid == uuid {
			u.bytes = sum(u.bytes, bytes)
			return
		}
	}
	m.uses = append(m.uses, use{worker, uuid, bytes})
}

// announceOrphans makes a transition for each holder that is in its second reading: the
// processes of a worker that ends may take some seconds to end too.
func (f *Fleet) announceOrphans(now time.Time, places map[string]*device) {
	for k, h := range f.orphans {
		d := places[k.gpu]
		switch {
		case h.last:
			if h.readings++; h.readings == 2 {
				f.announce(now, hivebeat.GPUTransition{
					Kind: hivebeat.KindGPUOrphan, GPU: d.key, Index: d.gpu.Index, Cause: hivebeat.CauseOrphan, Evidence: h.evidence(), Worker: k.worker,
				})
			}
		case d != nil || f.devices[k.gpu] == nil:
			delete(f.orphans, k)
		}
	}
}

func (h *held) evidence() string {
	const most = 4
	amount := "memory"
	if h.bytes > 0 {
		amount = fmt.Sprintf("%.1f GiB", float64(h.bytes)/(1<<30))
	}
	slices.Sort(h.pids)
	list := make([]string, 0, most)
	for _, pid := range h.pids[:min(most, len(h.pids))] {
		list = append(list, fmt.Sprint(pid))
	}
	noun, more := "process", ""
	if n := len(h.pids); n > 1 {
		noun = "processes"
		if n > most {
			more = fmt.Sprintf(" and %d more", n-most)
		}
	}
	return amount + " held by " + noun + " " + strings.Join(list, ", ") + more
}

// fill sets the parts of memory of g and its instances.
func (f *Fleet) fill(d *device, g *hivebeat.GPU) {
	if g.Unified {
		g.Total, g.Used, g.Reserved = f.host.total, f.host.used, 0
	}
	m := &d.memory
	split(m, d.key, g.Total, &g.Used, &g.Reserved, &g.Ours, &g.Orphaned, &g.Unattributed)
	var most uint64
	for k, h := range f.orphans {
		if k.gpu == d.key && g.Orphaned > 0 && (h.bytes > most || h.bytes == most && (g.OrphanOf == "" || k.worker < g.OrphanOf)) {
			g.OrphanOf, most = k.worker, h.bytes
		}
	}
	g.Instances = slices.Clone(g.Instances)
	for i := range g.Instances {
		n := &g.Instances[i]
		split(m, n.UUID, n.Total, &n.Used, &n.Reserved, &n.Ours, &n.Orphaned, &n.Unattributed)
	}
}

// split divides the used memory of a place. Figures that were read at different moments
// may contradict each other: then used is at most total, and the parts are at most used.
func split(m *memory, uuid string, total uint64, used, reserved, ours, orphaned, unattributed *uint64) {
	if total > 0 {
		*used = min(*used, total)
		*reserved = min(*reserved, total-*used)
	}
	p := m.parts[uuid]
	if m.given {
		rest := *used - min(*used, sum(*ours, *orphaned))
		p = parts{ours: *ours, orphaned: *orphaned, foreign: rest - min(rest, *unattributed)}
	}
	*ours = min(p.ours, *used)
	*orphaned = min(p.orphaned, *used-*ours)
	*unattributed = *used - min(*used, sum(sum(p.ours, p.orphaned), p.foreign))
}

// Use is what the driver reports about the processes of a worker.
type Use struct {
	VRAM uint64    // bytes that they hold, of readings that are at most hivebeat.Fresh old
	On   []string  // UUIDs of the GPUs and MIG instances where they hold, or held when a GPU was last read, memory
	At   time.Time // when the newest of this was read
}

// Uses returns the uses of all workers whose processes hold memory. A GPU that fails, or
// that cannot be read, keeps the workers that it had.
func (f *Fleet) Uses(now time.Time) map[string]Use {
	all := make(map[string]Use)
	for _, d := range f.sorted() {
		fresh := now.Sub(d.memory.at) <= hivebeat.Fresh
		if !fresh && d.verdict.State.Usable() {
			continue
		}
		for _, p := range d.memory.uses {
			u := all[p.worker]
			if fresh {
				u.VRAM = sum(u.VRAM, p.bytes)
			}
			if len(u.On) < hivebeat.MaxGPUs {
				u.On = append(u.On, p.uuid)
			}
			if d.memory.at.After(u.At) {
				u.At = d.memory.at
			}
			all[p.worker] = u
		}
	}
	return all
}
