package query

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/directive"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	directivesAgain = 20 * time.Hour   // an entry that is older is put again
	eventTooOld     = 50 * time.Minute // the stream may no longer recognise that it has the event
)

// Directives are the drains and silences of hives, workers and GPUs, as this queen knows them. Those in force stay in
// force while JetStream is away, and until the queen reads otherwise.
type Directives struct {
	hives map[string]*directed
	due   liveness.Deadlines[string] // when the next directive of a hive ends
	todo  map[string]struct{}        // hives whose entry may have to be put, or its event published
}

// directed has the directives of one hive.
type directed struct {
	epoch int64 // of the bucket
	rev   uint64
	n     uint64
	after uint64    // of the entry
	put   time.Time // when the entry was put
	list  []said

	read   bool   // the entry must be read: the bucket may be another one
	behind bool   // the entry lacks a directive that is in force here, and is put again
	event  []byte // of change n; nil: there is none, or it is published
}

// said is one directive.
type said struct {
	directive.Place
	*index.Directive // by whom, why, and how long
}

func (s *said) over(now time.Time) bool { return !s.Until.IsZero() && !s.Until.After(now) }

func (s *Directives) at(hive string) *directed {
	if s.hives == nil {
		s.hives, s.todo = make(map[string]*directed), make(map[string]struct{})
	}
	d := s.hives[hive]
	if d == nil {
		d = new(directed)
		s.hives[hive] = d
	}
	return d
}

// Learn takes the entry of a hive as it is stored. In one bucket the later entry counts. In a bucket that was created
// again, an entry whose n is not lower than the known one counts; what an older one lacks is put again.
func (s *Directives) Learn(x *index.Index, hive string, item directive.Item, now time.Time) {
	if known := s.hives[hive]; item.Revision == 0 && known == nil {
		return // there never was an entry
	}
	d := s.at(hive)
	another := d.epoch != item.Epoch
	switch {
	case d.epoch != 0 && item.Epoch < d.epoch, !another && item.Revision > 0 && item.Revision <= d.rev:
		return
	case !another && item.Revision == 0: // it ran out
		d.rev, d.behind = 0, len(d.list) > 0
		s.settle(x, hive, d, now)
		return
	}
	d.epoch, d.rev, d.put = item.Epoch, item.Revision, now.Add(-item.Stored)
	d.behind, d.event = false, nil
	switch {
	case item.Bad, another && item.N < d.n: // the known directives stay, and are put again
		d.behind = len(d.list) > 0
		for i := range item.Directives {
			if at := d.find(item.Directives[i].Place); at < 0 {
				d.list = append(d.list, spoken(&item.Directives[i], item.Stored, now))
			}
		}
	case item.Gone:
		d.list = nil
	default:
		was := d.list
		d.n, d.after, d.list = item.N, item.After, make([]said, 0, len(item.Directives))
		for i := range item.Directives {
			is := spoken(&item.Directives[i], item.Stored, now)
			if at := slices.IndexFunc(was, func(o said) bool { return o.Place == is.Place }); at >= 0 && sameDirective(was[at].Directive, is.Directive) {
				is = was[at]
			}
			d.list = append(d.list, is)
		}
		if len(item.Event) > 0 && item.Stored < eventTooOld {
			d.event = item.Event
		}
	}
	s.settle(x, hive, d, now)
}

// sameTime is how far apart two readings of one time may be: the age of an entry is not exact.
const sameTime = 5 * time.Second

func sameDirective(a, b *index.Directive) bool {
	return a.By == b.By && a.Reason == b.Reason && a.Until.IsZero() == b.Until.IsZero() && a.Until.Sub(b.Until).Abs() < sameTime && a.Since.Sub(b.Since).Abs() < sameTime
}

// spoken returns a directive of an entry that was put that long ago.
func spoken(d *directive.Directive, stored time.Duration, now time.Time) said {
	is := &index.Directive{Worker: d.Worker, GPU: d.GPU, By: d.By, Reason: d.Reason, Since: now.Add(-stored - d.Since.Duration())}
	if d.Left > 0 {
		is.Until = now.Add(d.Left.Duration() - stored)
	}
	return said{d.Place, is}
}

func (d *directed) find(p directive.Place) int {
	return slices.IndexFunc(d.list, func(o said) bool { return o.Place == p })
}

// settle drops expired directives, and updates the index.
func (s *Directives) settle(x *index.Index, hive string, d *directed, now time.Time) {
	d.list = slices.DeleteFunc(d.list, func(o said) bool { return o.over(now) })
	var next time.Time
	var drains, silences []*index.Directive
	for _, o := range d.list {
		if !o.Until.IsZero() && (next.IsZero() || o.Until.Before(next)) {
			next = o.Until
		}
		switch o.What {
		case directive.Drain:
			drains = append(drains, o.Directive)
		case directive.Silence:
			silences = append(silences, o.Directive)
		}
	}
	if next.IsZero() {
		s.due.Remove(hive)
	} else {
		s.due.Set(hive, next)
	}
	if d.behind || d.event != nil {
		s.todo[hive] = struct{}{}
	}
	x.SetDrains(hive, drains, now)
	x.SetSilences(hive, silences)
}

// Expire ends the directives whose time is over.
func (s *Directives) Expire(x *index.Index, now time.Time) {
	for hive := range s.due.Due(now) {
		s.settle(x, hive, s.hives[hive], now)
	}
}

// Renewed records that the bucket may have been created again: the entries are read, and those that it lacks put again.
func (s *Directives) Renewed() {
	for hive, d := range s.hives {
		if len(d.list) > 0 {
			s.Again(hive)
		}
	}
}

// Entry returns the entry of a hive to put now, with change n and without an event, and the revision to put it at. It
// is for a queen that has just read the entry.
func (s *Directives) Entry(hive string, now time.Time) (e directive.Entry, rev uint64) {
	d := s.hives[hive]
	if d == nil {
		return e, 0
	}
	e.N, e.After = max(1, d.n), d.after
	for _, o := range d.list {
		if !o.over(now) {
			e.Directives = append(e.Directives, o.entry(now))
		}
	}
	return e, d.rev
}

func (s *said) entry(now time.Time) directive.Directive {
	d := directive.Directive{Place: s.Place, By: s.By, Reason: s.Reason, Since: hivebeat.MillisOf(max(0, now.Sub(s.Since)))}
	if !s.Until.IsZero() {
		d.Left = max(1, hivebeat.MillisOf(s.Until.Sub(now)))
	}
	return d
}

// Event returns the event of the last change of the hive's entry if it is not known to be published, and how long ago
// the entry was put.
func (s *Directives) Event(hive string, now time.Time) (body []byte, age time.Duration) {
	d := s.hives[hive]
	if d == nil || d.event == nil || now.Sub(d.put) >= eventTooOld {
		return nil, 0
	}
	return d.event, now.Sub(d.put)
}

// Published records that the event of change n is in the stream.
func (s *Directives) Published(hive string, n uint64) {
	if d := s.hives[hive]; d != nil && d.n == n {
		d.event = nil
	}
}

// N returns the number of the last change of the hive's entry.
func (s *Directives) N(hive string) uint64 {
	if d := s.hives[hive]; d != nil {
		return d.n
	}
	return 0
}

// Todo returns hives whose entry may have to be put again, or its event published, and clears the list. With all set, it
// looks at all hives for entries that are old.
func (s *Directives) Todo(x *index.Index, all bool, now time.Time) (put, publish []string) {
	look := s.todo
	s.todo = make(map[string]struct{})
	if all {
		for hive := range s.hives {
			look[hive] = struct{}{}
		}
	}
	for _, hive := range slices.Sorted(maps.Keys(look)) {
		d := s.hives[hive]
		if d.event != nil {
			publish = append(publish, hive)
		}
		if d.read || s.Due(x, hive, now) {
			put = append(put, hive)
		}
		d.read = false
	}
	return put, publish
}

// Due reports whether the entry of a hive must be put again. That of a hive that is not known any more runs out.
func (s *Directives) Due(x *index.Index, hive string, now time.Time) bool {
	d := s.hives[hive]
	return d != nil && (d.behind || len(d.list) > 0 && now.Sub(d.put) > directivesAgain && x.Hive(hive) != nil)
}

// Again puts a hive on the list of Todo, so that its entry is read.
func (s *Directives) Again(hive string) {
	s.todo[hive] = struct{}{}
	s.hives[hive].read = true
}

// InForce returns a directive, if it is in force.
func (s *Directives) InForce(hive string, p directive.Place, now time.Time) (api.Directive, bool) {
	if d := s.hives[hive]; d != nil {
		if at := d.find(p); at >= 0 && !d.list[at].over(now) {
			return d.list[at].describe(hive, now), true
		}
	}
	return api.Directive{}, false
}

func (s *said) describe(hive string, now time.Time) api.Directive {
	i := imposed(s.Directive, now)
	return api.Directive{What: s.What, Hive: hive, Worker: s.Place.Worker, GPU: s.Place.GPU, By: i.By, Reason: i.Reason, Since: i.Since, Left: i.Left}
}

// imposed describes a drain or silence in an answer; nil if d is nil.
func imposed(d *index.Directive, now time.Time) *api.Imposed {
	if d == nil {
		return nil
	}
	i := &api.Imposed{Of: d.Of(), By: d.By, Reason: d.Reason, Since: hivebeat.MillisOf(max(0, now.Sub(d.Since)))}
	if !d.Until.IsZero() {
		i.Left = max(1, hivebeat.MillisOf(d.Until.Sub(now)))
	}
	return i
}

// Change is a change of the entry of a hive.
type Change struct {
	Entry directive.Entry // without its event
	Rev   uint64
	Event hivebeat.EventData
	Now   api.Directive // the directive after the change, or the one that it ends
	None  bool          // nothing changes: it is as asked for already
}

// words are what a verb does, in words.
type words struct {
	what, past string
	kind       hivebeat.Kind
	ends       bool // it ends what another verb began
}

var wordsOf = map[string]words{
	api.VerbDrain:     {directive.Drain, "drained", hivebeat.KindDrained, false},
	api.VerbUndrain:   {directive.Drain, "drained", hivebeat.KindUndrained, true},
	api.VerbSilence:   {directive.Silence, "silenced", hivebeat.KindSilenced, false},
	api.VerbUnsilence: {directive.Silence, "silenced", hivebeat.KindUnsilenced, true},
}

// repeats is within which time the same request counts as a repeated one, which asks for no longer time.
const repeats = 10 * time.Second

// Change returns the change that a request of asker asks for, or why it cannot be made. It is for a queen that has just
// read the entry.
func (s *Directives) Change(x *index.Index, verb, asker string, r *api.Request, now time.Time) (c Change, refused *api.Error) {
	w := wordsOf[verb]
	p := directive.Place{What: w.what, Worker: r.Worker, GPU: r.GPU}
	was, inForce := s.InForce(r.Hive, p, now)
	c.Entry, c.Rev = s.Entry(r.Hive, now)
	c.Entry.N = s.N(r.Hive) + 1
	c.Event = hivebeat.EventData{Hive: r.Hive, Worker: r.Worker, GPU: r.GPU, Asker: asker, Via: hivebeat.ViaQueen}
	g := gpuOf(x, r)
	if g != nil {
		c.Event.GPUIndex = new(g.Index)
	}
	list := slices.DeleteFunc(c.Entry.Directives, func(d directive.Directive) bool { return d.Place == p })
	c.Event.Kind = w.kind
	if w.ends {
		if !inForce {
			return c, notFound(notInForce(x, r, w.what)).Error
		}
		c.Now, c.Entry.Directives = was, list
		c.Event.Reason = "it was " + w.past + " by " + was.By
		if was.Reason != "" {
			c.Event.Reason = plainCut(c.Event.Reason+": "+was.Reason, hivebeat.MaxReason)
		}
		return c, nil
	}
	if e := unknownPlace(x, r, g); e != nil {
		return c, e
	}
	if len(list) >= directive.Max {
		return c, &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf("%s has %d drains and silences, the most that one hive can have: end some, or name the hive itself", r.Hive, len(list))}
	}
	if inForce && was.By == asker && was.Reason == r.Reason && (r.During == 0) == (was.Left == 0) && was.Left+hivebeat.MillisOf(repeats) >= r.During && was.Left <= r.During {
		c.Now, c.None = was, true
		return c, nil
	}
	d := directive.Directive{Place: p, By: asker, Reason: r.Reason, Left: r.During}
	c.Entry.Directives = append(list, d)
	is := spoken(&d, 0, now)
	c.Now = is.describe(r.Hive, now)
	c.Event.Reason = r.Reason
	if r.During > 0 {
		c.Event.DuringMS = new(r.During)
	}
	return c, nil
}

// Forgotten returns the change of the entry of a hive that asker has just forgotten: nothing is in force there any more.
// after is the number of its last event in the roster.
func (s *Directives) Forgotten(hive, asker string, after uint64, now time.Time) (c Change) {
	c.Entry, c.Rev = s.Entry(hive, now)
	c.Entry.N, c.Entry.After, c.Entry.Directives = s.N(hive)+1, after, nil
	c.Event = hivebeat.EventData{Hive: hive, Kind: hivebeat.KindForgotten, Asker: asker, Via: hivebeat.ViaQueen}
	return c
}

// plainCut returns at most n bytes of s, and whole characters.
func plainCut(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

func gpuOf(x *index.Index, r *api.Request) *hivebeat.GPU {
	h := known(x, r.Hive)
	if h == nil || r.GPU == "" {
		return nil
	}
	for i := range h.Head().GPUs {
		if g := &h.Head().GPUs[i]; g.UUID == r.GPU {
			return g
		}
	}
	return nil
}

// unknownPlace says that what a request is about is not known; nil if it is.
func unknownPlace(x *index.Index, r *api.Request, g *hivebeat.GPU) *api.Error {
	h := known(x, r.Hive)
	switch {
	case h == nil:
		return notFound("no hive " + r.Hive + " is known").Error
	case r.Worker != "" && h.Worker(r.Worker) == nil:
		return notFound("no worker " + r.Worker + " is known on hive " + r.Hive).Error
	case r.GPU != "" && g == nil:
		return notFound("no GPU " + r.GPU + " is known on hive " + r.Hive).Error
	case r.GPU != "" && len(r.GPU) > hivebeat.MaxGPUID:
		return &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf("GPU %d of %s has a UUID that cannot be kept", g.Index, r.Hive)}
	}
	return nil
}

// notInForce says that the named place is not drained or silenced itself, and names the place that
// is.
func notInForce(x *index.Index, r *api.Request, what string) string {
	name, past := "hive "+r.Hive, "drained"
	var d *index.Directive
	h := known(x, r.Hive)
	switch {
	case r.Worker != "":
		name = "worker " + r.Worker + " of " + r.Hive
		if h != nil && h.Worker(r.Worker) != nil {
			d = h.Worker(r.Worker).Drain()
		}
	case r.GPU != "":
		name = "GPU " + r.GPU + " of " + r.Hive
		if h != nil {
			d = h.Drain()
		}
	}
	if what == directive.Silence {
		past, d = "silenced", nil
		if h != nil && r.Worker != "" {
			d = h.Silence("")
		}
	}
	switch {
	case d == nil:
	case d.Of() == "hive":
		return name + " is not " + past + " itself: it is " + past + " with its hive"
	case d.Of() == "gpu":
		return name + " is not drained itself: it is drained with GPU " + d.GPU
	}
	return name + " is not " + past
}
