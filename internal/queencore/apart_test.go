package queencore

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// fleetOf is a rig whose hives send every 10 s, except the silent ones.
type fleetOf struct {
	*rig
	hives  int
	silent int // number of the first hives that are silent
	seq    uint64
	since  time.Time
}

func newFleet(t *testing.T, hives, replicas int) *fleetOf {
	f := &fleetOf{rig: newRig(t, Config{Replicas: replicas}), hives: hives}
	f.run(time.Minute)
	f.since = f.now
	return f
}

func (f *fleetOf) id(i int) string { return fmt.Sprint("n", i) }

// speak makes the hives from first on send a snapshot each.
func (f *fleetOf) speak(first int) {
	f.seq++
	for i := first; i < f.hives; i++ {
		f.snapshot(f.id(i), 100, f.seq)
	}
}

// run lets time pass.
func (f *fleetOf) run(d time.Duration) {
	f.t.Helper()
	for end := f.now.Add(d); f.now.Before(end); {
		f.speak(f.silent)
		f.pass(min(10*time.Second, end.Sub(f.now)))
	}
}

// count returns how many hives have this verdict in the view of the queen.
func (f *fleetOf) count(live hivebeat.Live) (n int) {
	for _, h := range f.c.View().Hives() {
		if h.Live() == live {
			n++
		}
	}
	return n
}

// deaths returns the lost and unverified events that went out.
func (f *fleetOf) deaths() (list []string) {
	for _, events := range [][]hivebeat.Event{f.stored, f.live} {
		for i := range events {
			if k := events[i].Data.Kind; k == hivebeat.KindLost || k == hivebeat.KindUnverified {
				list = append(list, events[i].Subject+" "+string(k))
			}
		}
	}
	for _, b := range f.peers {
		var m PeerMessage
		if err := json.Unmarshal(b, &m); err != nil {
			f.t.Fatal(err)
		}
		for _, d := range m.Unverified {
			list = append(list, d.Hive+" to peers")
		}
	}
	f.peers = nil
	slices.Sort(list)
	return slices.Compact(list)
}

// If a store of several servers acknowledges nothing to a queen, that queen may be the one
// that is cut off: hives that it does not hear are unverified in its view, and it publishes
// no event about them. Once the store acknowledges again, the hives have the same time to
// be heard as if they had fallen silent just then.
func TestAQueenThatMayBeCutOffLosesNobody(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(f *fleetOf)
	}{
		{"the store does not answer", func(f *fleetOf) { f.broken = true }},
		{"its leader has lost the others", func(f *fleetOf) { f.split = true }},
	} {
		for _, dead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dead %t", tt.name, dead), func(t *testing.T) {
				f := newFleet(t, 6, 3)
				tt.cut(f)
				f.silent, f.peers = 2, nil
				f.run(5 * time.Minute)
				if n := f.count(hivebeat.Unverified); n != f.silent || f.c.View().Apart() == "" {
					t.Errorf("%d hives are unverified and %d lost, and it is %q", n, f.count(hivebeat.Lost), f.c.View().Apart())
				}
				if list := f.deaths(); len(list) > 0 {
					t.Errorf("it tells %v", list)
				}
				f.broken, f.split, f.calls = false, false, nil
				f.run(12 * time.Second)
				if why := f.c.View().Apart(); why != "" {
					t.Fatalf("the store acknowledges, and it is %q", why)
				}
				for i := range f.silent {
					if !slices.ContainsFunc(f.calls, func(c fleet.RollCall) bool { return c.Hive == f.id(i) }) {
						t.Errorf("the roll of %s is not called: %v", f.id(i), f.calls)
					}
				}
				if f.run(30 * time.Second); !dead {
					f.silent = 0
				}
				if list := f.deaths(); len(list) > 0 {
					t.Errorf("it tells %v before they could be heard", list)
				}
				f.run(20 * time.Second)
				want := []string{"n0 lost", "n1 lost"}
				if !dead {
					want = nil
				}
				if list := f.deaths(); !slices.Equal(list, want) || f.count(hivebeat.Unverified) > 0 {
					t.Errorf("it tells %v, not %v; %d are unverified", list, want, f.count(hivebeat.Unverified))
				}
			})
		}
	}
}

// Evidence that the queen is not cut off, and a store that cannot give any.
func TestAQueenThatIsNotCutOffBelieves(t *testing.T) {
	for _, tt := range []struct {
		name           string
		replicas, dead int
		cut            func(f *fleetOf)
		apart, held    bool
		told           int // lost in the end
	}{
		{name: "the store acknowledges", replicas: 3, dead: 2, cut: func(*fleetOf) {}, told: 2},
		{name: "the store acknowledges, and most are dead", replicas: 3, dead: 5, cut: func(*fleetOf) {}, held: true, told: 5},
		{name: "the one server of the store is away", replicas: 1, dead: 2, cut: func(f *fleetOf) { f.broken = true }, told: 2},
		{name: "the one server of the store is away, and most are silent", replicas: 1, dead: 5, cut: func(f *fleetOf) { f.broken = true }, apart: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, 6, tt.replicas)
			tt.cut(f)
			f.silent = tt.dead
			apart := false
			for range 9 {
				f.run(10 * time.Second)
				apart = apart || f.c.View().Apart() != ""
			}
			lost, held := 0, false
			for _, x := range f.deaths() {
				if held = held || strings.HasSuffix(x, " unverified"); strings.HasSuffix(x, " lost") {
					lost++
				}
			}
			if apart != tt.apart || held != tt.held || lost != tt.told || f.count(hivebeat.Lost) != tt.told {
				t.Errorf("apart %t, the brake on %t, %d lost and %d told; %+v", apart, held, f.count(hivebeat.Lost), lost, tt)
			}
		})
	}
}

// An end that is seen is not silence: a queen that may be cut off believes it.
func TestAQueenThatMayBeCutOffBelievesEnds(t *testing.T) {
	f := newFleet(t, 6, 3)
	f.snapshot("h", 100, 1) // over a connection
	f.broken, f.silent = true, 2
	f.run(time.Minute)
	if f.c.View().Apart() == "" {
		t.Fatal("it is sure of itself")
	}
	f.snapshot("h", 100, 2)
	f.closes()
	f.run(10 * time.Second)
	if h := f.c.View().Hive("h"); h.Live() != hivebeat.Lost || f.c.View().Index().Hive("h").Cause() != hivebeat.CauseDisconnect {
		t.Errorf("its connection closed, and it is %s, %s", h.Live(), f.c.View().Index().Hive("h").Cause())
	}
	if !slices.Contains(f.deaths(), "h lost") {
		t.Error("nobody is told")
	}
}

// Workers of a hive that was lost earlier fall silent together with the hives that are cut
// off. They are not lost for that either.
func TestAQueenThatMayBeCutOffLosesNoWorkers(t *testing.T) {
	f := newFleet(t, 6, 3)
	beat := func(seq uint64) {
		b := hivebeat.Beat{V: 1, Hive: "h", Worker: "w", Facts: worker("w").Facts}
		b.Seq = seq
		payload, err := wire.EncodeBeat(&b)
		if err != nil {
			t.Fatal(err)
		}
		f.c.Beat(f.now, "h", "", payload)
	}
	f.snapshot("h", 100, 1, worker("w"))
	f.closes()
	f.run(10 * time.Second)
	beat(20)
	f.broken, f.silent = true, 2
	f.run(5 * time.Minute)
	w := f.c.View().Index().Hive("h").Worker("w")
	if live := w.Record().Live; live == hivebeat.Lost {
		t.Errorf("it is %s", live)
	}
	f.broken = false
	f.run(12 * time.Second)
	beat(21)
	f.run(2 * time.Minute)
	if slices.Contains(f.deaths(), "h/w lost") && w.Record().Seq < 21 {
		t.Error("it was heard in time, and is told as lost")
	}
	f.run(5 * time.Minute)
	if live := w.Record().Live; live != hivebeat.Lost {
		t.Errorf("it fell silent after all, and is %s", live)
	}
}
