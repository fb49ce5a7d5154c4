package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// ending is a fleet whose connections close. Its clock is exact.
type ending struct {
	t       *testing.T
	v       *View
	now     time.Time
	seq     map[string]uint64
	keys    map[string]uint64 // seq that the key of a hive holds, where a read finds more than nothing
	unread  bool              // checks are left to the test
	checks  []Check           // that were not answered yet
	called  int               // roll calls of hives that the brake holds
	asked   []string
	told    []string
	snap    hivebeat.Snapshot // other fields of the next snapshots
	reasons []string
}

func newEnding(t *testing.T) *ending {
	return &ending{
		t: t, v: New(45 * time.Second), now: at(0), seq: map[string]uint64{}, keys: map[string]uint64{},
		snap: hivebeat.Snapshot{Inc: 100, RW: 250},
	}
}

// beat sends a snapshot of a hive over a connection.
func (e *ending) beat(hive, conn string) {
	e.t.Helper()
	e.seq[hive]++
	s := snapshotOf(hive, e.snap.Inc, e.seq[hive], workerOf("w"))
	s.Conn, s.RW, s.Bye = conn, e.snap.RW, e.snap.Bye
	if err := feed(e.t, e.v, s, e.now); err != nil {
		e.t.Fatal(err)
	}
	e.take()
}

// pass lets time pass, without a check of the answers in between.
func (e *ending) pass(d time.Duration) {
	e.now = e.now.Add(d)
	e.v.Tick(e.now)
	e.take()
	if e.unread {
		return
	}
	for len(e.checks) > 0 {
		e.answer()
	}
}

// answer answers the oldest check.
func (e *ending) answer() {
	c := e.checks[0]
	e.checks = e.checks[1:]
	var inc uint64
	seq := e.keys[c.Hive.ID()]
	if seq > 0 {
		inc = e.snap.Inc
	}
	e.v.Checked(c, inc, seq, e.now)
	e.take()
}

func (e *ending) take() {
	r := e.v.Take()
	e.checks = append(e.checks, r.Checks...)
	for _, c := range r.Calls {
		if c.Spread == AskSpread && !c.Workers {
			e.asked = append(e.asked, c.Hive)
		} else if !c.Workers {
			e.called++
		}
	}
	for _, s := range r.Steps {
		word := fmt.Sprintf("%s %s>%s", s.Kind, s.From, s.To)
		if s.Cause != "" {
			word += "(" + string(s.Cause) + ")"
		}
		e.told = append(e.told, word)
		e.reasons = append(e.reasons, s.Reason)
	}
}

func (e *ending) closes(conn string) bool {
	return e.v.Disconnect(e.now, liveness.Disconnect{Server: "NDXS", Conn: conn, Reason: "Client Closed", Evidence: true}).Opened
}

func (e *ending) live(hive string) hivebeat.Live { return e.v.Hive(hive).Live() }

func TestHiveIsLostByItsConnection(t *testing.T) {
	const ms, second = time.Millisecond, time.Second
	const fast, slow = 2 * second, 5 * second // as in docs/PROTOCOL.md, whatever the code has
	type do = func(*ending)
	over := func(conn string) do { return func(e *ending) { e.beat("h", conn) } }
	beat := over("NDXS/8")
	moved := over("NDXS/9")
	pass := func(d time.Duration) do { return func(e *ending) { e.pass(d) } }
	closes := func(e *ending) {
		if !e.closes("NDXS/8") {
			e.t.Error("no window opened")
		}
	}
	closed := func(e *ending) { // and nothing can be on its way any more
		closes(e)
		e.v.SettleDisconnects(e.now)
	}
	ignored := func(e *ending) {
		if e.closes("NDXS/8") {
			e.t.Error("a window opened")
		}
	}
	others := func(n int) do {
		return func(e *ending) {
			for i := range n {
				if e.closes(fmt.Sprint("NDXS/", 1000+i)) {
					e.t.Error("a stranger has a window")
				}
			}
		}
	}
	unfounded := func(e *ending) {
		if e.v.Disconnect(e.now, liveness.Disconnect{Server: "NDXS", Conn: "NDXS/8", Reason: "Stale Connection"}).Opened {
			e.t.Error("a window opened")
		}
	}
	rw := func(v hivebeat.Millis) do { return func(e *ending) { e.snap.RW = v } }
	bye := func(e *ending) { e.snap.Bye = "stopped" }
	restart := func(e *ending) { e.snap.Inc++; e.seq["h"] = 0 }
	doubts := func(e *ending) { e.v.Doubt(e.now) }
	trusts := func(blind time.Duration) do { return func(e *ending) { e.v.BlindFor(blind) } }
	unread := func(e *ending) { e.unread = true }
	key := func(seq uint64) do { return func(e *ending) { e.keys["h"] = seq } }
	answer := func(e *ending) { e.unread = false; e.answer() }

	const joined, lost, late = "joined >alive", "lost alive>lost(disconnect)", "late alive>late(missed)"
	for _, c := range []struct {
		name string
		do   []do
		want []string
		live hivebeat.Live
	}{
		{"fast, within its window", []do{beat, closed, pass(fast - 1)}, []string{joined}, hivebeat.Alive},
		{"fast, at its end", []do{beat, closed, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"slow, within its window", []do{rw(2000), beat, closed, pass(slow - 1)}, []string{joined}, hivebeat.Alive},
		{"slow, at its end", []do{rw(2000), beat, closed, pass(slow)}, []string{joined, lost}, hivebeat.Lost},
		{"unknown is slow", []do{rw(0), beat, closed, pass(slow - 1)}, []string{joined}, hivebeat.Alive},
		{"it names none", []do{over(""), ignored, pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"it came back", []do{beat, closed, pass(fast - 1), moved, pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"it came back before that was told", []do{beat, moved, ignored, pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"it came back under the same name, and nothing was on its way", []do{beat, closed, beat, pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"one that was on its way is no return", []do{beat, closes, beat, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"a new process", []do{beat, closes, restart, moved, pass(10 * second)}, []string{joined, "restarted alive>alive"}, hivebeat.Alive},
		{"a new process that names the same", []do{beat, closes, restart, beat, pass(10 * second)}, []string{joined, "restarted alive>alive"}, hivebeat.Alive},
		{"a goodbye that was on its way", []do{beat, closes, bye, beat, pass(10 * second)}, []string{joined, "left alive>left(goodbye)"}, hivebeat.Left},
		{"a goodbye before", []do{beat, bye, beat, ignored, pass(10 * second)}, []string{joined, "left alive>left(goodbye)"}, hivebeat.Left},
		{"while it is late", []do{beat, pass(23 * second), closed, pass(fast)}, []string{joined, late, "lost late>lost(disconnect)"}, hivebeat.Lost},
		{"it becomes late meanwhile", []do{rw(2000), beat, pass(20 * second), closed, pass(3 * second), pass(2 * second)}, []string{joined, late, "lost late>lost(disconnect)"}, hivebeat.Lost},
		{
			"its silence is over first",
			[]do{rw(2000), beat, pass(23 * second), pass(19 * second), closed, pass(3 * second), pass(2 * second)},
			[]string{joined, late, "lost late>lost(missed)"},
			hivebeat.Lost,
		},
		{"more than three are the server's", []do{beat, closed, others(3), pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"no evidence", []do{beat, unfounded, pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"the queen doubts itself", []do{beat, closed, pass(second), doubts, pass(second), trusts(second), pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"the queen doubted itself before", []do{beat, doubts, ignored, trusts(0), pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{
			"the queen doubts itself while it reads the key, and silence has its own time",
			[]do{beat, closed, unread, pass(fast), doubts, pass(6 * second), trusts(6 * second), answer, pass(20*second + 499*ms), pass(ms)},
			[]string{joined, late},
			hivebeat.Late,
		},
		{
			"the same, where its silence was to be judged at that moment",
			[]do{beat, pass(21 * second), closed, unread, pass(fast), doubts, trusts(0), answer, answer, pass(1), pass(22 * second)},
			[]string{joined, late, "lost late>lost(missed)"},
			hivebeat.Lost,
		},
		{"its key says that it was heard since", []do{beat, key(2), closed, pass(fast), pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"its key says no more", []do{beat, key(1), closed, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"it is heard while its key is read", []do{beat, closed, unread, pass(fast), moved, answer, pass(10 * second)}, []string{joined}, hivebeat.Alive},
		{"told again while its key is read", []do{beat, closed, unread, pass(fast), ignored, answer, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"back after it was lost", []do{beat, closed, pass(fast), pass(700 * ms), moved}, []string{joined, lost, "recovered lost>alive"}, hivebeat.Alive},
		{
			"and closed for good after that",
			[]do{beat, closed, pass(second), moved, pass(second), func(e *ending) { e.closes("NDXS/9") }, pass(fast - 1), pass(1)},
			[]string{joined, lost},
			hivebeat.Lost,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnding(t)
			for _, do := range c.do {
				do(e)
			}
			if d := cmp.Diff(c.want, e.told); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if live := e.live("h"); live != c.live {
				t.Errorf("%s, want %s", live, c.live)
			}
			if c.live == hivebeat.Lost && !e.v.Adopted("h") {
				t.Error("its workers are not adopted")
			}
			if n := e.v.closings.Open(); n != 0 && c.live != hivebeat.Alive {
				t.Errorf("%d windows are left", n)
			}
			// It is forgotten in time, and leaves nothing behind.
			e.pass(time.Hour)
			e.pass(forgetAfter)
			e.pass(forgetAfter)
			if n := e.v.closings.Open() + e.v.closings.Linked() + e.v.Len(); n != 0 {
				t.Errorf("left behind: %d windows, %d connections, %d hives", e.v.closings.Open(), e.v.closings.Linked(), e.v.Len())
			}
		})
	}
}

// A hive whose connection closed is held until its own deadline. Hives that fell silent do
// not wait for that.
func TestTheBrakeHoldsEachForItsOwnTime(t *testing.T) {
	e := newEnding(t)
	all := []string{"h0", "h1", "h2", "h3", "new"}
	for _, id := range all {
		e.beat(id, id+"/8")
	}
	e.pass(30 * time.Second)
	e.pass(12800 * time.Millisecond)
	e.beat("new", "new/8")
	if !e.v.Disconnect(e.now, liveness.Disconnect{Server: "new", Conn: "new/8", Evidence: true}).Opened {
		t.Fatal("no window opened")
	}
	e.v.SettleDisconnects(e.now)
	for range 20 {
		e.pass(100 * time.Millisecond)
	}
	for _, id := range all {
		if e.live(id) != hivebeat.Unverified {
			t.Fatalf("%s is %s", id, e.live(id))
		}
	}
	for range 100 {
		e.pass(100 * time.Millisecond)
	}
	for _, id := range all {
		want := hivebeat.Lost
		if id == "new" {
			want = hivebeat.Unverified
		}
		if e.live(id) != want {
			t.Errorf("%s is %s, want %s", id, e.live(id), want)
		}
	}
	for range 400 {
		e.pass(100 * time.Millisecond)
	}
	if e.live("new") != hivebeat.Lost {
		t.Errorf("new is %s", e.live("new"))
	}
}

// A silence that passes its deadline while the key is read, because the window is over,
// does not delay the verdict.
func TestLateWhileTheKeyIsRead(t *testing.T) {
	e := newEnding(t)
	e.beat("h", "NDXS/8")
	e.pass(20 * time.Second)
	e.closes("NDXS/8")
	e.v.SettleDisconnects(e.now)
	e.unread = true
	e.pass(time.Second)
	e.pass(time.Second)
	e.pass(time.Second) // it is late
	if n := len(e.checks); n != 1 {
		t.Fatalf("%d checks", n)
	}
	e.answer()
	if e.live("h") != hivebeat.Lost {
		t.Errorf("%s: %v", e.live("h"), e.told)
	}
}

// knownElsewhere is a hive whose connection NDXS/8 closes before or after the roster has a
// later message of the hive: then it is not lost.
func knownElsewhere(t *testing.T, first bool, inc, seq uint64) *ending {
	t.Helper()
	e := newEnding(t)
	e.beat("h", "NDXS/8")
	e.v.LearnKey("h", rosterOf(1, hivebeat.Alive, 100, 1), e.now)
	if first && !e.closes("NDXS/8") {
		t.Error("no window opened")
	}
	e.v.SettleDisconnects(e.now)
	e.pass(time.Second)
	e.v.LearnKey("h", rosterOf(2, hivebeat.Alive, inc, seq), e.now)
	if !first && e.closes("NDXS/8") {
		t.Error("a window for a connection of before")
	}
	e.pass(10 * time.Second)
	if h := e.v.Hive("h"); h.Live() != hivebeat.Alive || h.Inc() != inc {
		t.Errorf("closed first: %v: %s, incarnation %d: %v", first, h.Live(), h.Inc(), e.told)
	}
	return e
}

// A hive that restarted, as the roster or its key says, is not lost with the connection of
// the process before.
func TestClosingOfTheIncarnationBefore(t *testing.T) {
	for _, first := range []bool{true, false} {
		knownElsewhere(t, first, 200, 1)
	}
}

// Nor is a hive if another queen heard a later snapshot: that may have come over another
// connection, and the other queen would object to the verdict.
func TestClosingOfTheConnectionBefore(t *testing.T) {
	for _, first := range []bool{true, false} {
		e := knownElsewhere(t, first, 100, 2)
		e.beat("h", "NDXS/9") // the same, as it comes at last: it names its connection
		if !e.closes("NDXS/9") {
			t.Error("no window opened")
		}
		e.pass(3 * time.Second)
		if l := e.live("h"); l != hivebeat.Lost {
			t.Errorf("%s: %v", l, e.told)
		}
	}
}

func TestAClosedConnectionSaysWhy(t *testing.T) {
	e := newEnding(t)
	e.beat("h", "NDXS/8")
	e.pass(10 * time.Second)
	e.closes("NDXS/8")
	e.v.SettleDisconnects(e.now)
	if next, ok := e.v.Next(); !ok || next.Sub(e.now) > time.Second {
		t.Fatalf("Next is in %s", next.Sub(e.now))
	}
	e.pass(749 * time.Millisecond)
	if len(e.asked) != 0 {
		t.Errorf("asked too soon: %v", e.asked)
	}
	e.pass(time.Millisecond)
	if d := cmp.Diff([]string{"h"}, e.asked); d != "" {
		t.Fatalf("asked before the end of the window, -want +got:\n%s", d)
	}
	e.pass(1253 * time.Millisecond)
	h := e.v.Hive("h")
	kind, to, ok := h.Difference(e.now)
	if !ok || to != hivebeat.Lost {
		t.Fatalf("told: %v %s %s", ok, kind, to)
	}
	data, entry := h.Next(kind, to, at(0))
	if data.Cause != hivebeat.CauseDisconnect || data.DetectMS == nil || *data.DetectMS != 2003 || data.AgeMS != 12_003 ||
		data.Reason != "its connection closed (Client Closed) and it did not come back within 2s" || entry.Cause != hivebeat.CauseDisconnect {
		t.Errorf("told as %+v, entry %+v", data, entry)
	}
	e.pass(700 * time.Millisecond)
	e.beat("h", "NDXS/9")
	if s := e.v.Score(); s.FalseDead != 1 || s.Margins.Max != 700*time.Millisecond {
		t.Errorf("heard after all: %+v", s)
	}
	if len(e.asked) != 1 {
		t.Errorf("asked %v", e.asked)
	}
}

// The brake counts hives that are lost by their connection just as it counts silent ones.
func TestTheBrakeHoldsThoseWhoseConnectionsClose(t *testing.T) {
	e := newEnding(t)
	conn := func(i int) string { return fmt.Sprintf("S%d/8", i) } // each at another server
	for i := range 10 {
		e.beat(fmt.Sprint("h", i), conn(i))
	}
	e.pass(11 * time.Second)
	for i := range 10 {
		e.beat(fmt.Sprint("h", i), conn(i))
	}
	for i := range 6 {
		if !e.v.Disconnect(e.now, liveness.Disconnect{Server: fmt.Sprint("S", i), Conn: conn(i), Evidence: true}).Opened {
			t.Fatal("no window opened")
		}
	}
	e.v.SettleDisconnects(e.now)
	e.pass(2 * time.Second)
	count := func() (m map[hivebeat.Live]int) {
		m = map[hivebeat.Live]int{}
		for i := range 10 {
			m[e.live(fmt.Sprint("h", i))]++
		}
		return m
	}
	if d := cmp.Diff(map[hivebeat.Live]int{hivebeat.Alive: 4, hivebeat.Lost: 3, hivebeat.Unverified: 3}, count()); d != "" {
		t.Fatalf("3 of 10 may be lost at once; -want +got:\n%s", d)
	}
	if calls := e.called; calls != 3 {
		t.Errorf("the roll of %d was called, want 3", calls)
	}
	for i := 6; i < 10; i++ {
		e.beat(fmt.Sprint("h", i), conn(i))
	}
	// They are judged by their silence from then on, and each ends.
	for range 450 {
		e.pass(100 * time.Millisecond)
		if e.now.Sub(at(11)).Milliseconds()%10_000 == 0 {
			for i := 6; i < 10; i++ {
				e.beat(fmt.Sprint("h", i), conn(i))
			}
		}
	}
	if d := cmp.Diff(map[hivebeat.Live]int{hivebeat.Alive: 4, hivebeat.Lost: 6}, count()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	var held, lost int
	for _, s := range e.told {
		switch s {
		case "unverified alive>unverified(missed)":
			held++
		case "lost unverified>lost(missed)":
			lost++
		}
	}
	if held != 3 || lost != 3 {
		t.Errorf("held %d, and lost %d of them: %v", held, lost, e.told)
	}
}

// A queen judges the workers of a lost hive by their connections too. One of two queens
// hears those close.
func TestAnAdoptedWorkerIsLostByItsConnection(t *testing.T) {
	o := newAdoptionRig(t, 2, 4)
	conn := func(i int) string { return fmt.Sprintf("S/%d", i) }
	for i := range o.hive.Workers {
		o.hive.Workers[i].Conn, o.hive.Workers[i].RW = conn(i), 250
	}
	o.snapshot(1)
	o.pass(2, 46)
	o.told = nil
	back := func(i int) func(*hivebeat.Beat) {
		return func(b *hivebeat.Beat) { b.Conn, b.RW = conn(i), 250 }
	}
	v := o.views[0]
	o.beat(46, "w0", 0, back(0))
	o.beat(46, "w1", 0, back(1))
	o.pass(47, 54)
	v.Take()
	for _, i := range []int{0, 1, 2} { // w2 has not answered, and w3 never beat
		if !v.Disconnect(at(54), liveness.Disconnect{Server: fmt.Sprint("S", i), Conn: conn(i), Reason: "Client Closed", Evidence: true}).Opened {
			t.Fatalf("no window for w%d", i)
		}
	}
	if v.SettleDisconnects(at(54)) {
		t.Error("more to settle")
	}
	o.pass(55, 55)
	if calls := v.Take().Calls; len(calls) == 0 || calls[0].Hive != "h" {
		t.Errorf("not asked: %v", calls)
	}
	o.beat(55.5, "w1", 0, back(9))
	o.pass(56, 57)
	o.expect("those that did not come back", "w0 lost disconnect", "w2 lost disconnect")
	if d := v.Hive("h").adoption.workers["w0"].why.detect; d == nil || *d < 2000 {
		t.Errorf("detect %v", d)
	}
	o.expectShown(57, "w1", "alive via queen")
	o.pass(58, 160) // the queen that heard of no connection finds the same by silence, and does not argue
	o.expect("by silence", "w3 lost hive", "w1 late missed", "w1 lost missed")
}

// The connection of a sender that a snapshot or a beat names is no stranger's, even if
// another registry than the one with the window knows it.
func TestTheConnectionsOfAdoptedWorkersAreNoStrangers(t *testing.T) {
	conn := func(i int) string { return fmt.Sprintf("S/%d", i) }
	for _, c := range []struct {
		name string
		from int // of the connections that close
		want hivebeat.Live
	}{{"adopted", 0, hivebeat.Alive}, {"strangers", 1000, hivebeat.Lost}} {
		t.Run(c.name, func(t *testing.T) {
			o := newAdoptionRig(t, 1, 3)
			for i := range o.hive.Workers {
				o.hive.Workers[i].Conn, o.hive.Workers[i].RW = conn(i), 250
			}
			o.snapshot(1)
			o.pass(2, 46) // it is lost, and they are adopted
			v := o.views[0]
			s := snapshotOf("other", 100, 1, workerOf("w"))
			s.Conn, s.RW = conn(100), 250
			if err := feed(t, v, s, at(46)); err != nil {
				t.Fatal(err)
			}
			if !v.Disconnect(at(46), liveness.Disconnect{Server: "S", Conn: conn(100), Reason: "Client Closed", Evidence: true}).Opened {
				t.Fatal("no window")
			}
			v.SettleDisconnects(at(46))
			for i := range 3 {
				n := v.Disconnect(at(46), liveness.Disconnect{Server: "S", Conn: conn(c.from + i), Reason: "Client Closed", Evidence: true, Passing: true})
				if last := i == 2; n.Ignored != (last && c.want == hivebeat.Alive) {
					t.Errorf("%d: %+v", i, n)
				}
			}
			o.pass(47, 49)
			if got := v.Hive("other").Live(); got != c.want {
				t.Errorf("the other hive is %s, want %s", got, c.want)
			}
		})
	}
}
