package fleet

import (
	"maps"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// Tally counts the transitions that a view took, for metrics. Another queen counts
// the same ones; one that began anew counts those of the last 60 s again.
type Tally struct {
	Hives, Workers Changes
}

// Changes are the transitions of one level.
type Changes struct {
	Kinds     map[hivebeat.Kind]uint64
	Lost      map[hivebeat.Cause]uint64
	Disproved uint64 // heard again after lost, in the same incarnation
	// Detection is how long it took from the end to lost, by cause. The end of what
	// fell silent is not known: there it counts from when it was heard last, which is
	// longer. Of other causes only those are in it whose end was seen.
	Detection map[hivebeat.Cause]detector.Histogram
}

// Tally returns the counts so far. They are the caller's.
func (v *View) Tally() Tally { return Tally{v.tally.Hives.clone(), v.tally.Workers.clone()} }

func (c Changes) clone() Changes {
	c.Kinds, c.Lost, c.Detection = maps.Clone(c.Kinds), maps.Clone(c.Lost), maps.Clone(c.Detection)
	return c
}

func (t *Tally) hive(kind hivebeat.Kind, from hivebeat.Live, cause hivebeat.Cause, why evidence) {
	t.Hives.add(&hivebeat.EventData{Kind: kind, From: string(from), Cause: cause, AgeMS: why.age, DetectMS: why.detect})
}

func (t *Tally) worker(d *hivebeat.EventData) { t.Workers.add(d) }

// The words that may come over the wire are bounded by what there is to count them
// by: kinds and causes that this release does not know are one.
const (
	otherKind  hivebeat.Kind  = "other"
	otherCause hivebeat.Cause = "other"
)

func (c *Changes) add(d *hivebeat.EventData) {
	if c.Kinds == nil {
		c.Kinds, c.Lost, c.Detection = map[hivebeat.Kind]uint64{}, map[hivebeat.Cause]uint64{}, map[hivebeat.Cause]detector.Histogram{}
	}
	c.Kinds[knownKind(d.Kind)]++
	if d.Kind == hivebeat.KindRecovered && d.From == string(hivebeat.Lost) && d.Cause != hivebeat.CauseSilent {
		c.Disproved++
	}
	if d.Kind != hivebeat.KindLost {
		return
	}
	cause := knownCause(d.Cause)
	c.Lost[cause]++
	took := d.AgeMS
	switch {
	case d.DetectMS != nil:
		took = *d.DetectMS
	case cause != hivebeat.CauseMissed && cause != hivebeat.CauseSilent && cause != hivebeat.CauseHive || took == 0:
		return
	}
	h := c.Detection[cause]
	h.Add(min(took, maxAge).Duration())
	c.Detection[cause] = h
}

func knownKind(k hivebeat.Kind) hivebeat.Kind {
	switch k {
	case hivebeat.KindJoined, hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindRecovered,
		hivebeat.KindLeft, hivebeat.KindRestarted, hivebeat.KindUnverified, hivebeat.KindConflict, hivebeat.KindGap:
		return k
	}
	return otherKind
}

func knownCause(c hivebeat.Cause) hivebeat.Cause {
	switch c {
	case hivebeat.CauseMissed, hivebeat.CauseSilent, hivebeat.CauseExit, hivebeat.CauseDisconnect, hivebeat.CauseHive:
		return c
	}
	return otherCause
}
