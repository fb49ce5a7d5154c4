package fleet

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// modelHive makes snapshots as a hive does, of workers that beat at random times. The test
// compares the view with its state.
type modelHive struct {
	inc, seq uint64
	workers  map[string]*modelWorker
}

type modelWorker struct {
	heard time.Time // last beat
	done  uint64    // grows with every beat
	n     uint64    // of its joined

	inc    uint64
	joined time.Time
}

// inFlight is a page in transit.
type inFlight struct{ bytes []byte }

// takenRecord is the record of a worker in the newest page that was applied.
type takenRecord struct {
	stamp    uint64 // its (inc, seq)
	age      hivebeat.Millis
	done     uint64
	received time.Time
}

// TestViewAgainstModel sends random snapshots over a line that loses, reorders, duplicates
// and delays pages, and checks every answer.
func TestViewAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := New(45 * time.Second)
		now := epoch
		hive := &modelHive{inc: 100, workers: map[string]*modelWorker{}}
		taken := map[string]takenRecord{}
		var line []inFlight
		lastDone := map[string]uint64{}
		seen := map[string]bool{} // event ids
		numbers, incs := map[string]uint64{}, map[string]uint64{}
		newest, heardIncs := uint64(0), map[uint64]bool{}
		highest := map[uint64]uint64{} // the highest seq that arrived of each incarnation, taken or not
		began := now                   // when the incarnation that counts was heard first
		deliver := func(i int) {
			m := line[i]
			s, err := v.Parse(m.bytes)
			if err != nil {
				t.Fatalf("the model's own page: %v", err)
			}
			inc, seq := s.Inc, s.Seq
			var was hivebeat.Live
			if h := v.hives["h"]; h != nil {
				was = h.live
			}
			advances := seq > highest[inc]
			highest[inc] = max(highest[inc], seq)
			if err := v.Apply(s, now); err == nil {
				v.Keep(m.bytes, s)
				stamp := inc<<32 | seq
				// A lower incarnation that was never heard may take over from one that is
				// not alive: for a queen that is a clock that was set back. One that was
				// superseded may come back if it advances after the newer one was lost,
				// which began longer ago than any page should be on its way: for a queen
				// the newer one was a duplicate that is gone.
				setBack := !heardIncs[inc] && was != hivebeat.Alive
				survives := heardIncs[inc] && advances && was == hivebeat.Lost && now.Sub(began) > 45*time.Second
				if stamp < newest && !setBack && !survives {
					t.Fatalf("(%d, %d) was taken after a newer one", inc, seq)
				}
				if inc != newest>>32 {
					began = now
				}
				newest, heardIncs[inc] = stamp, true
				for i := range s.Workers {
					r := &s.Workers[i]
					taken[string(r.Worker)] = takenRecord{stamp, hivebeat.Millis(r.Age), r.Done, now}
				}
			}
		}
		for range rapid.IntRange(10, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.SampledFrom([]string{"beat", "beat", "beat", "send", "send", "send", "send", "deliver", "deliver", "deliver", "restart", "drop"}).Draw(t, "op") {
			case "beat":
				id := fmt.Sprintf("w%d", rapid.IntRange(0, 7).Draw(t, "worker"))
				w := hive.workers[id]
				if w == nil {
					numbers[id]++
					incs[id]++
					w = &modelWorker{done: lastDone[id], n: numbers[id], joined: now, inc: incs[id]}
					hive.workers[id] = w
				}
				w.heard = now
				w.done++
				lastDone[id] = w.done
			case "drop": // the hive drops a worker
				for i := range 8 {
					if rapid.Bool().Draw(t, "drop") {
						delete(hive.workers, fmt.Sprint("w", i))
					}
				}
			case "restart":
				hive.inc++
				hive.seq = 0
				clear(numbers)
				for _, w := range hive.workers {
					w.n = 0 // remembered, and not numbered yet
				}
				if rapid.Bool().Draw(t, "empty") {
					hive.workers = map[string]*modelWorker{}
				}
			case "send":
				hive.seq++
				s := hive.snapshot(now, rapid.Bool().Draw(t, "warm"))
				for _, p := range pagesOf(s, rapid.IntRange(1, 3).Draw(t, "pages")) {
					b, err := wire.EncodeSnapshot(p)
					if err != nil {
						t.Fatal(err)
					}
					line = append(line, inFlight{b})
				}
				for len(line) > 0 && rapid.Bool().Draw(t, "at once") {
					deliver(len(line) - 1)
					line = line[:len(line)-1]
				}
			case "deliver":
				if len(line) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(line)-1).Draw(t, "which")
				deliver(i)
				if rapid.Bool().Draw(t, "once") {
					line = append(line[:i], line[i+1:]...)
				}
			}
			settleChecks(v, now)
			checkAnswers(t, v, taken, now)
			for _, e := range v.ready.Events {
				if seen[e.ID] {
					t.Fatalf("event %s twice", e.ID)
				}
				seen[e.ID] = true
			}
			v.ready.Events = v.ready.Events[:0]
		}
	})
}

func (m *modelHive) snapshot(now time.Time, warm bool) *hivebeat.Snapshot {
	s := snapshotOf("h", m.inc, m.seq)
	s.Warm = warm
	for i := range 8 {
		id := fmt.Sprintf("w%d", i)
		w, ok := m.workers[id]
		if !ok {
			continue
		}
		r := workerOf(id)
		r.Age, r.Done, r.N = hivebeat.MillisOf(now.Sub(w.heard)), w.done, w.n
		r.Inc = w.inc
		if ago := now.Sub(w.joined); w.n > 0 && ago < time.Minute {
			r.Tr = []hivebeat.Transition{{N: w.n, Kind: hivebeat.KindJoined, Inc: r.Inc, Ago: hivebeat.MillisOf(ago)}}
		}
		s.Workers = append(s.Workers, r)
	}
	return s
}

// checkAnswers compares the answers of the view with the truth.
func checkAnswers(t *rapid.T, v *View, taken map[string]takenRecord, now time.Time) {
	h := v.hives["h"]
	if h == nil {
		return
	}
	counts := make(map[hivebeat.Live]int)
	for _, rec := range h.Workers() {
		w := *rec.Record()
		var fresh bool
		w.Live, w.Age, fresh = v.index.Shown(rec, now)
		counts[index.Counted(w.Live)]++
		truth := taken[w.Worker]
		if old := truth.age + hivebeat.MillisOf(now.Sub(truth.received)); w.Age != old {
			t.Fatalf("%s is shown %d ms old, and is %d", w.Worker, w.Age, old)
		}
		if w.Done != truth.done {
			t.Fatalf("%s has done %d, and the newest page says %d", w.Worker, w.Done, truth.done)
		}
		if w.Live == hivebeat.Alive && (w.Age > 45_000 || !fresh) {
			t.Fatalf("%s is alive at %d ms", w.Worker, w.Age)
		}
		if w.Live == hivebeat.Alive && h.live != hivebeat.Alive && h.live != hivebeat.Late {
			t.Fatalf("%s is alive on a hive that is %s", w.Worker, h.live)
		}
	}
	sum := make(map[hivebeat.Live]int)
	v.Settle(now)
	h.entry.EachMix(func(m index.Mix, n int) { sum[index.Counted(m.Live)] += n })
	if fmt.Sprint(sum) != fmt.Sprint(counts) {
		t.Fatalf("counted %v, the list has %v", sum, counts)
	}
	if err := verify(v, now); err != nil {
		t.Fatal(err)
	}
	if h.live == hivebeat.Alive && now.Sub(h.judged) > 22500*time.Millisecond {
		t.Fatalf("alive after a silence of %v", now.Sub(h.judged))
	}
	if h.live == hivebeat.Lost && now.Sub(h.judged) < 45*time.Second {
		t.Fatalf("lost after a silence of %v", now.Sub(h.judged))
	}
}
