package queencore

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/sampletest"
)

func eventNumbered(n uint64) fleet.Happened {
	return fleet.Happened{At: sampletest.At(0), ID: fmt.Sprint(n), Data: hivebeat.EventData{Hive: "h", Worker: "w", HiveInc: 1, Inc: 7, N: n}}
}

// In whichever order events are pushed, taken and returned, those of each worker come out
// in order and one at a time, the newest are kept, and gaps count all the others.
func TestOutboxIsAQueue(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var o Outbox
	var want []fleet.Happened // what waits
	var n, gone, told uint64
	now := sampletest.At(1)
	take := func() (events, gaps []fleet.Happened) {
		seen := make(map[string]bool)
		for _, h := range o.Take(now) {
			if seen[h.Data.Worker] {
				t.Fatalf("two events of %s are taken together", h.Data.Worker)
			}
			if seen[h.Data.Worker] = true; h.Data.Kind == hivebeat.KindGap {
				told += h.Data.Missing
				gaps = append(gaps, h)
				continue
			}
			i := slices.IndexFunc(want, func(x fleet.Happened) bool { return x.Data.Worker == h.Data.Worker })
			if i < 0 || want[i].Data.N != h.Data.N {
				t.Fatalf("event %d of %s is taken before its turn", h.Data.N, h.Data.Worker)
			}
			want = slices.Delete(want, i, i+1)
			events = append(events, h)
		}
		if len(seen) == 0 && len(want) > 0 {
			t.Fatalf("none is taken, and %d wait", len(want))
		}
		return events, gaps
	}
	for range 500 {
		now = now.Add(outboxPause)
		switch rng.IntN(4) {
		case 0:
			var list []fleet.Happened
			for range rng.IntN(1500) {
				n++
				h := eventNumbered(n)
				h.Data.Worker = fmt.Sprint("w", rng.IntN(400))
				list = append(list, h)
			}
			o.Push(list)
			want = append(want, list...)
			if more := len(want) - OutboxMax; more > 0 {
				gone += uint64(more)
				want = slices.Delete(want, 0, more)
			}
		default:
			events, gaps := take()
			failed := events[:rng.IntN(len(events)/2+1)]
			o.Done(now, len(events)+len(gaps)-len(failed), failed)
			want = slices.Concat(failed, want)
			if next := o.Next(now); next.IsZero() != (len(failed) == 0) || len(failed) > 0 && o.Take(now) != nil {
				t.Fatalf("after %d failed, the next are taken at %v", len(failed), next)
			}
		}
		if waiting, _, dropped := o.Counts(); waiting != len(want) || dropped != gone {
			t.Fatalf("%d waiting, want %d; %d dropped, want %d", waiting, len(want), dropped, gone)
		}
	}
	for now = now.Add(outboxPause); !o.Idle(); {
		events, gaps := take()
		o.Done(now, len(events)+len(gaps), nil)
	}
	if gone == 0 || told != gone || len(want) > 0 {
		t.Errorf("%d dropped, the gaps tell of %d; %d are missing", gone, told, len(want))
	}
	if o.queue != nil {
		t.Error("an outbox in which nothing waits keeps its room")
	}
}

// One more event costs its own memory, and no copy of all waiting events: there are as many
// as the loop has turns while JetStream is away.
func TestAFullOutboxIsNotCopiedForEachEvent(t *testing.T) {
	var o Outbox
	for n := range uint64(OutboxMax) {
		o.Push([]fleet.Happened{eventNumbered(n)})
	}
	one := []fleet.Happened{eventNumbered(OutboxMax)}
	if allocs := testing.AllocsPerRun(2000, func() { o.Push(one) }); allocs > 1 {
		t.Errorf("%v allocations for each", allocs)
	}
	if room := cap(o.queue); room > 2*OutboxMax {
		t.Errorf("room for %d", room)
	}
}

// What waits comes out as it went in.
func TestAnEventThatWaitedIsTheSame(t *testing.T) {
	var want hivebeat.EventData
	fields := reflect.ValueOf(&want).Elem()
	for i := range fields.NumField() {
		switch f := fields.Field(i); {
		case fields.Type().Field(i).Name == "Zone", fields.Type().Field(i).Name == "DuringMS": // no worker's, and no GPU's
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Kind() == reflect.String:
			f.SetString(fmt.Sprint("text", i))
		case f.Type() == reflect.TypeFor[*hivebeat.Place]():
			f.Set(reflect.ValueOf(&hivebeat.Place{Inc: uint64(i), Host: "host"}))
		case f.Kind() == reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
			f.Elem().SetUint(uint64(i + 1))
		default:
			f.SetUint(uint64(i + 1))
		}
	}
	var o Outbox
	var in []fleet.Happened
	for i, at := range []float64{0, -60, 60} {
		want.Worker = fmt.Sprint("w", i) // or they are taken one after the other
		in = append(in, fleet.HappenedAt(sampletest.At(at), want))
	}
	o.Push(in)
	out := o.Take(sampletest.At(1))
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("(-in +out):\n%s", diff)
	}
	o.Done(sampletest.At(1), 0, out)
	if diff := cmp.Diff(in, o.Take(sampletest.At(2))); diff != "" {
		t.Errorf("after it was returned (-in +out):\n%s", diff)
	}
}

// A large fleet has room for three events of each worker, and what waits never takes
// more than it may.
func TestAnOutboxHasRoomForTheFleet(t *testing.T) {
	const workers = 100_000
	var o Outbox
	o.Room(workers)
	push := func(n uint64, reason string) {
		for w := range workers {
			h := eventNumbered(n)
			h.Data.Worker, h.Data.Reason = fmt.Sprint("worker-", w), reason
			o.Push([]fleet.Happened{h})
		}
	}
	for n := range uint64(OutboxEach) {
		push(n+1, "")
	}
	if waiting, _, dropped := o.Counts(); waiting != OutboxEach*workers || dropped > 0 {
		t.Errorf("%d wait, %d were dropped", waiting, dropped)
	}
	o.Room(0) // the workers are gone, but their events still wait
	if o.Push(nil); o.dropped > 0 {
		t.Errorf("%d were dropped when the fleet went", o.dropped)
	}
	push(OutboxEach+1, strings.Repeat("x", 300))
	sum := 0
	for _, w := range o.queue {
		sum += w.size()
	}
	if sum != o.bytes || sum > OutboxBytes || sum < OutboxBytes-1000 {
		t.Errorf("%d bytes wait, of which %d are known; %d may", sum, o.bytes, OutboxBytes)
	}
	if o.dropped == 0 {
		t.Error("none was dropped")
	}
}

// BenchmarkOutboxFull is what one more event costs where 10,000 wait, as they do while
// JetStream is away.
func BenchmarkOutboxFull(b *testing.B) {
	var o Outbox
	push := func(n uint64) {
		o.Push([]fleet.Happened{{Data: hivebeat.EventData{Hive: "h", Worker: "w", HiveInc: 1, Inc: 7, N: n}}})
	}
	for n := range uint64(OutboxMax) {
		push(n)
	}
	n := uint64(OutboxMax)
	b.ReportAllocs()
	for b.Loop() {
		push(n)
		n++
	}
}
