package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// adoptionRig is a hive with workers w0, w1 …, and the roster that any number of views
// share.
type adoptionRig struct {
	t     *testing.T
	views []*View
	item  ledger.RosterItem
	told  []string
	steps int // of the roster
	ids   map[string]bool
	seq   map[string]uint64
	inc   map[string]uint64
	hive  hivebeat.Snapshot
}

// newAdoptionRig returns a hive that was heard at 0 s, with workers that were heard 5 s
// before.
func newAdoptionRig(t *testing.T, views, workers int) *adoptionRig {
	o := &adoptionRig{t: t, ids: map[string]bool{}, seq: map[string]uint64{}, inc: map[string]uint64{}}
	var list []hivebeat.Record
	for i := range workers {
		w := workerOf(fmt.Sprint("w", i))
		o.seq[w.Worker], o.inc[w.Worker] = w.Seq, w.Inc
		list = append(list, w)
	}
	o.hive = *snapshotOf("h", 100, 1, list...)
	for range views {
		v := New(45 * time.Second)
		v.SetBrake(BrakeRule{Off: true})
		o.views = append(o.views, v)
	}
	o.snapshot(0)
	o.tell(0)
	return o
}

func (o *adoptionRig) snapshot(now float64) {
	for _, v := range o.views {
		mustFeed(o.t, v, &o.hive, at(now))
	}
	o.hive.Seq++
}

// beat lets a worker beat. skip is how many of its beats before were not heard.
func (o *adoptionRig) beat(now float64, id string, skip uint64, change func(*hivebeat.Beat), views ...*View) {
	o.t.Helper()
	o.seq[id] += 1 + skip
	b := hivebeat.Beat{V: 1, Hive: "h", Worker: id, Facts: hivebeat.Facts{Inc: o.inc[id], Every: 30000, Seq: o.seq[id], State: hivebeat.Ready, Model: "llama"}}
	if change != nil {
		change(&b)
		o.inc[id], o.seq[id] = b.Inc, b.Seq
	}
	body, err := wire.EncodeBeat(&b)
	if err != nil {
		o.t.Fatal(err)
	}
	if views == nil {
		views = o.views
	}
	for _, v := range views {
		if err := v.Beat("h", "", body, at(now)); err != nil {
			o.t.Errorf("%s at %gs: %v", id, now, err)
		}
	}
}

// tell lets every view announce, one after the other, as the roster makes them.
func (o *adoptionRig) tell(now float64) {
	o.t.Helper()
	for again := 0; ; again++ {
		said := false
		for _, v := range o.views {
			h := v.Hive("h")
			h.roster.Item = o.item
			say, ok := h.Announce(at(now))
			if !ok {
				continue
			}
			said = true
			n := o.item.N
			o.item.RosterEntry = say.Next
			o.item.Revision++
			for i, told := range say.Events {
				ev := hivebeat.Subjects{}.NewEvent(told.ID, at(now), told.Data)
				body, _ := ev.Encode()
				if i < len(say.Events)-1 {
					o.item.Events = append(o.item.Events, body)
				} else {
					o.item.Event = body
				}
				if n++; told.Data.N != n {
					o.t.Errorf("%s has number %d, want %d", told.ID, told.Data.N, n)
				}
				if o.ids[told.ID] {
					o.t.Errorf("%s is told twice", told.ID)
				}
				o.ids[told.ID] = true
				who := "hive"
				if told.Data.Worker != "" {
					who = told.Data.Worker
				}
				line := fmt.Sprintf("%s %s", who, told.Data.Kind)
				if told.Data.Cause != "" {
					line += " " + string(told.Data.Cause)
				}
				o.told = append(o.told, line)
			}
			if n != say.Next.N || len(say.Events) > announceMost {
				o.t.Errorf("%d events lead to %d, the entry says %d", len(say.Events), n, say.Next.N)
			}
			o.steps++
			for _, v := range o.views {
				h := v.Hive("h")
				h.roster.Item.N = say.Next.N - 1
				v.LearnKey("h", o.item, at(now))
			}
		}
		if !said {
			return
		}
		if again > 100 {
			o.t.Fatalf("the queens argue: %q", o.told[len(o.told)-10:])
		}
	}
}

// pass lets time pass, second by second, in all views.
func (o *adoptionRig) pass(from, to float64) {
	o.t.Helper()
	for s := from; s <= to; s++ {
		for _, v := range o.views {
			settleChecks(v, at(s))
		}
		o.tell(s)
	}
}

func (o *adoptionRig) expect(what string, want ...string) {
	o.t.Helper()
	if !slices.Equal(o.told, want) {
		o.t.Errorf("%s: told %q, want %q", what, o.told, want)
	}
	o.told = nil
}

// shown returns what each view shows of a worker.
func (o *adoptionRig) shown(now float64, id string) string {
	var list []string
	for _, v := range o.views {
		h := v.Hive("h")
		w := h.Worker(id)
		if w == nil {
			list = append(list, "none")
			continue
		}
		live, _, _ := v.index.Shown(w, at(now))
		list = append(list, fmt.Sprintf("%s via %s", live, w.Via()))
	}
	return strings.Join(slices.Compact(list), ", ")
}

func (o *adoptionRig) expectShown(now float64, id, want string) {
	o.t.Helper()
	if got := o.shown(now, id); got != want {
		o.t.Errorf("%s at %gs is shown as %q, want %q", id, now, got, want)
	}
}

func TestAdoptedWorkersThatAnswerMakeNoEvent(t *testing.T) {
	for _, views := range []int{1, 2} {
		o := newAdoptionRig(t, views, 3)
		o.expect("the hive", "hive joined")
		o.pass(1, 45)
		o.expect("the hive", "hive late missed", "hive lost missed")
		o.expectShown(45, "w0", "late via queen")
		for _, v := range o.views {
			r := v.Take()
			if calls := r.Calls; len(calls) != 1 || calls[0].Hive != "h" || calls[0].Spread != hivebeat.WorkerRollSpread {
				t.Errorf("roll calls: %+v", calls)
			}
			if a := r.Adoptions; !slices.Equal(a, []string{"h"}) || !v.Adopted("h") {
				t.Errorf("adoptions: %v", a)
			}
		}
		for i := range 3 {
			o.beat(45.3, fmt.Sprint("w", i), 0, nil)
			o.expectShown(45.3, fmt.Sprint("w", i), "alive via queen")
		}
		o.pass(46, 60)
		for s := 70.0; s < 400; s += 27 {
			for i := range 3 {
				o.beat(s, fmt.Sprint("w", i), 0, nil)
			}
			o.pass(s, s+26)
			o.expectShown(s+26, "w1", "alive via queen")
		}
		o.expect("they were alive all along")

		// The hive is back as another process, which has heard two of them by now.
		o.hive.Inc, o.hive.Seq, o.hive.Warm = 200, 1, false
		third := o.hive.Workers[2]
		o.hive.Workers = o.hive.Workers[:2]
		for i := range o.hive.Workers {
			w := &o.hive.Workers[i]
			o.seq[w.Worker]++
			w.N, w.Age, w.Since, w.Seq = 1, 1000, 1000, o.seq[w.Worker]
			w.Tr = []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, To: "alive", Inc: 7, Ago: 1000}}
		}
		o.snapshot(400)
		o.tell(400)
		o.expect("handed back", "hive restarted")
		o.expectShown(400, "w1", "alive via hive")
		o.expectShown(400, "w2", "alive via queen")
		for _, v := range o.views {
			if hives, workers, _ := v.Adoptions(); hives != 1 || workers != 1 || !v.Adopted("h") {
				t.Errorf("%d hives and %d workers are adopted, want the one it did not list", hives, workers)
			}
		}
		third.N, third.Seq, third.Tr = 1, o.seq["w2"]+1, []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, To: "alive", Inc: 7, Ago: 1000}}
		o.hive.Workers = append(o.hive.Workers, third)
		o.hive.Warm = true
		o.snapshot(401)
		o.tell(401)
		o.expect("handed back")
		for _, v := range o.views {
			if hives, workers, beats := v.Adoptions(); hives != 0 || workers != 0 || beats == 0 || v.Adopted("h") {
				t.Errorf("%d hives, %d workers, %d beats", hives, workers, beats)
			}
			for _, e := range v.Take().Events {
				if e.Data.Kind != hivebeat.KindGap && e.At.After(at(1)) {
					t.Errorf("an event of a worker: %+v", e.Data)
				}
			}
			if s := v.Score(); s.FalseDead+s.CutOff != 0 {
				t.Errorf("score %+v", s)
			}
		}
	}
}

// A worker that answers the queen was alive all along, since the time that its hive
// reported. Later verdicts count from their own time.
func TestAdoptedWorkersAreAliveSinceTheirHiveSaysSo(t *testing.T) {
	o := newAdoptionRig(t, 1, 4)
	since := func(now float64, id string) float64 {
		w := o.views[0].Hive("h").workers[id]
		return float64(index.EffectiveAge(w.rec().Since, w.entry.Received(), at(now))) / 1000
	}
	was := since(0, "w0")
	if was <= 0 {
		t.Fatalf("alive for %gs", was)
	}
	o.pass(1, 45)
	for i := range 4 {
		id := fmt.Sprint("w", i)
		if i == 3 { // restarted
			o.inc[id]++
			o.seq[id] = 0
		}
		o.beat(45.3, id, 0, nil)
	}
	o.expectShown(45.3, "w0", "alive via queen")
	o.beat(50, "w0", 0, nil)
	o.beat(50, "w1", 0, func(b *hivebeat.Beat) { b.State = hivebeat.Degraded })
	for id, want := range map[string]float64{"w0": was + 60, "w1": was + 60, "w2": was + 60, "w3": 60 - 45.3} {
		if got := since(60, id); got < want-0.01 || got > want+0.01 {
			t.Errorf("%s is alive for %gs at 60 s, want %gs", id, got, want)
		}
	}

	// w0 is late, and heard again: that is a new time of being alive.
	o.pass(60, 100)
	o.expectShown(100, "w0", "late via queen")
	o.beat(101, "w0", 0, nil)
	o.expectShown(101, "w0", "alive via queen")
	if got := since(103, "w0"); got != 2 {
		t.Errorf("alive for %gs, 2 s after it came back", got)
	}
}

func TestAdoptedWorkersThatDiedAreLostOnce(t *testing.T) {
	o := newAdoptionRig(t, 2, 2)
	o.pass(1, 45)
	o.told = nil
	o.beat(45.3, "w0", 0, nil)
	o.pass(46, 70)
	o.beat(71, "w0", 0, nil)
	o.pass(71, 84)
	o.expect("before the deadline")
	o.expectShown(84, "w1", "late via queen")
	o.pass(85, 86) // heard 5 s before the snapshot at 0
	o.expect("its own deadline", "w1 lost hive")
	o.expectShown(86, "w1", "lost via queen")
	o.pass(87, 95)
	o.expect("once")

	// Its end, by its own silence, is another cause.
	o.pass(96, 165)
	o.expect("silence of an adopted one", "w0 late missed", "w0 lost missed")
	o.beat(170, "w0", 5, nil)
	o.tell(170)
	o.expect("it had been cut off", "w0 recovered")
	for _, v := range o.views {
		if s := v.Score(); s.CutOff != 1 || s.FalseDead != 0 || s.Margins.N != 1 {
			t.Errorf("score %+v", s)
		}
	}
}

// A queen knows the end of a process from the hive's last snapshot: a message sent before
// that end is no sign of life.
func TestAdoptedWorkersThatEndedStayDead(t *testing.T) {
	o := newAdoptionRig(t, 1, 0)
	for id, ended := range map[string]uint64{"w0": 5000, "w1": 0} {
		w := workerOf(id)
		w.Live, w.Cause, w.NS, w.PID, w.Ended = hivebeat.Lost, hivebeat.CauseExit, "boot/1", 7, ended
		o.seq[id], o.inc[id] = w.Seq, w.Inc
		o.hive.Workers = append(o.hive.Workers, w)
	}
	o.snapshot(1)
	o.pass(2, 50) // the hive is lost
	v := o.views[0]
	for _, c := range []struct {
		id   string
		boot uint64
		want hivebeat.Reason
		live string
	}{
		{"w0", 0, hivebeat.RefusedStale, "lost via queen"},
		{"w0", 5000, hivebeat.RefusedStale, "lost via queen"},
		{"w1", 9000, hivebeat.RefusedStale, "lost via queen"}, // when it ended is not known
		{"w0", 5001, "", "alive via queen"},
	} {
		o.seq[c.id]++
		b := hivebeat.Beat{
			V: 1, Hive: "h", Worker: c.id, Boot: c.boot,
			Facts: hivebeat.Facts{Inc: o.inc[c.id], Every: 30000, NS: "boot/2", Seq: o.seq[c.id]},
		}
		body, err := wire.EncodeBeat(&b)
		if err != nil {
			t.Fatal(err)
		}
		if got := hivebeat.ReasonOf(v.Beat("h", "", body, at(51))); got != c.want {
			t.Errorf("%s at %d of its boot clock: refused as %q, want %q", c.id, c.boot, got, c.want)
		}
		o.expectShown(51, c.id, c.live)
	}
}

// The deadline of a worker may have passed before its hive is lost: it is asked first.
func TestAdoptedWorkersHaveTimeToAnswer(t *testing.T) {
	o := newAdoptionRig(t, 1, 1)
	o.hive.Workers[0].Every = 10_000
	o.snapshot(1)
	o.pass(2, 51)
	o.expect("a roll is called", "hive joined", "hive late missed", "hive lost missed")
	o.pass(52, 53)
	o.expect("it does not answer", "w0 lost hive")
}

// Messages that a hive sent before it was lost end no adoption, not even of workers that
// the queen made lost: one may come back.
func TestALatePageGivesNobodyBack(t *testing.T) {
	page := func(n uint64, w hivebeat.Record) *hivebeat.Snapshot {
		s := snapshotOf("h", 100, 5, w)
		s.Page, s.Pages = n, 2
		return s
	}
	v := New(45 * time.Second)
	mustFeed(t, v, page(0, workerOf("w0")), at(0))
	for s := 1.0; s < 120; s++ {
		settleChecks(v, at(s))
	}
	w1 := workerOf("w1")
	w1.Live, w1.Cause = hivebeat.Lost, hivebeat.CauseMissed
	mustFeed(t, v, page(1, w1), at(120))
	w0 := v.Hive("h").workers["w0"]
	if !v.Adopted("h") || w0.adopted == nil || w0.rec().Live != hivebeat.Lost {
		t.Fatalf("w0 is %s, adopted %v, hive adopted %v", w0.rec().Live, w0.adopted != nil, v.Adopted("h"))
	}
	f := w0.rec().Facts
	f.Seq += 5
	body, err := wire.EncodeBeat(&hivebeat.Beat{V: 1, Hive: "h", Worker: "w0", Facts: f})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Beat("h", "w0", body, at(121)); err != nil || w0.rec().Live != hivebeat.Alive {
		t.Errorf("%s after it came back: %v", w0.rec().Live, err)
	}
}

func TestAdoptedWorkersLiveOn(t *testing.T) {
	o := newAdoptionRig(t, 2, 2)
	o.pass(1, 45)
	o.told = nil
	o.beat(45.3, "w0", 0, nil)
	o.beat(45.3, "w1", 0, func(b *hivebeat.Beat) { b.State = hivebeat.Draining })
	o.tell(45.3)
	o.beat(46, "w0", 0, func(b *hivebeat.Beat) { b.Inc, b.Seq = 8, 1 })
	o.tell(46)
	o.beat(47, "w1", 0, func(b *hivebeat.Beat) { b.State = hivebeat.Stopped })
	o.tell(47)
	o.seq["new"], o.inc["new"] = 0, 9
	o.beat(48, "new", 0, nil)
	o.tell(48)
	o.expect("each once", "w1 state", "w0 restarted", "w1 left goodbye", "new joined")
	if !o.ids["h.new.9.joined"] {
		t.Errorf("joined has another id than its hive would give it: %v", o.ids)
	}
	o.pass(49, 60)
	o.expect("and no more")
}

// The whole machine was cut off: no worker answered, and all were alive.
func TestMachineThatWasCutOff(t *testing.T) {
	o := newAdoptionRig(t, 2, 2)
	o.pass(1, 100)
	o.expect("cut off", "hive joined", "hive late missed", "hive lost missed", "w0 lost hive", "w1 lost hive")
	// w0 beats first, w1 comes with the hive.
	o.beat(110, "w0", 5, nil)
	o.hive.Seq += 7
	for i := range o.hive.Workers {
		w := &o.hive.Workers[i]
		w.Seq, w.Age = o.seq[w.Worker]+6, 500
	}
	o.snapshot(111)
	o.tell(111)
	o.expect("back", "hive recovered", "w0 recovered", "w1 recovered")
	for _, v := range o.views {
		if s := v.Score(); s.CutOff != 3 || s.FalseDead != 0 {
			t.Errorf("cut off %d, falsely dead %d, want 3 and 0", s.CutOff, s.FalseDead)
		}
		if v.Adopted("h") {
			t.Error("still adopted")
		}
	}
	o.expectShown(112, "w1", "alive via hive")
	o.pass(112, 115)
	o.expect("and no more")
}

// One queen hears a worker and the other does not: they come to one answer.
func TestQueensThatHeardDifferentBeats(t *testing.T) {
	o := newAdoptionRig(t, 2, 1)
	o.pass(1, 45)
	o.told = nil
	o.beat(80, "w0", 0, nil, o.views[0])
	o.pass(80, 90)
	o.expect("one was deaf", "w0 lost hive", "w0 recovered")
	// To the deaf one its age is that of the last beat which it heard itself: no age is
	// shown younger than it may be, and so it is shown as late at best.
	o.expectShown(90, "w0", "alive via queen, late via queen")
	o.pass(91, 100)
	o.expect("and no more")
}

// A queen that starts when the hive is lost already knows the workers from the roster.
func TestQueenThatFindsAdoptedWorkers(t *testing.T) {
	o := newAdoptionRig(t, 1, 2)
	o.pass(1, 45)
	o.beat(45.3, "w0", 0, nil)
	o.told = nil
	v := New(45 * time.Second)
	v.LearnKey("h", o.item, at(50))
	if !v.Adopted("h") || len(v.Take().Adoptions) != 1 {
		t.Fatal("not adopted")
	}
	o.views = append(o.views[:0], v)
	settleChecks(v, at(50))
	o.beat(50.5, "w0", 0, nil)
	o.expectShown(50.5, "w0", "alive via queen")
	o.pass(51, 70)
	for _, s := range []float64{71, 98, 125} {
		o.beat(s, "w0", 0, nil)
		o.pass(s, s+14)
	}
	o.expect("its deadline counts from when the entry was put")
	o.pass(140, 141)
	o.expect("w1 is gone", "w1 lost hive")
	// It was heard 5 s before the last snapshot, at 0. The roster does not say so.
	h := v.Hive("h")
	if _, age, _ := v.index.Shown(h.Worker("w1"), at(141)); age < 146_000 {
		t.Errorf("w1 is shown as heard %v ago, want 146 s or more", age.Duration())
	}
}

// A blind queen judges no adopted worker, and credits them as it does hives.
func TestBlindTimeIsNoAdoptedWorkersSilence(t *testing.T) {
	o := newAdoptionRig(t, 1, 1)
	o.pass(1, 46)
	o.told = nil
	v := o.views[0]
	v.Doubt(at(50))
	o.pass(50, 150)
	o.expect("in doubt")
	v.BlindFor(100 * time.Second)
	v.Take()
	o.pass(150, 180)
	if len(v.Take().Calls) == 0 {
		t.Error("the roll is not called anew")
	}
	o.expect("not yet")
	o.pass(181, 190)
	o.expect("lost", "w0 lost hive")
}

func TestAdoptionsAreBounded(t *testing.T) {
	v := New(45 * time.Second)
	v.SetBrake(BrakeRule{Off: true})
	for range maxAdopted {
		v.adoptedHives[new(Hive)] = struct{}{}
	}
	mustFeed(t, v, snapshotOf("h", 100, 1, workerOf("w")), at(0))
	for s := range 60 {
		settleChecks(v, at(float64(s)))
	}
	if v.Adopted("h") || v.Hive("h").Live() != hivebeat.Lost {
		t.Error("one more than there may be was adopted")
	}
}

// Many adopted workers that die at once are announced in a few roster steps, and a queen that
// does not know of several events in one entry follows.
func TestManyAdoptedWorkersDieInFewSteps(t *testing.T) {
	const workers = 3*announceMost - 10
	o := newAdoptionRig(t, 2, workers)
	for s := 1.0; s < 60; s++ {
		for _, v := range o.views {
			settleChecks(v, at(s))
		}
		o.tell(s)
	}
	before := o.steps
	for s := 60.0; s < 130; s++ {
		for _, v := range o.views {
			settleChecks(v, at(s))
		}
		o.tell(s)
	}
	lost := 0
	for _, line := range o.told {
		if strings.HasSuffix(line, "lost hive") {
			lost++
		}
	}
	if steps := o.steps - before; lost != workers || steps != 3 {
		t.Errorf("%d of %d were told lost, in %d steps; want 3", lost, workers, steps)
	}
	for i, v := range o.views {
		h := v.Hive("h")
		n := 0
		v.Settle(at(130))
		h.entry.EachMix(func(m index.Mix, c int) {
			if m.Live == hivebeat.Lost && m.State == hivebeat.Ready {
				n += c
			}
		})
		if n != workers || len(h.adoption.differ) != 0 {
			t.Errorf("view %d: %d are lost, of %d it is not known that they are told", i, n, len(h.adoption.differ))
		}
	}
}

func TestAnEntryDoesNotOutgrowAMessage(t *testing.T) {
	m := map[string]ledger.RosterWorker{}
	for i := 0; entrySize(m) <= entryBytes; i++ {
		m[fmt.Sprintf("%064d", i)] = ledger.RosterWorker{
			Inc: 1795435200000000, Live: hivebeat.Lost, Cause: hivebeat.CauseHive, State: hivebeat.Ready, Model: "llama", Seq: 1 << 53, Via: hivebeat.ViaQueen,
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > entryBytes {
		t.Errorf("%d bytes are taken for %d", len(b), entryBytes)
	}
}
