package queencore

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

func TestAHiveIsAnnounced(t *testing.T) {
	for _, without := range []bool{false, true} {
		t.Run(fmt.Sprintf("without JetStream %t", without), func(t *testing.T) {
			r := newRig(t, Config{NoJetStream: without})
			r.snapshot("h", 100, 1, worker("w"))
			r.pass(3 * time.Second)
			if r.serves != 1 || !r.c.Warm() {
				t.Errorf("it is said %d times that it may be asked, warm %t", r.serves, r.c.Warm())
			}
			r.pass(time.Minute)
			want := []hivebeat.Kind{hivebeat.KindJoined, hivebeat.KindLate, hivebeat.KindLost}
			if diff := cmp.Diff(want, r.kinds("h/")); diff != "" {
				t.Errorf("of the hive (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]hivebeat.Kind{hivebeat.KindJoined}, r.kinds("h/w")); diff != "" {
				t.Errorf("of the worker (-want +got):\n%s", diff)
			}
			if reads := r.ops[OpHeads]; (reads == 0) != without {
				t.Errorf("the key of the hive was read %d times before a verdict", reads)
			}
			if n := len(r.puts); n != map[bool]int{false: 1, true: 0}[without] {
				t.Errorf("%d snapshots are to be kept", n)
			}
			if len(r.heard) != 1 || !slices.Contains(r.calls, fleet.RollCall{Hive: "h", Workers: true, Spread: hivebeat.WorkerRollSpread}) {
				t.Errorf("workers of %d hives are heard, and the calls are %v", len(r.heard), r.calls)
			}
		})
	}
}

// No hive is judged while nothing proves that this queen hears: not before its token is
// back, however often it is sent.
func TestNobodyIsJudgedWithoutAToken(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	r.turn()
	r.mute = true
	r.pass(10 * time.Minute)
	if live := r.c.View().Hive("h").Live(); live != hivebeat.Alive || r.tokens < 100 {
		t.Errorf("it is %s, after %d tokens", live, r.tokens)
	}
	r.mute = false
	r.pass(40 * time.Second)
	if live := r.c.View().Hive("h").Live(); live == hivebeat.Lost {
		t.Error("the time in which nobody was heard is not credited")
	}
	r.pass(10 * time.Minute)
	if live := r.c.View().Hive("h").Live(); live != hivebeat.Lost {
		t.Errorf("it is %s", live)
	}
}

// A hive that was not heard may have been among the dropped messages.
func TestDropsAreDoubted(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	r.pass(20 * time.Second)
	r.mute, r.dropped = true, 5
	r.pass(300 * time.Second)
	if live := r.c.View().Hive("h").Live(); live == hivebeat.Lost {
		t.Error("it is lost, though its snapshots may have been dropped")
	}
	if _, doubts := r.c.Hearing().Doubts(); !doubts {
		t.Error("the queen does not doubt itself")
	}
	calls := len(r.calls)
	r.mute = false
	r.pass(time.Second)
	if _, doubts := r.c.Hearing().Doubts(); doubts {
		t.Error("the queen doubts itself still")
	}
	if len(r.calls) > calls+1 {
		t.Errorf("the roll is called %d times", len(r.calls)-calls)
	}
}

// While JetStream is away the view stays current, and the waiting events are published once
// it is back.
func TestTheStoreIsAway(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("a", 100, 1, worker("w"))
	r.pass(time.Second)
	r.broken = true
	r.snapshot("b", 100, 1, worker("w"))
	r.pass(5 * time.Second)
	if r.c.StoreThere() || r.c.StoreReason() == "" {
		t.Errorf("JetStream is there: %t, %s", r.c.StoreThere(), r.c.StoreReason())
	}
	if list := r.kinds("b/"); len(list) > 0 {
		t.Errorf("told: %v", list)
	}
	tries := r.ops[OpProbe]
	r.pass(30 * time.Second)
	if n := r.ops[OpProbe] - tries; n < 3 || n > 20 {
		t.Errorf("looked %d times in 30 s whether it is back", n)
	}
	r.broken = false
	r.pass(12 * time.Second)
	for _, key := range []string{"b/", "b/w"} {
		if list := r.kinds(key); len(list) == 0 || list[0] != hivebeat.KindJoined {
			t.Errorf("of %s is told: %v", key, list)
		}
	}
	if !r.c.Idle() {
		t.Error("something is under way still")
	}
}

// The queen listens to the workers of the first of many lost hives at once. After that it
// only announces lost hives for a second. The last of ten thousand is heard 3.5 s after the
// first.
func TestManyHivesAreLost(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true, Brake: fleet.BrakeRule{Off: true}})
	const hives = 10_000
	for i := range hives {
		r.snapshot(fmt.Sprintf("h%05d", i), 100, 1, worker("w"))
	}
	r.pass(44 * time.Second)
	if n := len(r.heard); n != 0 {
		t.Fatalf("the workers of %d hives are heard before they are lost", n)
	}
	r.pass(10 * time.Second)
	at := make([]time.Duration, 0, hives)
	for _, d := range r.heard {
		at = append(at, d)
	}
	slices.Sort(at)
	if len(at) != hives {
		t.Fatalf("the workers of %d hives are heard", len(at))
	}
	if d := at[listenBurst-1] - at[0]; d != 0 {
		t.Errorf("the last of the burst is heard %s after the first", d)
	}
	if d := at[listenBurst] - at[0]; d < listenPause || d > listenPause+2*listenWake {
		t.Errorf("the next one is heard %s after the first", d)
	}
	if d := at[hives-1] - at[0]; d < 3400*time.Millisecond || d > 3600*time.Millisecond {
		t.Errorf("the last one is heard %s after the first", d)
	}
	for id, at := range r.heard {
		if called, ok := r.called[id]; !ok || called != at {
			t.Fatalf("the workers of %s are heard after %s, and called: %t, after %s", id, at, ok, called)
		}
	}
}

// The queen listens to the workers of a lost hive until the hive lists them again, each
// time.
func TestAHiveComesAndGoes(t *testing.T) {
	r := newRig(t, Config{})
	for n := 1; n <= 2; n++ {
		r.snapshot("h", 100, uint64(n), worker("w"))
		r.turn()
		if len(r.unheard) != n-1 {
			t.Errorf("%d times heard no more, want %d", len(r.unheard), n-1)
		}
		clear(r.heard)
		r.pass(46 * time.Second)
		if len(r.heard) != 1 {
			t.Errorf("lost %d times, and not listened to", n)
		}
	}
}

func eventOf(worker string, n uint64) fleet.Happened {
	return fleet.Happened{
		Data: hivebeat.EventData{Hive: "h", Worker: worker, HiveInc: 100, Inc: 7, N: n, Kind: hivebeat.KindLate},
		ID:   hivebeat.WorkerEventID("h", 100, worker, 7, hivebeat.KindLate, n), At: epoch,
	}
}

func (r *rig) numbers(worker string) (list []uint64) {
	for _, d := range r.events["h/"+worker] {
		if d.Kind != hivebeat.KindGap {
			list = append(list, d.N)
		}
	}
	return list
}

func TestEventsKeepTheOrderOfEachWorker(t *testing.T) {
	r := newRig(t, Config{})
	r.broken = true
	var want []uint64
	for n := range uint64(100) {
		want = append(want, n+1)
		for w := range 20 {
			r.c.out.Push([]fleet.Happened{eventOf(fmt.Sprint("w", w), n+1)})
		}
		if n == 50 { // it fails for a while
			r.pass(30 * time.Second)
		}
	}
	r.broken = false
	r.pass(30 * time.Second)
	for w := range 20 {
		if diff := cmp.Diff(want, r.numbers(fmt.Sprint("w", w))); diff != "" {
			t.Errorf("w%d (-want +got):\n%s", w, diff)
		}
	}
	if waiting, published, dropped := r.c.Outbox(); waiting != 0 || published != 2000 || dropped != 0 {
		t.Errorf("%d waiting, %d published, %d dropped", waiting, published, dropped)
	}
}

func TestTheNewestEventsAreKeptAndTheGapIsTold(t *testing.T) {
	r := newRig(t, Config{})
	r.broken = true
	r.c.trouble(errAway, r.now)
	for n := range uint64(OutboxMax/2 + 100) {
		r.c.out.Push([]fleet.Happened{eventOf("a", n+1), eventOf("b", n+1)})
	}
	if waiting, _, dropped := r.c.Outbox(); waiting != OutboxMax || dropped != 200 || !r.c.Idle() {
		t.Fatalf("%d waiting, %d dropped, idle %t", waiting, dropped, r.c.Idle())
	}
	r.broken = false
	r.pass(30 * time.Second)
	for _, w := range []string{"a", "b"} {
		g := r.events["h/"+w][0]
		if g.Kind != hivebeat.KindGap || g.Missing != 100 || g.N != 100 || g.HiveInc != 100 || g.Reason == "" {
			t.Errorf("%s: gap %+v", w, g)
		}
		if got := r.numbers(w); len(got) != OutboxMax/2 || got[0] != 101 || !slices.IsSorted(got) {
			t.Errorf("%s: %d events, %v …", w, len(got), got[:3])
		}
	}
}

// When a hundred thousand workers join within 12 s, each with two more transitions, no
// event is dropped, although the store answers more slowly than they come.
func TestNoEventIsDroppedWhileAFleetJoins(t *testing.T) {
	const hives, each, ms = 1_000, 100, 12
	r := newRig(t, Config{EventsMax: ledger.BurstBytes(hives * each / 2)})
	r.quick = true
	most := 0
	var under []*Op
	for i := range hives {
		list := make([]hivebeat.Record, each)
		for k := range list {
			w := worker(fmt.Sprintf("worker-%03d", k))
			w.Tr = append(w.Tr, hivebeat.Transition{N: 2, Kind: hivebeat.KindState, From: "loading", To: "ready", Inc: 7},
				hivebeat.Transition{N: 3, Kind: hivebeat.KindState, From: "ready", To: "draining", Inc: 7})
			w.N = 3
			list[k] = w
		}
		r.now = epoch.Add(time.Duration(i) * ms * time.Millisecond)
		r.snapshot(fmt.Sprintf("h%04d", i), 100, 1, list...)
		y := r.c.Ready(r.now)
		if token := y.Token; token != 0 {
			r.c.TokenBack(r.now, token, 0)
		}
		under = append(under, y.Ops...)
		r.sees(y)
		if i%10 == 9 { // it answers every 120 ms
			for _, op := range under {
				r.answer(op)
				r.c.Done(r.now, op)
			}
			under = nil
		}
		waiting, _, dropped := r.c.Outbox()
		if most = max(most, waiting); dropped > 0 {
			t.Fatalf("%d events were dropped after %v, %d wait", dropped, r.now.Sub(epoch), waiting)
		}
	}
	if most < hives*each*2 {
		t.Errorf("at most %d waited: that is no burst", most)
	}
	for _, op := range under {
		r.answer(op)
		r.c.Done(r.now, op)
	}
	r.pass(20 * time.Second)
	if waiting, published, dropped := r.c.Outbox(); waiting != 0 || published != hives*each*3 || dropped != 0 {
		t.Errorf("%d waiting, %d published, %d dropped", waiting, published, dropped)
	}
	if n := r.logs["a burst of events of the whole fleet does not fit into the stream, its oldest would go: raise --events-max"]; n == 0 || n > 2 {
		t.Errorf("the log says %d times that the stream is too small", n)
	}
}

// An event that can never be stored is given up, and does not hold up others.
func TestAnEventIsRefused(t *testing.T) {
	r := newRig(t, Config{})
	r.c.out.Push([]fleet.Happened{eventOf("w", 1), eventOf("w", 2)})
	op := slices.Clone(r.c.Ready(r.now).Ops)
	if len(op) != 1 || len(op[0].Msgs) != 1 {
		t.Fatalf("%d requests", len(op))
	}
	op[0].Errs = []error{errBroken}
	r.c.Done(r.now, op[0])
	r.turn()
	if diff := cmp.Diff([]uint64{2}, r.numbers("w")); diff != "" || !r.c.StoreThere() {
		t.Errorf("JetStream is there: %t; events (-want +got):\n%s", r.c.StoreThere(), diff)
	}
}

func TestNothingOldIsPublished(t *testing.T) {
	r := newRig(t, Config{})
	r.now = r.now.Add(fleet.TooOld + time.Second)
	now := eventOf("w", 2)
	now.At = r.now
	r.c.out.Push([]fleet.Happened{eventOf("w", 1), now})
	r.turn()
	if g := r.events["h/w"]; len(g) != 2 || g[0].Kind != hivebeat.KindGap || g[0].Missing != 1 || g[1].N != 2 {
		t.Errorf("told: %+v", g)
	}
}

// A put without an answer was done all the same, and the watch brings it while its hive
// waits to be announced. There is nothing left to announce for the hive, and the event in
// the entry is looked after.
func TestAnEntryCameWhileItsHiveWaited(t *testing.T) {
	r := newRig(t, Config{})
	entry := func(n, inc uint64) ledger.RosterItem {
		ev := r.c.cfg.Subjects.NewEvent(hivebeat.HiveEventID("h", n), r.now, hivebeat.EventData{Hive: "h", N: n})
		body, err := ev.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return ledger.RosterItem{
			RosterEntry: ledger.RosterEntry{N: n, Live: hivebeat.Lost, Inc: inc, Seq: 1, Every: 15000, Event: body}, Revision: n, Epoch: 1,
		}
	}
	r.c.view.LearnKey("h", entry(1, 100), r.now)
	h := r.c.view.Hive("h")
	h.Roster().Confirmed = 1
	h.Roster().Busy = true // it waits
	r.c.store.queue = append(r.c.store.queue, h)
	r.c.Roster(r.now, "h", entry(2, 200))
	if jobs := r.c.takeBatch(r.now); len(jobs) != 0 {
		t.Fatalf("%d things to say", len(jobs))
	}
	if at, ok := r.c.store.unsure.At(h); !ok || at.Sub(r.now) > 15*time.Second {
		t.Errorf("its event is looked after: %v, in %s", ok, at.Sub(r.now))
	}
	r.pass(20 * time.Second)
	if r.ids[hivebeat.HiveEventID("h", 2)] != 1 {
		t.Errorf("its event was published %d times", r.ids[hivebeat.HiveEventID("h", 2)])
	}
}

// The answer to an advance is lost, and the watch brings the new entry before that is
// known. No difference is left to announce, but the event was never published.
func TestTheAnswerToAnAdvanceIsLost(t *testing.T) {
	r := newRig(t, Config{})
	r.snapshot("h", 100, 1)
	var op *Op
	for _, x := range r.c.Ready(r.now).Ops {
		if x.Kind == OpAdvance {
			op = x
		}
	}
	if op == nil || len(op.Steps) != 1 {
		t.Fatal("nothing is announced")
	}
	r.c.Roster(r.now, "h", ledger.RosterItem{RosterEntry: op.Steps[0].Next, Revision: 1, Epoch: 1})
	if n := r.c.store.unsure.Len(); n != 0 {
		t.Fatalf("%d are to be looked after while it is under way", n)
	}
	op.Advanced = []ledger.Advanced{{Err: errAway}}
	r.c.Done(r.now, op)
	if n := r.c.store.unsure.Len(); n != 1 {
		t.Errorf("%d are to be looked after, want 1", n)
	}
	r.pass(20 * time.Second)
	if n := r.ops[OpAdvance]; n != 0 {
		t.Errorf("it is announced %d times more", n)
	}
	if id := hivebeat.HiveEventID("h", 1); r.ids[id] != 1 {
		t.Errorf("%s is published %d times", id, r.ids[id])
	}
}

// A connection that is closed for good ends the queen.
func TestTheConnectionIsClosed(t *testing.T) {
	r := newRig(t, Config{})
	r.c.Connection(r.now, core.Connection{Closed: true})
	if err := r.c.Ready(r.now).Err; err != ErrClosed { //nolint:errorlint // as it is
		t.Errorf("error %v", err)
	}
}

// An unchanged snapshot allocates nothing on its way through the core.
func TestAnUnchangedSnapshotAllocatesNothing(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	w := worker("w")
	payloads := make([][]byte, 400)
	for i := range payloads {
		payloads[i] = encodeFor(t, uint64(i+2), w)
	}
	r.snapshot("h", 100, 1, w)
	r.pass(3 * time.Second)
	at := 0
	n := testing.AllocsPerRun(300, func() {
		r.now = r.now.Add(time.Millisecond)
		r.c.Snapshot(r.now, "", payloads[at])
		r.c.Ready(r.now)
		at++
	})
	if n > 0 {
		t.Errorf("%.1f allocations", n)
	}
}
