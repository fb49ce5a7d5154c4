package ledger

import (
	"encoding/json"

	"github.com/beatfabric/hivebeat"
)

// packed is the wire form of an entry. WorkerEvery is the promise of every worker that
// names none. Most workers of a hive have the same promise, and an entry may hold thousands
// of workers.
type packed struct {
	*RosterEntry
	WorkerEvery hivebeat.Millis `json:"worker_every,omitempty"`
}

// pack moves the most frequent promise of the workers to WorkerEvery. If any worker's
// promise is unknown, pack moves nothing: that worker would seem to have the common
// promise.
func (e *RosterEntry) pack() packed {
	every, known := CommonEvery(e.Workers)
	if !known || every == 0 {
		return packed{RosterEntry: e}
	}
	workers := make(map[string]RosterWorker, len(e.Workers))
	for id, w := range e.Workers {
		if w.Every == every {
			w.Every = 0
		}
		workers[id] = w
	}
	e.Workers = workers
	return packed{e, every}
}

// CommonEvery returns the most frequent promise of workers, the smallest if several are
// equally frequent, and whether all promises are known.
func CommonEvery(workers map[string]RosterWorker) (every hivebeat.Millis, known bool) {
	count := make(map[hivebeat.Millis]int)
	var last hivebeat.Millis
	run := 0 // number of last, not added to count yet; most workers have the same promise
	for _, w := range workers {
		if w.Every != last {
			count[last] += run
			last, run = w.Every, 0
		}
		run++
	}
	count[last] += run
	unknown := count[0]
	delete(count, 0)
	for e, n := range count {
		if most := count[every]; n > most || n == most && e < every {
			every = e
		}
	}
	return every, unknown == 0
}

// decode reads the JSON that encode wrote.
func (e *RosterEntry) decode(b []byte) error {
	p := packed{RosterEntry: e}
	if err := json.Unmarshal(b, &p); err != nil {
		return err //nolint:wrapcheck // the caller adds the key
	}
	if p.WorkerEvery > 0 {
		for id, w := range e.Workers {
			if w.Every == 0 {
				w.Every = p.WorkerEvery
				e.Workers[id] = w
			}
		}
	}
	return nil
}
