package query

import (
	"math"
	"math/bits"

	"github.com/beatfabric/hivebeat/internal/index"
)

// A pick orders workers by their real load: first by how long the work that they have takes, and then by how
// full their KV cache is. A resident model is not an idle one. Both are compared in steps, so that differences
// that mean nothing do not send all clients to the same worker.

// unknownPace is the wait of a worker that has work and does not report its progress.
const unknownPace = 4000 // ms

// waitOf returns how long w needs for the work that it has and was given, as the power of 2 of milliseconds;
// 0 if it has none.
func waitOf(w *index.Worker) int { return bits.Len64(waitMS(w)) }

func waitMS(w *index.Worker) uint64 {
	r := w.Record()
	switch work := r.Busy + r.Queue + w.Given(); {
	case work == 0:
		return 0
	case r.Rate > 0:
		return uint64(max(1, min(float64(work)/r.Rate*1000, math.MaxInt32)))
	default:
		return unknownPace
	}
}

// fullness returns the tenth of the KV cache that is in use. A worker that does not say is between an empty and
// a full one.
func fullness(kv *float64) int {
	if kv == nil {
		return 5
	}
	return int(*kv * 10)
}

// sayLoad gives the reasons of a rank by load.
func sayLoad(w *index.Worker, say func(string, ...any)) {
	r := w.Record()
	if work := r.Busy + r.Queue; work > 0 && r.Rate > 0 {
		say("%d requests in progress or waiting, %.3g finished a second", work, r.Rate)
	}
	if r.KV != nil {
		say("KV cache %.0f%% in use", *r.KV*100)
	}
	if n := w.Given(); n > 0 {
		say("picked for %d more since its last facts", n)
	}
}

const engineSilent = "with an engine not heard for too long"
