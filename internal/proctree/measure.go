package proctree

import (
	"math"
	"time"
)

// counters are what a process used so far.
type counters struct{ cpu, read uint64 }

// Measure returns the facts of the trees of the workers that have not ended, as of the last
// Update. A process that cannot be read adds nothing, and affects no other.
func (f *Forest) Measure(now time.Time, src Source) []Facts {
	list := make([]Facts, 0, len(f.live))
	limits := make(map[Cgroup]Limits)
	done := make(map[*tree]int)
	for _, t := range f.live {
		if t.there && t.root.PID == f.self {
			continue // the worker is a part of the hive's process
		}
		of := t
		if t.there {
			of = f.owner[f.at[t.root.PID]]
		}
		if i, ok := done[of]; ok { // two workers are one process
			facts := list[i]
			facts.Key = t.Key
			list = append(list, facts)
			continue
		}
		if len(of.members) == 0 {
			continue
		}
		done[of] = len(list)
		facts := f.measure(now, src, of)
		facts.Key = t.Key
		l, ok := limits[of.cgroup]
		if !ok && of.cgroup.Path != "" {
			l = src.Limits(of.cgroup)
			limits[of.cgroup] = l
		}
		if facts.Limits = l; of.ownCgroup {
			facts.Cgroup = of.cgroup
		} else {
			facts.Kills, facts.Counted = 0, false // perhaps of another program
		}
		list = append(list, facts)
	}
	return list
}

// measure returns the resources that the processes of a tree hold, and those used since the
// last measurement. The sums of the latter never decrease: an ended process takes nothing
// away. The system adds its use to the counters of a parent that waits for it, so that part
// of the parent's increase is no news.
func (f *Forest) measure(now time.Time, src Source, t *tree) Facts {
	facts := Facts{Key: t.Key}
	passed := f.spent(t)
	var cpu uint64
	first := t.at.IsZero()
	at := 0
	for i := range t.members {
		m := &t.members[i]
		p := &f.scan.Procs[f.at[m.PID]]
		u := src.Usage(m.ID)
		for at < len(t.was) && t.was[at].PID < m.PID {
			at++
		}
		var was *member
		if at < len(t.was) && t.was[at].ID == m.ID && t.was[at].counted {
			was = &t.was[at]
		}
		facts.Procs++
		facts.RSS += p.RSS
		facts.Threads += p.Threads
		facts.Files += u.Files
		m.cpu, m.read, m.counted = p.CPU, u.Read, true
		if !m.beside {
			facts.WorkRSS += p.RSS
		}
		if was != nil && !u.HasIO {
			m.read = was.read
		}
		from := passed[m.PID]
		switch {
		case was != nil:
			from.cpu, from.read = from.cpu+was.cpu, from.read+was.read
		case !first && f.scan.Clock > 0 && m.Start+tick < f.before: // its earlier use belongs to an earlier time
			from = counters{m.cpu, m.read}
		}
		cpu += above(m.cpu, from.cpu)
		if n := above(m.read, from.read); m.beside {
			t.rest += n
		} else {
			t.work += n
		}
	}
	if d := now.Sub(t.at).Seconds(); !first && d > 0 {
		facts.CPU = math.Round(float64(cpu)/d*10) / 100 // ms per s are tenths of a percent
	}
	t.at = now
	facts.Read, facts.WorkRead = t.work+t.rest, t.work
	if t.there && f.scan.Clock > 0 {
		facts.Up = above(f.scan.Clock, t.root.Start)
	}
	return facts
}

// tick is the unit of starts, in ms.
const tick = 10

// spent returns what the processes of t that ended since the last measurement had used, by
// the nearest ancestor that still runs.
func (f *Forest) spent(t *tree) map[uint64]counters {
	var gone map[uint64]*member
	for i := range t.was {
		m := &t.was[i]
		if _, ok := f.find(m.ID); !ok && m.counted {
			if gone == nil {
				gone = make(map[uint64]*member)
			}
			gone[m.PID] = m
		}
	}
	if gone == nil {
		return nil
	}
	passed := make(map[uint64]counters, len(gone))
	for _, m := range gone {
		up := m.parent
		for range len(gone) {
			g := gone[up]
			if g == nil {
				break
			}
			up = g.parent
		}
		c := passed[up]
		passed[up] = counters{c.cpu + m.cpu, c.read + m.read}
	}
	return passed
}

// above returns a - b, or 0 if that is negative.
func above(a, b uint64) uint64 { return a - min(a, b) }
