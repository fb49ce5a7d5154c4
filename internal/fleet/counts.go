package fleet

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// TransitionCounts counts the transitions that a view saw, for metrics, without those that an operator silenced. Every
// queen counts the same ones. A
// queen that restarts counts those of the last 60 s again.
type TransitionCounts struct {
	Hives, Workers LevelCounts
}

// LevelCounts counts the transitions of one level.
type LevelCounts struct {
	Kinds     map[hivebeat.Kind]uint64
	Lost      map[hivebeat.Cause]uint64
	Disproved uint64 // lost ones that were heard again in the same incarnation
	// Detection is the time from the end to lost, by cause. The end of a silent process is not known: its time
	// counts from when it was last heard, which is longer. With other causes, only ends that were observed
	// count.
	Detection map[hivebeat.Cause]detector.Histogram
}

// TransitionCounts returns a copy of the counts so far.
func (v *View) TransitionCounts() TransitionCounts {
	return TransitionCounts{v.counts.Hives.clone(), v.counts.Workers.clone()}
}

func (c LevelCounts) clone() LevelCounts {
	c.Kinds, c.Lost, c.Detection = maps.Clone(c.Kinds), maps.Clone(c.Lost), maps.Clone(c.Detection)
	return c
}

func (t *TransitionCounts) hive(h *Hive, kind hivebeat.Kind, cause hivebeat.Cause, why evidence) {
	if !h.uncounted("", kind) {
		t.Hives.add(&hivebeat.EventData{Kind: kind, From: string(h.live), Cause: cause, AgeMS: why.age, DetectMS: why.detect})
	}
}

func (t *TransitionCounts) worker(d *hivebeat.EventData) { t.Workers.add(d) }

// Kinds and causes that this release does not know count as "other", so that messages cannot add metric series.
var (
	knownKinds = []hivebeat.Kind{
		hivebeat.KindJoined, hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindLate, hivebeat.KindLost, hivebeat.KindRecovered,
		hivebeat.KindLeft, hivebeat.KindRestarted, hivebeat.KindUnverified, hivebeat.KindConflict, hivebeat.KindGap,
		hivebeat.KindGPULost, hivebeat.KindGPUFailing, hivebeat.KindGPUDegraded, hivebeat.KindGPURecovered, hivebeat.KindGPUOrphan, hivebeat.KindGPUForgotten,
	}
	knownCauses = []hivebeat.Cause{hivebeat.CauseMissed, hivebeat.CauseSilent, hivebeat.CauseExit, hivebeat.CauseOOM, hivebeat.CauseDisconnect, hivebeat.CauseHive}
)

func known[T ~string](word T, list []T) T {
	if slices.Contains(list, word) {
		return word
	}
	return "other"
}

func (c *LevelCounts) add(d *hivebeat.EventData) {
	if c.Kinds == nil {
		c.Kinds, c.Lost, c.Detection = map[hivebeat.Kind]uint64{}, map[hivebeat.Cause]uint64{}, map[hivebeat.Cause]detector.Histogram{}
	}
	c.Kinds[known(d.Kind, knownKinds)]++
	if d.Kind == hivebeat.KindRecovered && d.From == string(hivebeat.Lost) && d.Cause != hivebeat.CauseSilent {
		c.Disproved++
	}
	if d.Kind != hivebeat.KindLost {
		return
	}
	cause := known(d.Cause, knownCauses)
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

// countMistake counts a wrong verdict of this queen: the same incarnation was heard margin after its deadline.
func (v *View) countMistake(margin time.Duration, cutOff bool) {
	v.score.Margins.Add(margin)
	if cutOff {
		v.score.CutOff++
	} else {
		v.score.FalseDead++
	}
}

// backWords describes, for people, the verdict that was disproved.
func backWords(margin time.Duration, cutOff bool) string {
	if cutOff {
		return fmt.Sprintf("%.1fs past its deadline: its messages did not arrive, and it kept sending them", margin.Seconds())
	}
	return fmt.Sprintf("%.1fs past its deadline: the verdict was wrong", margin.Seconds())
}
