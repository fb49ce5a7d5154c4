package fleet

// Of each zone it is kept which hives are in it, and how their workers are shown.

// zoneIndex is what is counted of one zone.
type zoneIndex struct {
	name  string
	mixes tallies
	hives hivesByID
}

// InZone returns the hives of a zone, by id. The slice is not to be kept, nor
// changed.
func (v *View) InZone(zone string) []*Hive {
	if z := v.byZone[zone]; z != nil {
		return z.hives
	}
	return nil
}

// place puts h into the zone that it says it is in.
func (v *View) place(h *Hive) {
	if h.home != nil && h.home.name == h.zone {
		return
	}
	z := v.byZone[h.zone]
	if z == nil {
		z = &zoneIndex{name: h.zone}
		v.byZone[h.zone] = z
	}
	was := h.home
	if was != nil {
		v.leaveZone(h)
	}
	z.hives.add(h)
	h.home = z
	for _, t := range h.mixes.list {
		t.up.add(-t.n)
		t.up = v.zoneTally(z, t.Mix)
		t.up.add(t.n)
		if was != nil {
			v.sweep(was, t.Mix)
		}
	}
	if was != nil {
		for _, w := range h.workers {
			v.unseat(w)
			v.reseat(h, w)
		}
		v.unseatGPUs(h)
		v.seatGPUs(h)
	}
}

func (v *View) leaveZone(h *Hive) {
	z := h.home
	if z.hives.remove(h); len(z.hives) == 0 {
		delete(v.byZone, z.name)
	}
}

func (v *View) zoneTally(z *zoneIndex, m Mix) *tally {
	return z.mixes.get(m, func() *tally {
		return v.mixes.get(m, func() *tally { return v.shapes.get(Mix{Live: m.Live, State: m.State}, nil) })
	})
}

// sweep removes what is empty of a zone and of the fleet.
func (v *View) sweep(z *zoneIndex, m Mix) {
	z.mixes.sweep(m)
	v.mixes.sweep(m)
	v.shapes.sweep(Mix{Live: m.Live, State: m.State})
}
