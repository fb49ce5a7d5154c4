package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

const ms = time.Millisecond

// closes reports to the registry that the connection of f's last beat closed.
func (b *bench) closes(f *fake) bool { return b.closesConn(f.Conn) }

func (b *bench) closesConn(conn string) bool {
	return b.Disconnect(b.now, liveness.Disconnect{Server: "NDXS", Host: "10.0.0.1", Conn: conn, Reason: "Client Closed", Evidence: true}).Opened
}

func TestDisconnect(t *testing.T) {
	type do = func(*bench, *fake)
	beat := func(b *bench, f *fake) { b.mustFeed(f.Next(b.t)) }
	moved := func(b *bench, f *fake) {
		f.Conn += "1"
		beat(b, f)
	}
	pass := func(d time.Duration) do { return func(b *bench, _ *fake) { b.after(d) } }
	closes := func(b *bench, f *fake) {
		if !b.closes(f) {
			b.t.Error("no window opened")
		}
	}
	closed := func(b *bench, f *fake) { // and no message can be in flight any more
		closes(b, f)
		b.SettleDisconnects(b.now)
	}
	ignored := func(b *bench, f *fake) {
		if b.closes(f) {
			b.t.Error("a window opened")
		}
	}
	others := func(n int, every time.Duration) do {
		return func(b *bench, _ *fake) {
			for i := range n {
				if b.closesConn(fmt.Sprint("NDXS/", 1000+i)) {
					b.t.Error("a stranger has a window")
				}
				b.after(every)
			}
		}
	}
	passing := func(n int, what func(i int) string) do { // clients that end by themselves after a short connection
		return func(b *bench, _ *fake) {
			for i := range n {
				b.Disconnect(b.now, liveness.Disconnect{Server: "NDXS", Conn: what(i), Reason: "Client Closed", Evidence: true, Passing: true})
			}
		}
	}
	strangers := func(i int) string { return fmt.Sprint("NDXS/", 1000+i) }
	had := func(n int) do { // the worker had n connections, and has its own again
		return func(b *bench, f *fake) {
			own := f.Conn
			for i := range n {
				f.Conn = strangers(i)
				beat(b, f)
			}
			f.Conn = own
			beat(b, f)
		}
	}
	say := func(state hivebeat.State) do {
		return func(b *bench, f *fake) {
			f.State = state
			beat(b, f)
		}
	}
	rw := func(v hivebeat.Millis) do { return func(_ *bench, f *fake) { f.RW = v } }
	quiet := func(_ *bench, f *fake) { f.Quiet = hivebeat.MillisOf(5 * time.Minute) }
	restart := func(_ *bench, f *fake) { f.Inc, f.Seq = f.Inc+1, 0 }

	silent := func(b *bench, f *fake) { // closed by the server
		if b.Disconnect(b.now, liveness.Disconnect{Server: "NDXS", Conn: f.Conn}).Opened {
			b.t.Error("a window opened")
		}
	}

	is := func(want bool) do {
		return func(b *bench, _ *fake) {
			if r, _ := b.record("w"); r.Closed != want {
				b.t.Errorf("its record says closed: %v", r.Closed)
			}
		}
	}
	held, free := is(true), is(false)
	vouch := func(server, host string) do {
		return func(b *bench, _ *fake) { b.VouchDisconnects(b.now, liveness.Path{Server: server, Host: host}) }
	}
	own := func(b *bench, _ *fake) { b.SetOwn("NDXS") }

	const fast, slow, ask = 2 * second, 5 * second, liveness.AskBefore // as the protocol says, whatever the code says
	const more = liveness.BatchMore
	const joined, lost = "joined:>alive", "lost:alive>lost(disconnect)"
	for _, c := range []struct {
		name string
		do   []do
		want []string
		live hivebeat.Live
	}{
		{"fast, within its window", []do{beat, closed, pass(fast - 1)}, []string{joined}, hivebeat.Alive},
		{"fast, at its end", []do{beat, closed, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"500 ms is fast", []do{rw(500), beat, closed, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"slow, within its window", []do{rw(501), beat, closed, pass(slow - 1)}, []string{joined}, hivebeat.Alive},
		{"slow, at its end", []do{rw(2000), beat, closed, pass(slow)}, []string{joined, lost}, hivebeat.Lost},
		{"unknown is slow", []do{rw(0), beat, closed, pass(slow - 1)}, []string{joined}, hivebeat.Alive},
		{"asked first, looked at in between", []do{beat, closed, pass(fast - ask), pass(ask - 1)}, []string{joined}, hivebeat.Alive},
		{"asked first, and then lost", []do{beat, closed, pass(fast - ask), pass(ask)}, []string{joined, lost}, hivebeat.Lost},
		{"it came back", []do{beat, closed, pass(fast - 1), moved, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"it came back and names no other connection", []do{beat, closed, pass(300 * ms), beat, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"it came back before that was told", []do{beat, moved, func(b *bench, _ *fake) { b.closesConn("NDXS/17") }, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"a beat that was on its way is no return", []do{beat, closes, beat, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"but one over another connection is", []do{beat, closes, moved, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"told twice, the first counts", []do{beat, closed, pass(second), ignored, pass(second)}, []string{joined, lost}, hivebeat.Lost},
		{
			"it came back, and then closed for good",
			[]do{beat, closed, pass(second), moved, pass(second), closed, pass(fast - 1), pass(1)},
			[]string{joined, lost},
			hivebeat.Lost,
		},
		{"goodbye first", []do{beat, say(hivebeat.Stopped), ignored, pass(30 * second)}, []string{joined, "left:alive>left(goodbye)"}, hivebeat.Left},
		{"goodbye read after it", []do{beat, closes, say(hivebeat.Stopped), pass(30 * second)}, []string{joined, "left:alive>left(goodbye)"}, hivebeat.Left},
		{"in announced silence as well", []do{quiet, beat, closed, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{
			"while late",
			[]do{beat, pass(46 * second), closed, pass(fast)},
			[]string{joined, "late:alive>late(missed)", "lost:late>lost(disconnect)"},
			hivebeat.Lost,
		},
		{
			"silence is over first",
			[]do{rw(2000), beat, pass(46 * second), pass(42 * second), closed, pass(2 * second), pass(3 * second)},
			[]string{joined, "late:alive>late(missed)", "lost:late>lost(missed)"},
			hivebeat.Lost,
		},
		{
			"a restart in another process, read before it is settled",
			[]do{beat, closes, restart, beat, pass(29 * second)},
			[]string{joined, "restarted:alive>alive"},
			hivebeat.Alive,
		},
		{"back after it was lost", []do{beat, closed, pass(3 * second), moved}, []string{joined, lost, "recovered:lost>alive"}, hivebeat.Alive},
		{"three others: not too many", []do{beat, others(2, 0), closed, pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"more than three at once are the server's", []do{beat, others(3, 0), closed, held, pass(30 * second), held}, []string{joined}, hivebeat.Alive},
		{"unless a token says that it lives", []do{beat, others(3, 0), closed, vouch("NDXS", "10.0.0.1"), held, pass(fast + more)}, []string{joined, lost}, hivebeat.Lost},
		{"also the first of them", []do{beat, closed, others(8, 0), vouch("NDXS", "10.0.0.1"), held, pass(fast + more)}, []string{joined, lost}, hivebeat.Lost},
		{"and the window is longer then", []do{beat, others(3, 0), closed, vouch("NDXS", "10.0.0.1"), pass(fast + more - 1)}, []string{joined}, hivebeat.Alive},
		{"a token from another host says nothing", []do{beat, others(3, 0), closed, vouch("NDXS", "10.0.0.2"), pass(30 * second), held}, []string{joined}, hivebeat.Alive},
		{"nor one of another server", []do{beat, others(3, 0), closed, vouch("OTHER", "10.0.0.1"), pass(30 * second), held}, []string{joined}, hivebeat.Alive},
		{"nor one without a host", []do{beat, others(3, 0), closed, vouch("NDXS", ""), pass(30 * second), held}, []string{joined}, hivebeat.Alive},
		{"a server in this process is believed", []do{own, beat, others(8, 0), closed, others(8, 0), pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{"but for what is no evidence", []do{own, beat, others(8, 0), silent, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"one that is held and heard again is free", []do{beat, others(3, 0), closes, moved, free, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"a beat that was on its way does not free it", []do{beat, others(3, 0), closed, beat, held}, []string{joined}, hivebeat.Alive},
		{"one after a token does", []do{beat, others(3, 0), closes, vouch("NDXS", ""), beat, free}, []string{joined}, hivebeat.Alive},
		{"a death just before a batch has its own window", []do{beat, closed, pass(250 * ms), others(8, ms), pass(fast - 258*ms)}, []string{joined, lost}, hivebeat.Lost},
		{"held windows get credit too", []do{
			beat, others(3, 0), closed, func(b *bench, _ *fake) { b.now = b.now.Add(time.Minute); b.Credit(time.Minute) },
			vouch("NDXS", "10.0.0.1"), pass(fast + more - 1),
		}, []string{joined}, hivebeat.Alive},
		{"strangers that pass by are nobody's", []do{beat, passing(40, strangers), closed, passing(40, strangers), pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{
			"those that somebody had once are no strangers",
			[]do{had(3), closed, passing(3, strangers), pass(29 * second)},
			[]string{joined},
			hivebeat.Alive,
		},
		{
			"nor those that somebody has",
			[]do{beat, func(b *bench, f *fake) {
				for i := range 3 {
					other := newFake(fmt.Sprint("other", i))
					other.Conn = strangers(i)
					b.mustFeed(other.Next(b.t))
				}
			}, closed, passing(3, strangers), pass(29 * second)},
			[]string{joined, "joined:>alive", "joined:>alive", "joined:>alive"},
			hivebeat.Alive,
		},
		{"also when it was the first of them", []do{beat, closed, pass(249 * ms), others(3, 249*ms), pass(29 * second)}, []string{joined}, hivebeat.Alive},
		{"more than three, but slowly", []do{beat, closed, pass(340 * ms), others(3, 340*ms), pass(fast)}, []string{joined, lost}, hivebeat.Lost},
		{
			"others do not end a window of before",
			[]do{beat, closed, pass(1001 * ms), others(8, ms), pass(second)},
			[]string{joined, lost},
			hivebeat.Lost,
		},
		{
			"many of another server",
			[]do{
				func(b *bench, _ *fake) {
					b.Disconnect(b.now, liveness.Disconnect{Server: "OTHER", Conn: "OTHER/1", Evidence: true})
				}, beat, closed,
				func(b *bench, _ *fake) {
					for i := range 9 {
						b.Disconnect(b.now, liveness.Disconnect{Server: "OTHER", Conn: fmt.Sprint("OTHER/", i)})
					}
				}, pass(fast),
			},
			[]string{joined, lost},
			hivebeat.Lost,
		},
		{"the tail of many", []do{beat, others(9, 10*ms), pass(900 * ms), closed, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"no evidence", []do{beat, silent, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"no evidence, within a window", []do{beat, closed, pass(second), silent, pass(second)}, []string{joined, lost}, hivebeat.Lost},
		{"no evidence, but counted", []do{beat, closed, silent, silent, silent, pass(30 * second)}, []string{joined}, hivebeat.Alive},
		{"cut off ourselves", []do{beat, closed, pass(second), func(b *bench, _ *fake) { b.ForgetDisconnects() }, pass(28 * second)}, []string{joined}, hivebeat.Alive},
		{
			"blind time is credited",
			[]do{beat, closed, pass(second), func(b *bench, _ *fake) { b.now = b.now.Add(time.Minute); b.Credit(time.Minute) }, pass(999 * ms), pass(ms)},
			[]string{joined, lost},
			hivebeat.Lost,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := newBench(t), newFake("w")
			for _, do := range c.do {
				do(b, f)
			}
			if diff := cmp.Diff(c.want, b.told()); diff != "" {
				t.Errorf("transitions (-want +got):\n%s", diff)
			}
			if r, _ := b.record("w"); r.Live != c.live {
				t.Errorf("%s, want %s", r.Live, c.live)
			}
			if n := b.closings.Open(); c.live == hivebeat.Lost && n != 0 {
				t.Errorf("%d windows are left", n)
			}
			// Every record is removed in time, and leaves nothing behind.
			b.after(2 * time.Minute).after(hivebeat.KeepGone)
			b.after(hivebeat.KeepGone)
			if len(b.workers)+b.closings.Linked()+b.closings.Open() != 0 {
				t.Errorf("left behind: %d records, %+v", len(b.workers), b.closings)
			}
			if next, ok := b.Next(); ok {
				t.Errorf("a deadline is left behind: %s", next)
			}
		})
	}
}

// The clock of the table above is exact: verdicts say how long they took.
func TestDisconnectSaysWhy(t *testing.T) {
	b, f := newBench(t), newFake("w")
	b.mustFeed(f.Next(t)).after(10 * second)
	b.closes(f)
	b.SettleDisconnects(b.now)
	b.TakeSteps()
	if next, ok := b.Next(); !ok || next.Sub(b.now) > liveness.FastWindow-liveness.AskBefore {
		t.Errorf("the next deadline is in %s", next.Sub(b.now))
	}
	b.after(liveness.FastWindow - liveness.AskBefore)
	if first, second := b.TakeAsk(), b.TakeAsk(); !first || second {
		t.Errorf("it is to be asked for %t, then %t; want once", first, second)
	}
	b.after(liveness.AskBefore + 3*ms)
	steps := b.TakeSteps()
	if len(steps) != 1 || steps[0].Cause != hivebeat.CauseDisconnect || steps[0].Detect != liveness.FastWindow+3*ms || steps[0].Age != 12*second+3*ms ||
		steps[0].Reason != "its connection closed (Client Closed) and it did not come back within 2s" {
		t.Fatalf("steps %+v", steps)
	}
	if r, _ := b.record("w"); len(r.Tr) != 2 || r.Tr[1].Detect != 2003 {
		t.Errorf("the record does not say how long it took: %+v", r.Tr)
	}
	b.after(97 * ms)
	b.mustFeed(f.Next(t))
	steps = b.TakeSteps()
	if len(steps) != 1 || steps[0].Kind != hivebeat.KindRecovered || steps[0].Margin != 100*ms || steps[0].Transition.Margin != 100 || b.stats.FalseDead != 1 {
		t.Errorf("heard after all: %+v, %+v", steps, b.stats)
	}
}

// A process may beat for several workers over one connection: there is one disconnect,
// and all of them are lost.
func TestDisconnectOfManyWorkers(t *testing.T) {
	b := newBench(t)
	list := make([]*fake, 9)
	for i := range list {
		list[i] = newFake(fmt.Sprint("w", i))
		b.mustFeed(list[i].Next(t))
	}
	list[8].Conn = "NDXS/18"
	b.mustFeed(list[8].Next(t))
	b.closes(list[0])
	if more := b.SettleDisconnects(b.now.Add(-1)); !more {
		t.Error("a window that opened later is not settled")
	}
	if more := b.SettleDisconnects(b.now); more {
		t.Error("all are settled")
	}
	b.after(second)
	b.mustFeed(list[1].Next(t))
	b.after(second)
	for i, f := range list {
		want := hivebeat.Lost
		if i == 1 || i == 8 {
			want = hivebeat.Alive
		}
		if r, _ := b.record(f.Worker); r.Live != want {
			t.Errorf("%s is %s, want %s", f.Worker, r.Live, want)
		}
	}
}
