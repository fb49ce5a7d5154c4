package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

// told takes the view's events and returns them as "id kind" lines.
func told(v *View) (list []string) {
	for _, e := range v.ready.Events {
		list = append(list, fmt.Sprintf("%s %s", e.ID, e.Data.Kind))
	}
	v.ready.Events = nil
	return list
}

// numbered returns w's record with transitions from..n, as late, recovered, late …
func numbered(n, from uint64) hivebeat.Record {
	w := workerOf("w")
	w.N = n
	for k := from; k <= n; k++ {
		tr := hivebeat.Transition{N: k, Kind: hivebeat.KindLate, Inc: w.Inc, Ago: hivebeat.Millis(1000 * (n - k))}
		if k%2 == 1 {
			tr.Kind = hivebeat.KindRecovered
		}
		if k == 1 {
			tr.Kind = hivebeat.KindJoined
		}
		w.Tr = append(w.Tr, tr)
	}
	return w
}

func TestTransitionsAreTakenOnceAndInOrder(t *testing.T) {
	type snap struct {
		inc, seq uint64
		n, from  uint64 // from > n: no tr
		want     []string
	}
	for _, c := range []struct {
		name  string
		snaps []snap
	}{
		{"from the beginning", []snap{
			{100, 1, 1, 1, []string{"h.w.7.joined joined"}},
			{100, 2, 1, 1, nil},
			{100, 3, 3, 1, []string{"h.100.w.2 late", "h.100.w.3 recovered"}},
			{100, 4, 3, 9, nil},
		}},
		{"a queen that comes later tells what it is told, and no gap", []snap{
			{100, 50, 7, 6, []string{"h.100.w.6 late", "h.100.w.7 recovered"}},
			{100, 51, 8, 6, []string{"h.100.w.8 late"}},
		}},
		{"a queen that comes later, to silence", []snap{
			{100, 50, 7, 9, nil},
			{100, 51, 8, 8, []string{"h.100.w.8 late"}},
		}},
		{"a hole becomes one gap", []snap{
			{100, 1, 1, 1, []string{"h.w.7.joined joined"}},
			{100, 9, 6, 5, []string{"h.100.w.4 gap", "h.100.w.5 recovered", "h.100.w.6 late"}},
		}},
		{"a hole at the end", []snap{
			{100, 1, 1, 1, []string{"h.w.7.joined joined"}},
			{100, 9, 6, 9, []string{"h.100.w.6 gap"}},
			{100, 10, 6, 9, nil},
		}},
		{"a hole at the start of an incarnation that was heard from its start", []snap{
			{100, 1, 12, 5, []string{"h.100.w.4 gap", "h.100.w.5 recovered", "h.100.w.6 late", "h.100.w.7 recovered", "h.100.w.8 late", "h.100.w.9 recovered", "h.100.w.10 late", "h.100.w.11 recovered", "h.100.w.12 late"}},
		}},
		{"the hive's restart joins nobody again", []snap{
			{100, 1, 2, 1, []string{"h.w.7.joined joined", "h.100.w.2 late"}},
			{200, 1, 1, 1, nil},
			{200, 2, 2, 1, []string{"h.200.w.2 late"}},
		}},
		{"numbers that go back are nobody's", []snap{
			{100, 1, 3, 1, []string{"h.w.7.joined joined", "h.100.w.2 late", "h.100.w.3 recovered"}},
			{100, 2, 2, 1, nil},
			{100, 3, 4, 1, []string{"h.100.w.4 late"}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := New(45 * time.Second)
			for i, s := range c.snaps {
				mustFeed(t, v, snapshotOf("h", s.inc, s.seq, numbered(s.n, s.from)), at(float64(i)))
				if got := told(v); !slices.Equal(got, s.want) {
					t.Errorf("snapshot %d told\n%s\nwant\n%s", i, strings.Join(got, "\n"), strings.Join(s.want, "\n"))
				}
			}
		})
	}
}

// The words for a silence name how many messages were due, even if none was.
func TestSilenceInWords(t *testing.T) {
	for _, c := range []struct {
		age, every, quiet hivebeat.Millis
		want              string
	}{
		{90_200, 30_000, 0, "no beat for 90.2s, 3 were due"},
		{31_000, 30_000, 0, "no beat for 31.0s, 1 was due"},
		{8_900, 30_000, 0, "no beat for 8.9s, the next is due within 30s of the last"},
		{30_000, 30_000, 0, "no beat for 30.0s, the next is due within 30s of the last"},
		{40, 100, 0, "no beat for 0.0s, the next is due within 0.1s of the last"},
		{31_000, 30_000, 600_000, "no beat for 31.0s, it announced silence for 600s"},
		{601_000, 30_000, 600_000, "no beat for 601.0s, 1 was due"},
		{8_900, 30_000, 20_000, "no beat for 8.9s, the next is due within 30s of the last"},
		{8_900, 0, 0, "no beat for 8.9s"},
	} {
		if got := silence("beat", c.age, c.every, c.quiet); got != c.want {
			t.Errorf("silence of %d, every %d, quiet %d: %q, want %q", c.age, c.every, c.quiet, got, c.want)
		}
	}
}

func TestAKindThatIsNoTokenIsNotPublished(t *testing.T) {
	v := New(45 * time.Second)
	w := workerOf("w")
	w.Tr = []hivebeat.Transition{{N: 1, Kind: "lost.>", Inc: 7}}
	mustFeed(t, v, snapshotOf("h", 100, 1, w), at(0))
	if got := told(v); !slices.Equal(got, []string{"h.100.w.1 gap"}) {
		t.Errorf("%v", got)
	}
}

func TestTheRosterRemembersWhoJoined(t *testing.T) {
	v := New(45 * time.Second)
	v.LearnKey("h", ledger.RosterItem{Revision: 1, Epoch: 1, RosterEntry: ledger.RosterEntry{
		N: 3, Live: hivebeat.Lost, Inc: 100, Seq: 9, Every: 15000,
		Workers: map[string]ledger.RosterWorker{"w": {Inc: 7, Live: hivebeat.Alive}},
	}}, at(0))
	other := numbered(1, 1)
	other.Worker = "other"
	mustFeed(t, v, snapshotOf("h", 200, 1, numbered(1, 1), other), at(1))
	if got := told(v); !slices.Equal(got, []string{"h.other.7.joined joined"}) {
		t.Errorf("%v", got)
	}
}

func TestWhenATransitionHappened(t *testing.T) {
	v := New(45 * time.Second)
	w := workerOf("w")
	w.N, w.Live, w.Age = 2, hivebeat.Lost, 100_000
	w.Tr = []hivebeat.Transition{
		{N: 1, Kind: hivebeat.KindLate, Inc: 7, Ago: 55_000},
		{N: 2, Kind: hivebeat.KindLost, Inc: 7, Ago: 10_000, From: "late", To: "lost", Cause: hivebeat.CauseMissed},
	}
	mustFeed(t, v, snapshotOf("h", 100, 1, w), at(100))
	if got := v.ready.Events[0]; got.At != at(45) || got.Data.Seq != 0 || got.Data.Reason != "" {
		t.Errorf("late: %+v", got)
	}
	if got := v.ready.Events[1]; got.At != at(90) || got.Data.AgeMS != 90_000 || got.Data.Seq != 10 || got.Data.Reason != "no beat for 90.0s, 3 were due" {
		t.Errorf("lost: %+v", got)
	}
}

// The evidence is in words for each cause of a verdict.
func TestReasonsOfTransitions(t *testing.T) {
	for _, c := range []struct {
		tr   hivebeat.Transition
		want string
	}{
		{hivebeat.Transition{Kind: hivebeat.KindLost, From: "alive", To: "lost", Cause: hivebeat.CauseExit}, "process 4711 ended"},
		{hivebeat.Transition{Kind: hivebeat.KindLost, From: "alive", To: "lost", Cause: hivebeat.CauseOOM}, "process 4711 was killed for want of memory"},
		{hivebeat.Transition{Kind: hivebeat.KindLost, From: "late", To: "lost", Cause: hivebeat.CauseMissed}, "no beat for 90.0s, 3 were due"},
		{hivebeat.Transition{Kind: hivebeat.KindStalled, To: "stalled"}, "3 busy, and done is still 120"},
		{hivebeat.Transition{Kind: hivebeat.KindStalled, From: "stalled"}, "work advances again"},
		{hivebeat.Transition{Kind: hivebeat.KindLooping, To: "looping"}, "25 restarts in the last hour"},
		{hivebeat.Transition{Kind: hivebeat.KindLooping, From: "looping"}, "none for 10 minutes, 25 restarts in the last hour"},
		{hivebeat.Transition{Kind: hivebeat.KindState, From: "ready", To: "degraded"}, "in its own words"},
	} {
		v, w := New(45*time.Second), workerOf("w")
		w.Age, w.PID, w.Busy, w.Done, w.Reason = 90_000, 4711, 3, 120, "in its own words"
		w.Restarts = 25
		c.tr.N, c.tr.Inc = w.N, w.Inc
		w.Tr = []hivebeat.Transition{c.tr}
		mustFeed(t, v, snapshotOf("h", 100, 1, w), at(0))
		if d := v.ready.Events[0].Data; d.Reason != c.want || d.Cause != c.tr.Cause || d.From != c.tr.From || d.To != c.tr.To {
			t.Errorf("%s: %+v, want %q", c.tr.Kind, d, c.want)
		}
	}
}

// A conflict names both processes, though its transition is about the refused one. The
// change log shows a change of the conflict in a record.
func TestReasonOfAConflict(t *testing.T) {
	v, w := New(45*time.Second), workerOf("w")
	mustFeed(t, v, snapshotOf("h", 100, 1, w), at(0))
	v.Take()
	rev := v.index.Rev()
	w.N++
	w.Tr = []hivebeat.Transition{{N: w.N, Kind: hivebeat.KindConflict, Inc: w.Inc - 1}}
	w.Rival, w.RivalAt, w.Addr, w.PID = w.Inc-1, hivebeat.Place{Host: "there", PID: 5, Conn: "S/7", Addr: "192.0.2.7:1234"}, "192.0.2.1:99", 4
	s := snapshotOf("h", 100, 2, w)
	s.Host.Name = "here"
	mustFeed(t, v, s, at(1))
	want := fmt.Sprintf(`two workers beat as "h/w": incarnation %d (`, w.Inc)
	if d := v.ready.Events[0].Data; !strings.HasPrefix(d.Reason, want) || !strings.Contains(d.Reason, fmt.Sprintf(" %d (", w.Rival)) || d.Inc != w.Rival {
		t.Errorf("%+v", d)
	}
	d := v.ready.Events[0].Data
	believed, refused := hivebeat.Place{Inc: w.Inc, Host: "here", PID: 4, Addr: "192.0.2.1:99"}, w.RivalAt
	if refused.Inc = w.Rival; d.Believed == nil || *d.Believed != believed || d.Refused == nil || *d.Refused != refused {
		t.Errorf("runs at %+v, and the other one at %+v", d.Believed, d.Refused)
	}
	if !strings.Contains(d.Reason, "host here, pid 4, from 192.0.2.1:99) is accepted") || !strings.Contains(d.Reason, "host there, pid 5, connection S/7, from 192.0.2.7:1234) is refused") {
		t.Errorf("says %s", d.Reason)
	}
	w.Tr = nil
	w.Rival = 0
	was := v.index.Rev()
	mustFeed(t, v, snapshotOf("h", 100, 3, w), at(2))
	if was == rev || v.index.Rev() == was {
		t.Error("a watcher is not told of the other one, or that it is gone")
	}
}

// The times in a transition are in its event. A time that is missing there is unknown, not
// 0.
func TestEventsTellHowLongItTook(t *testing.T) {
	v := New(45 * time.Second)
	w := workerOf("w")
	seq := uint64(0)
	say := func(kind hivebeat.Kind, from, to string, cause hivebeat.Cause, detect, margin hivebeat.Millis) hivebeat.EventData {
		t.Helper()
		seq++
		w.N = seq
		w.Live, w.Cause = hivebeat.Live(to), cause
		w.Tr = []hivebeat.Transition{{N: seq, Kind: kind, From: from, To: to, Cause: cause, Inc: w.Inc, Detect: detect, Margin: margin}}
		if err := feed(t, v, snapshotOf("h", 1, seq, w), at(float64(seq))); err != nil {
			t.Fatal(err)
		}
		list := v.Take().Events
		if len(list) != 1 || list[0].Data.Kind != kind {
			t.Fatalf("events %+v, want one %s", list, kind)
		}
		return list[0].Data
	}
	say(hivebeat.KindJoined, "", "alive", "", 0, 0)
	if d := say(hivebeat.KindLost, "alive", "lost", hivebeat.CauseExit, 7, 0); d.DetectMS == nil || *d.DetectMS != 7 || d.MarginMS != nil {
		t.Errorf("lost: %+v", d)
	}
	if d := say(hivebeat.KindRecovered, "lost", "alive", "", 0, 1700); d.MarginMS == nil || *d.MarginMS != 1700 || d.DetectMS != nil {
		t.Errorf("recovered: %+v", d)
	}
	if d := say(hivebeat.KindLost, "alive", "lost", hivebeat.CauseMissed, 0, 0); d.DetectMS != nil || d.MarginMS != nil {
		t.Errorf("lost by silence: %+v", d)
	}
	if d := say(hivebeat.KindRecovered, "lost", "alive", "", 0, 0); d.MarginMS != nil { // from a hive of an older release
		t.Errorf("recovered: %+v", d)
	}
	if d := say(hivebeat.KindLost, "alive", "lost", hivebeat.CauseDisconnect, 2004, 0); *d.DetectMS != 2004 || !strings.HasPrefix(d.Reason, "its connection closed") {
		t.Errorf("lost by its connection: %+v", d)
	}
	// Its hive no longer lists it, and then it is back: no earlier number is missing.
	if err := feed(t, v, snapshotOf("h", 1, seq+1), at(700)); err != nil {
		t.Fatal(err)
	}
	if h := v.Hive("h"); len(h.Workers()) != 0 {
		t.Fatalf("workers %v", h.Workers())
	}
	w.N++
	w.Tr = []hivebeat.Transition{{N: w.N, Kind: hivebeat.KindRecovered, From: "lost", To: "alive", Inc: w.Inc, Margin: 601_000}}
	w.Live, w.Cause = hivebeat.Alive, ""
	if err := feed(t, v, snapshotOf("h", 1, seq+2, w), at(701)); err != nil {
		t.Fatal(err)
	}
	if list := v.Take().Events; len(list) != 1 || list[0].Data.Kind != hivebeat.KindRecovered || *list[0].Data.MarginMS != 601_000 {
		t.Errorf("back after it was forgotten: %+v", list)
	}
}
