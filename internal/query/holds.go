package query

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/queen/api"
)

// keepRevisions limits the places whose revision is remembered.
const keepRevisions = 50_000

// HoldID names a hold. Each asker has its own ids.
type HoldID struct{ Asker, ID string }

// Hold is a hold on a place, of N slots or bytes.
type Hold struct {
	HoldID
	N     uint64
	Until time.Time
}

// Holds are all known holds. The holds on one place are kept together, as in the bucket.
type Holds struct {
	places map[index.Place]*held
	ids    map[HoldID]map[index.Place]struct{}
	due    liveness.Deadlines[index.Place]
}

// held is the state of one place.
type held struct {
	rev     uint64 // revision in the bucket; 0: there is none, or it is unknown
	list    []Hold
	pending []Hold // being written by this queen
}

func (h *held) sum() (n uint64) {
	for _, l := range [][]Hold{h.list, h.pending} {
		for _, x := range l {
			n += x.N
		}
	}
	return n
}

func (s *Holds) at(p index.Place) *held {
	if s.places == nil {
		s.places, s.ids = make(map[index.Place]*held), make(map[HoldID]map[index.Place]struct{})
	}
	h := s.places[p]
	if h == nil {
		h = &held{}
		s.places[p] = h
	}
	return h
}

// Learn takes the stored holds on a place at a revision. An empty list means that there are
// none. A revision that is not newer than the known one changes nothing.
func (s *Holds) Learn(v *index.Index, p index.Place, rev uint64, list []Hold, now time.Time) {
	h := s.at(p)
	if rev != 0 && rev <= h.rev {
		return
	}
	for _, x := range h.list {
		s.unlist(p, x.HoldID)
	}
	h.rev = max(h.rev, rev)
	h.list = slices.DeleteFunc(slices.Clone(list), func(x Hold) bool { return !x.Until.After(now) })
	for _, x := range h.list {
		if s.ids[x.HoldID] == nil {
			s.ids[x.HoldID] = make(map[index.Place]struct{})
		}
		s.ids[x.HoldID][p] = struct{}{}
	}
	s.settle(v, p, h, now)
}

func (s *Holds) unlist(p index.Place, id HoldID) {
	delete(s.ids[id], p)
	if len(s.ids[id]) == 0 {
		delete(s.ids, id)
	}
}

// settle updates the held capacity in the view, and sets when the next hold ends.
func (s *Holds) settle(v *index.Index, p index.Place, h *held, now time.Time) {
	v.SetHeld(p, h.sum(), now)
	var next time.Time
	for _, x := range h.list {
		if next.IsZero() || x.Until.Before(next) {
			next = x.Until
		}
	}
	switch {
	case !next.IsZero():
		s.due.Set(p, next)
	case len(h.pending) > 0:
		s.due.Remove(p)
	default:
		s.due.Remove(p)
		if h.rev == 0 || len(s.places) > keepRevisions { // the revision saves a read when the place is held again
			delete(s.places, p)
		}
	}
}

// Expire ends the holds whose time is over.
func (s *Holds) Expire(v *index.Index, now time.Time) {
	for p := range s.due.Due(now) {
		h := s.places[p]
		h.list = slices.DeleteFunc(h.list, func(x Hold) bool {
			over := !x.Until.After(now)
			if over {
				s.unlist(p, x.HoldID)
			}
			return over
		})
		s.settle(v, p, h, now)
	}
}

// Forget drops all stored holds: the bucket was created again.
func (s *Holds) Forget(v *index.Index, now time.Time) {
	for p, h := range s.places {
		h.rev, h.list = 0, nil
		s.settle(v, p, h, now)
	}
	clear(s.ids)
}

// Reserve reserves a place for a hold that is being written.
func (s *Holds) Reserve(v *index.Index, p index.Place, x Hold, now time.Time) {
	h := s.at(p)
	h.pending = append(h.pending, x)
	s.settle(v, p, h, now)
}

// Unreserve ends a reservation, whether or not the hold was written.
func (s *Holds) Unreserve(v *index.Index, p index.Place, id HoldID, now time.Time) {
	h := s.at(p)
	if i := slices.IndexFunc(h.pending, func(x Hold) bool { return x.HoldID == id }); i >= 0 {
		h.pending = slices.Delete(h.pending, i, i+1)
	}
	s.settle(v, p, h, now)
}

// Written returns the stored holds on a place, to this queen's knowledge, and their
// revision.
func (s *Holds) Written(p index.Place) (rev uint64, list []Hold) {
	if h := s.places[p]; h != nil {
		return h.rev, slices.Clone(h.list)
	}
	return 0, nil
}

// Of returns the places of a hold, in order.
func (s *Holds) Of(id HoldID) []index.Place {
	return slices.SortedFunc(maps.Keys(s.ids[id]), comparePlaces)
}

func comparePlaces(a, b index.Place) int {
	return cmp.Or(strings.Compare(a.Hive, b.Hive), strings.Compare(a.Worker, b.Worker), strings.Compare(a.GPU, b.GPU))
}

// Describe returns a hold as it appears in an answer.
func Describe(p index.Place, x Hold, now time.Time) api.Hold {
	a := api.Hold{ID: x.ID, Asker: x.Asker, Hive: p.Hive, Worker: p.Worker, GPU: p.GPU, Left: hivebeat.MillisOf(x.Until.Sub(now))}
	if p.Worker != "" {
		a.Slots = x.N
	} else {
		a.Bytes = x.N
	}
	return a
}

// List answers the verb holds, in the order of ids, askers and places.
func (s *Holds) List(r *api.Request, now time.Time) (a api.Answer) {
	all := make([]api.Hold, 0, len(s.places))
	for p, h := range s.places {
		for _, x := range h.list {
			if x.Until.After(now) {
				all = append(all, Describe(p, x, now))
			}
		}
	}
	a.Total = new(len(all))
	slices.SortFunc(all, func(a, b api.Hold) int { return strings.Compare(holdKey(&a), holdKey(&b)) })
	from, _ := slices.BinarySearchFunc(all, r.After, func(h api.Hold, key string) int {
		if holdKey(&h) <= key && key != "" {
			return -1
		}
		return 1
	})
	all = all[from:]
	if n := limitOf(r); len(all) > n {
		all = all[:n]
		a.Next = holdKey(&all[n-1])
	}
	a.Holds = all
	return a
}

// holdKey is the sort key of a hold, and the cursor after it.
func holdKey(h *api.Hold) string {
	return h.ID + "/" + h.Asker + "/" + h.Hive + "/" + h.Worker + "/" + h.GPU
}

// Held describes the places of a hold that may still be picked, in the form of a pick. It
// returns the other places separately.
func Held(v *index.Index, r api.Request, id HoldID, places []index.Place, now time.Time) (picks []api.Pick, found []Found, others []index.Place) {
	f := NewFinder(r, nil)
	var good []candidate
	for _, p := range places {
		c, ok := placeNow(v, p)
		switch {
		case !ok, f.gpu != (p.GPU != ""),
			c.w != nil && !f.filter.model(c.w.Record().Model),
			c.w != nil && (!sound(c.w) || f.young(c.w, now)),
			c.g != nil && !c.g.Fit(),
			c.hive.Conflict(now) != nil, v.DoubtedBy(c.hive, now) != "":
			others = append(others, p)
			continue
		}
		good = append(good, c)
	}
	for len(good) > 0 {
		n, c := 1, good[0]
		if f.gpu && f.gpus > 1 { // the places of one hive follow each other
			if n = f.gpus; len(good) < n || good[n-1].hive != c.hive {
				others, good = append(others, c.place()), good[1:]
				continue
			}
			for i := 1; i < n; i++ {
				c.more = append(c.more, good[i].g)
			}
		}
		good = good[n:]
		c.serves = c.g != nil && f.servesModel(c.hive)
		d := describe(v, &c, now)
		d.Rank, d.Hold, d.Asker, d.Reasons = len(picks)+1, id.ID, id.Asker, []string{"already held under this id"}
		picks = append(picks, d)
		found = append(found, c.found(f.need))
	}
	return picks, found, others
}

// sound reports whether a worker may be picked, apart from its slots: the client that holds
// it may be using some.
func sound(w *index.Worker) bool {
	h, m := w.Hive(), w.Mix()
	return h.Live() == hivebeat.Alive && h.Fresh() && m.Live == hivebeat.Alive && w.Fresh() && !h.Doubtful() && !w.Record().Closed && !w.Record().Stalled &&
		!w.OnBadGPU() && w.Drain() == nil && (m.State == hivebeat.Ready || m.State == hivebeat.Busy)
}

func placeNow(v *index.Index, p index.Place) (c candidate, ok bool) {
	h := known(v, p.Hive)
	if h == nil {
		return c, false
	}
	c.hive, c.zone = h, h.Zone()
	if p.Worker != "" {
		c.w = h.Worker(p.Worker)
		return c, c.w != nil
	}
	gpus := h.GPUs()
	for i := range gpus {
		if gpus[i].UUID() == p.GPU {
			c.g = &gpus[i]
			return c, true
		}
	}
	return c, false
}
