package queen

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/queen/api"
)

// short is the promise of hives for which the time of the verdict does not matter: lost
// after 3 × 300 ms, with a key that lives for a second.
const short = 300 * time.Millisecond

func TestManyQueensTellEachEventOnce(t *testing.T) {
	t.Parallel()
	for _, queens := range []int{2, 3} {
		t.Run(fmt.Sprint(queens, " queens"), func(t *testing.T) {
			srv := bustest.Server(t)
			nc := bustest.Conn(t, srv)
			events := subscribeEvents(t, bustest.Conn(t, srv))
			var all []*runningQueen
			for i := range queens {
				all = append(all, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)}))
			}
			for _, q := range all {
				q.warm()
			}
			const hives = 8
			var list []*testHive
			for i := range hives {
				w := workerOf("w")
				w.N = 0
				transition(&w, hivebeat.KindJoined, "alive")
				list = append(list, startHive(t, bustest.Conn(t, srv), fmt.Sprint("h", i), time.Second, w))
			}
			for n := range 5 { // each worker goes through a few states
				for _, h := range list {
					h.send(func(s *hivebeat.Snapshot) {
						transition(&s.Workers[0], hivebeat.KindState, fmt.Sprint("state", n))
					})
				}
			}
			for i, h := range list {
				id := fmt.Sprint("h", i)
				waitStored(t, nc, hivebeat.KindJoined, id, "")
				if i%2 == 0 {
					h.kill()
				} else {
					h.bye("test")
				}
			}
			for i := range list {
				kind := hivebeat.KindLost
				if i%2 == 1 {
					kind = hivebeat.KindLeft
				}
				id := fmt.Sprint("h", i)
				ev := waitStored(t, nc, kind, id, "")
				if d := ev.Data; d.Cause == "" || d.Via != hivebeat.ViaQueen || d.Reason == "" || d.Seq == 0 || d.Inc == 0 {
					t.Errorf("without evidence: %+v", d)
				}
				for _, q := range all {
					q.eventually(id+" "+string(kind), func() bool { return q.live(id) == hivebeat.Live(kind) })
				}
			}
			want := func() map[string]bool {
				ids := map[string]bool{}
				for i := range hives {
					ids[fmt.Sprintf("h%d.w.7.joined", i)] = true
					inc := list[i].snap.Inc
					for n := range 5 {
						ids[fmt.Sprintf("h%d.%d.w.%d", i, inc, n+2)] = true
					}
				}
				return ids
			}()
			bustest.Eventually(t, patience, func() (bool, string) {
				have := storedEvents(t, nc)
				for id := range want {
					if _, ok := have[id]; !ok {
						return false, "not stored: " + id
					}
				}
				return true, ""
			})
			for i := range hives {
				id := fmt.Sprint("h", i)
				lost, left := countStored(t, nc, hivebeat.KindLost, id), countStored(t, nc, hivebeat.KindLeft, id)
				if lost != 1-i%2 || left != i%2 || countStored(t, nc, hivebeat.KindJoined, id) != 1 {
					t.Errorf("%s: %d lost, %d left", id, lost, left)
				}
			}
			bustest.Eventually(t, patience, func() (bool, string) {
				have := len(storedEvents(t, nc))
				events.mu.Lock()
				defer events.mu.Unlock()
				return len(events.evs) == have, fmt.Sprintf("%d heard, %d stored", len(events.evs), have)
			})
			events.once(t)
		})
	}
}

func TestQueensComeAndGo(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q1.warm()
	w := workerOf("w")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	lives := startHive(t, bustest.Conn(t, srv), "lives", 15*time.Second, w)
	dies := startHive(t, bustest.Conn(t, srv), "dies", time.Second)
	waitStored(t, nc, hivebeat.KindJoined, "lives", "")
	waitStored(t, nc, hivebeat.KindJoined, "dies", "")
	waitStored(t, nc, hivebeat.KindJoined, "lives", "w")
	q1.stop()

	// No queen is running: a worker changes, a hive dies, and its key expires.
	lives.send(func(s *hivebeat.Snapshot) { transition(&s.Workers[0], hivebeat.KindState, "draining") })
	dies.kill()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		kv, err := js.KeyValue(t.Context(), hivebeat.BucketHives)
		if err != nil {
			return false, err.Error()
		}
		_, err = kv.Get(t.Context(), "dies")
		return errors.Is(err, jetstream.ErrKeyNotFound), fmt.Sprint("the key is there: ", err)
	})

	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q2.warm()
	if l := q2.live("lives"); l != hivebeat.Alive {
		t.Errorf("lives is %q", l)
	}
	ev := waitStored(t, nc, hivebeat.KindLost, "dies", "")
	if d := ev.Data; d.From != "alive" || d.Cause != hivebeat.CauseMissed || !strings.Contains(d.Reason, "known only from the roster") || d.N != 2 {
		t.Errorf("%+v", d)
	}
	lives.send(nil) // as it does when its roll is called
	if ev := waitStored(t, nc, hivebeat.KindState, "lives", "w"); ev.Data.N != 2 {
		t.Errorf("%+v", ev)
	}
	q2.stop()
	q3 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q3"})
	q3.warm()
	if l := q3.live("dies"); l != hivebeat.Lost {
		t.Errorf("dies is %q to the third", l)
	}
	// Once the third queen has announced the worker's next step, it has seen everything.
	lives.send(func(s *hivebeat.Snapshot) { transition(&s.Workers[0], hivebeat.KindLeft, "left") })
	waitStored(t, nc, hivebeat.KindLeft, "lives", "w")
	if n := len(storedEvents(t, nc)); n != 6 {
		t.Errorf("%d events stored, want 6: %v", n, storedEvents(t, nc))
	}
	events.once(t)
}

// TestQueenAfterTheDeath starts the first queen while the key of a dead hive still
// exists.
func TestQueenAfterTheDeath(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q1.warm()
	h := startHive(t, bustest.Conn(t, srv), "h", 2*time.Second, workerOf("w"))
	waitStored(t, nc, hivebeat.KindJoined, "h", "")
	bustest.Eventually(t, patience, func() (bool, string) { return q1.Stats().Puts.Put > 0, "not put" })
	h.kill()
	q1.stop()

	calls, err := nc.SubscribeSync("queen.rollcall.>")
	if err != nil {
		t.Fatal(err)
	}
	all, err := nc.SubscribeSync("queen.rollcall")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q2.eventually("the hive is known from the bucket", func() bool { return q2.live("h") != "" })
	if m, err := calls.NextMsg(patience); err != nil || m.Subject != "queen.rollcall.h" || string(m.Data) != "1000" {
		t.Errorf("roll call: %+v %v", m, err)
	}
	if a := q2.ask(api.VerbWorker, api.Request{Hive: "h", Worker: "w"}); len(a.Workers) != 1 || a.Workers[0].Age < 5000 {
		t.Errorf("its worker is not known from the bucket, or younger than it is: %+v", a)
	}
	q2.warm() // after 2 s, because the key exists and no hive answers
	ev := waitStored(t, nc, hivebeat.KindLost, "h", "")
	if ev.Data.Cause != hivebeat.CauseMissed || countStored(t, nc, hivebeat.KindLost, "h") != 1 {
		t.Errorf("%+v", ev)
	}
	if m, err := all.NextMsg(10 * time.Millisecond); err == nil {
		t.Errorf("all were called for one: %s", m.Data)
	}
}

func TestHiveRestarts(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, nc, Config{ID: "q1"})
	q.warm()
	w := workerOf("w")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	h := startHive(t, nc, "h", time.Minute, w)
	waitStored(t, nc, hivebeat.KindJoined, "h", "w")
	h.kill()
	// The hive starts again: first with an empty registry and not warm, then it hears the
	// worker.
	h.send(func(s *hivebeat.Snapshot) { s.Inc, s.Seq, s.Warm, s.Workers = s.Inc+1, 0, false, []hivebeat.Record{} })
	waitStored(t, nc, hivebeat.KindRestarted, "h", "")
	if a := q.ask(api.VerbWorker, api.Request{Hive: "h", Worker: "w"}); len(a.Workers) != 1 || a.Workers[0].Live == hivebeat.Lost {
		t.Errorf("declared dead by an empty registry: %+v", a)
	}
	h.send(func(s *hivebeat.Snapshot) { s.Workers = []hivebeat.Record{w} })
	h.send(func(s *hivebeat.Snapshot) {
		s.Warm = true
		transition(&s.Workers[0], hivebeat.KindState, "draining")
	})
	if ev := waitStored(t, nc, hivebeat.KindState, "h", "w"); ev.Data.N != 2 || ev.Data.HiveInc != h.snap.Inc {
		t.Errorf("%+v", ev)
	}
	joined := 0
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Kind == hivebeat.KindJoined && ev.Data.Worker == "w" {
			joined++
		}
		if ev.Data.Kind == hivebeat.KindLost || ev.Data.Kind == hivebeat.KindGap {
			t.Errorf("%+v", ev)
		}
	}
	if joined != 1 {
		t.Errorf("joined %d times", joined)
	}
}

func TestTwoHivesWithOneID(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q1, q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q1.warm()
	q2.warm()
	startHive(t, bustest.Conn(t, srv), "same", 500*time.Millisecond)
	waitStored(t, nc, hivebeat.KindJoined, "same", "")
	startHive(t, bustest.Conn(t, srv), "same", 500*time.Millisecond)
	ev := waitStored(t, nc, hivebeat.KindConflict, "same", "")
	if !strings.Contains(ev.Data.Reason, `two hives beat as "same"`) {
		t.Errorf("%+v", ev.Data)
	}
	for _, q := range []*runningQueen{q1, q2} {
		q.eventually("shown as a conflict", func() bool {
			a := q.ask(api.VerbHive, api.Request{Hive: "same"})
			return len(a.Hives) == 1 && a.Hives[0].Conflict
		})
		q.logged("kind=conflict")
	}
	if n := countStored(t, nc, hivebeat.KindConflict, "same"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestDeafQueenReadsTheKeyFirst(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t,
		bustest.User("all", nil, nil),
		// A user that receives no snapshots.
		bustest.User("deaf", nil, []string{"_INBOX.>", "queen.api.>", "$SRV.>"}))
	nc := bustest.Conn(t, srv, nats.UserInfo("all", "all"))
	hears := startQueen(t, bustest.Conn(t, srv, nats.UserInfo("all", "all")), Config{ID: "hears"})
	hears.warm()
	startHive(t, nc, "h", time.Second)
	bustest.Eventually(t, patience, func() (bool, string) { return hears.Stats().Puts.Put > 0, "not put" })
	deaf := startQueen(t, bustest.Conn(t, srv, nats.UserInfo("deaf", "deaf")), Config{ID: "deaf"})
	deaf.eventually("known from the bucket", func() bool { return deaf.live("h") != "" })
	seq := func() uint64 {
		a := deaf.ask(api.VerbHive, api.Request{Hive: "h"})
		if len(a.Hives) != 1 {
			t.Fatalf("%+v", a)
		}
		return a.Hives[0].Seq
	}
	first := seq()
	// It follows the snapshots stored by others, past its own deadlines.
	deaf.eventually("the seq goes on", func() bool { return seq() > first+4 })
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Kind == hivebeat.KindLost {
			t.Errorf("%+v", ev)
		}
	}
}

func TestPagedHiveOf5000(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.Configure(func(o *embedded.Options) { o.MaxPayload = 256 << 10 }))
	nc := bustest.Conn(t, srv)
	q := startQueen(t, nc, Config{ID: "q1"})
	q.warm()
	s := fleetSnapshot("big", 5000)
	pages := pagesOf(s, 50)
	for _, p := range pages {
		b := encode(t, p)
		if err := nc.Publish("queen.hives.big", b); err != nil {
			t.Fatal(err)
		}
	}
	q.eventually("all workers", func() bool {
		a := q.ask(api.VerbHive, api.Request{Hive: "big"})
		return len(a.Hives) == 1 && a.Hives[0].Workers[hivebeat.Alive] == 5000
	})
	got := map[string]bool{}
	client := bustest.Conn(t, srv)
	halved := false
	for req := (api.Request{Limit: 1000}); ; {
		a := request(t, client, api.VerbWorkers, req)
		halved = halved || len(a.Workers) < 1000 && a.Next != ""
		for _, w := range a.Workers {
			if got[w.Worker] {
				t.Fatalf("%s twice", w.Worker)
			}
			got[w.Worker] = true
		}
		if req.After = a.Next; a.Next == "" {
			break
		}
	}
	if len(got) != 5000 || !halved {
		t.Errorf("%d workers listed, halved %v", len(got), halved)
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		put := q.Stats().Puts
		return put.Put == 50, fmt.Sprintf("%+v", put)
	})
}

func TestHostileSnapshots(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, nc, Config{ID: "q1"})
	q.warm()
	good := snapshotOf("h", 100, 5, workerOf("w"))
	send := func(subject string, b []byte) {
		t.Helper()
		if err := nc.Publish(subject, b); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(f func(*hivebeat.Snapshot)) []byte {
		s := *good
		s.Seq = 6
		f(&s)
		return encode(t, &s)
	}
	send("queen.hives", encode(t, good))
	q.eventually("the good one", func() bool { return q.live("h") == hivebeat.Alive })
	for _, c := range []struct {
		name    string
		subject string
		bytes   []byte
		reason  hivebeat.Reason
	}{
		{"garbage", "queen.hives", []byte("hello"), hivebeat.RefusedMalformed},
		{"empty", "queen.hives", nil, hivebeat.RefusedMalformed},
		{"five-byte bomb", "queen.hives", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, hivebeat.RefusedMalformed},
		{"truncated", "queen.hives", encode(t, good)[:100], hivebeat.RefusedMalformed},
		{"version", "queen.hives", edit(func(s *hivebeat.Snapshot) { s.V = 2 }), hivebeat.RefusedVersion},
		{"id", "queen.hives", edit(func(s *hivebeat.Snapshot) { s.Hive = "a.b" }), hivebeat.RefusedID},
		{"not the subject's", "queen.hives.other", edit(func(*hivebeat.Snapshot) {}), hivebeat.RefusedForeign},
		{"replayed", "queen.hives", encode(t, good), hivebeat.RefusedStale},
		{"an older incarnation", "queen.hives", edit(func(s *hivebeat.Snapshot) { s.Inc = 99 }), hivebeat.RefusedOlder},
		{"page past the last", "queen.hives", edit(func(s *hivebeat.Snapshot) { s.Page = 3 }), hivebeat.RefusedLimit},
		{"half way wrong", "queen.hives", edit(func(s *hivebeat.Snapshot) {
			s.Workers = []hivebeat.Record{workerOf("new"), workerOf("not an id")}
		}), hivebeat.RefusedID},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := q.Stats()
			send(c.subject, c.bytes)
			q.eventually("counted as "+string(c.reason), func() bool { return q.Stats().Refused[c.reason] == before.Refused[c.reason]+1 })
			after := q.Stats()
			if after.Snapshots != before.Snapshots || after.Workers != 1 || after.Hives != 1 {
				t.Errorf("it changed something: %+v, %+v", before, after)
			}
		})
	}
	for _, reason := range []hivebeat.Reason{hivebeat.RefusedMalformed, hivebeat.RefusedForeign} { // logged once, not each time
		told := 0
		for line := range strings.Lines(q.log.String()) {
			if strings.Contains(line, "messages refused") && strings.Contains(line, "reason="+string(reason)+" ") {
				told++
			}
		}
		if told != 1 {
			t.Errorf("that messages are refused as %s is told %d times", reason, told)
		}
	}
	send("queen.hives", edit(func(*hivebeat.Snapshot) {}))
	q.eventually("it goes on", func() bool { return q.ask(api.VerbHive, api.Request{Hive: "h"}).Hives[0].Seq == 6 })
}

func request(t testing.TB, nc *nats.Conn, verb string, req api.Request) api.Answer {
	t.Helper()
	var a api.Answer
	bustest.Eventually(t, patience, func() (bool, string) { // the subscriptions of a queen that has just become warm may not have reached the server yet
		var err error
		a, err = tryRequest(nc, verb, req)
		return err == nil, fmt.Sprint(err)
	})
	return a
}

func reconnecting() []nats.Option {
	return []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0)}
}

func retryOnFailedConnect() nats.Option { return nats.RetryOnFailedConnect(true) }

func shutdownContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// advance advances one entry of the roster, as a queen does.
func advance(t *testing.T, l *ledger.Ledger, step ledger.Step) {
	t.Helper()
	p, err := ledger.NewPublisher(l)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if out := p.Advance(t.Context(), []ledger.Step{step}); out[0].Err != nil {
		t.Fatal(out[0].Err)
	}
}

// TestAQueenDiesBeforeItPublishes leaves an event in the roster that was never
// published. The queen that announces the hive's next event publishes it first.
func TestAQueenDiesBeforeItPublishes(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	l, err := ledger.Open(t.Context(), nc, ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ev := hivebeat.Subjects{}.NewEvent("h.1", time.Now(), hivebeat.EventData{Hive: "h", Inc: 100, HiveInc: 100, N: 1, Kind: hivebeat.KindJoined, Seq: 1, To: "alive"})
	body, err := ev.Encode()
	if err != nil {
		t.Fatal(err)
	}
	advance(t, l, ledger.Step{Key: "h", Next: ledger.RosterEntry{N: 1, Live: hivebeat.Alive, Inc: 100, Seq: 1, Every: 1000, Event: body}})
	q.eventually("unverified", func() bool { return q.live("h") == hivebeat.Unverified })
	if a := q.ask(api.VerbSummary, api.Request{}); len(a.Status.Unsure) == 0 || a.Summary.Hives[hivebeat.Unverified] != 1 {
		t.Errorf("%+v", a)
	}
	waitStored(t, nc, hivebeat.KindLost, "h", "")
	stored := storedEvents(t, nc)
	if len(stored) != 2 || stored["h.1"].Data.Kind != hivebeat.KindJoined || stored["h.2"].Data.Kind != hivebeat.KindLost {
		t.Errorf("%+v", stored)
	}
}

// TestNobodyHasToSpeakForAnEventToGetOut is the same with a hive that lives on.
func TestNobodyHasToSpeakForAnEventToGetOut(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	startHive(t, nc, "h", time.Minute)
	waitStored(t, nc, hivebeat.KindJoined, "h", "")
	l, err := ledger.Open(t.Context(), nc, ledger.Config{})
	if err != nil {
		t.Fatal(err)
	}
	read := l.RostersOf(t.Context(), []string{"h"})[0]
	if read.Err != nil || !read.OK {
		t.Fatal(read.Err)
	}
	item := read.Item
	ev := hivebeat.Subjects{}.NewEvent("h.2", time.Now(), hivebeat.EventData{Hive: "h", Inc: item.Inc, HiveInc: item.Inc, N: 2, Kind: hivebeat.KindRecovered})
	next := item.RosterEntry
	next.N = 2
	if next.Event, err = ev.Encode(); err != nil {
		t.Fatal(err)
	}
	advance(t, l, ledger.Step{Key: "h", Revision: item.Revision, Next: next})
	waitStored(t, nc, hivebeat.KindRecovered, "h", "")
}
