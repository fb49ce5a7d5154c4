package queen

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// backsUp waits until a queen starts or stops answering in place of another.
func (r *runningQueen) backsUp(want bool) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("it answers in place of another: %v", want), func() bool {
		return r.service.backup.Load() == want
	})
}

// NATS keeps giving requests to a queen whose connection is stalled, and to one that is
// stopped. Each of them is answered all the same.
func TestAQueenThatIsStoppedLeavesNoQuestionOpen(t *testing.T) {
	t.Parallel()
	for _, live := range []int{1, 2} {
		t.Run(fmt.Sprint(live, " others"), func(t *testing.T) {
			srv := bustest.Server(t)
			proxy := bustest.NewProxy(t, srv.URL())
			t.Cleanup(proxy.Resume)
			stalled := startQueen(t, bustest.Dial(t, proxy.URL()), Config{ID: "q0"})
			var others []*runningQueen
			for i := range live {
				others = append(others, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i+1)}))
			}
			hive := workerOf("w")
			hive.Slots = 8
			startHive(t, bustest.Conn(t, srv), "h1", time.Minute, hive)
			startHive(t, bustest.Conn(t, srv), "h2", time.Minute, hive)
			for _, q := range append(others, stalled) {
				q.warm()
				q.eventually("both hives are alive", func() bool { return q.live("h1") == hivebeat.Alive && q.live("h2") == hivebeat.Alive })
				q.eventually("it hears the others", func() bool {
					heard := false
					_ = q.do(t.Context(), func(now time.Time) { _, heard = q.core.Backup(now) })
					return heard
				})
			}
			nc := bustest.Conn(t, srv)
			ask, err := client.New(nc, client.Config{Timeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			proxy.Stall()

			// Until another queen notices, the client finds a live queen by a ping.
			held := make(map[string]bool)
			hold := func(id string) {
				t.Helper()
				a, err := ask.Hold(t.Context(), client.HoldRequest{ID: id, Duration: time.Minute})
				if err != nil || len(a.Places) != 1 {
					t.Fatalf("hold %s: %+v, %v", id, a, err)
				}
				held[id] = true
			}
			for i := range 2 {
				hold(fmt.Sprint("early", i))
			}
			others[0].backsUp(true)
			bustest.Flush(t, others[0].nc) // the server has its subscriptions
			for i := range 30 {            // by chance each would have gone to the stalled queen
				began := time.Now()
				m, err := nc.Request("queen.api.summary", nil, patience)
				if err != nil {
					t.Fatalf("question %d: %v", i, err)
				}
				if took := time.Since(began); took > time.Second {
					t.Logf("question %d took %v", i, took)
				}
				var a api.Answer
				if err := json.Unmarshal(m.Data, &a); err != nil || a.Status.Queen == "q0" {
					t.Fatalf("%s: %v", m.Data, err)
				}
			}
			for i := range 2 {
				hold(fmt.Sprint("late", i))
			}
			// However many queens carried out a hold, it has one place.
			for _, q := range others {
				q.eventually("each hold has one place", func() bool {
					a := q.ask(api.VerbHolds, api.Request{})
					n := make(map[string]int)
					for _, h := range a.Holds {
						n[h.ID]++
					}
					for id := range held {
						if n[id] != 1 {
							t.Logf("%s: %+v", id, a.Holds)
							return false
						}
					}
					return len(n) == len(held)
				})
			}
			proxy.Resume()
			others[0].backsUp(false)
		})
	}
}

// A queen that ends in order is not missed: no queen waits for its silence.
func TestAQueenThatEndsIsNotMissed(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q1, q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q1.warm()
	q2.warm()
	hears := func() (heard bool) {
		_ = q2.do(t.Context(), func(now time.Time) { _, heard = q2.core.Backup(now) })
		return heard
	}
	q2.eventually("it hears the other one", hears)
	q1.stop()
	q2.eventually("it knows that the other one is gone", func() bool { return !hears() })
	if q2.service.backup.Load() {
		t.Error("it answers in its place")
	}
}

// A hold requested again while the first request is under way gets the same place, also
// from another queen that knows of it.
func TestAHoldThatIsAskedTwiceIsOne(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q1, q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	nc := bustest.Conn(t, srv)
	const hives, holds, times = 8, 5, 4
	for i := range hives {
		w := workerOf("w")
		w.Slots = 8
		startHive(t, bustest.Conn(t, srv), fmt.Sprint("h", i), time.Minute, w)
	}
	for _, q := range []*runningQueen{q1, q2} {
		q.warm()
		q.eventually("all hives are known", func() bool { return len(q.ask(api.VerbHives, api.Request{}).Hives) == hives })
		bustest.Flush(t, q.nc) // the server has its subscriptions
	}
	for i := range holds {
		sub, err := nc.SubscribeSync(nc.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		places := make(map[string]bool)
		ask := func(queen string) {
			t.Helper()
			if err := nc.PublishRequest("queen.api.hold."+queen, sub.Subject, fmt.Appendf(nil, `{"hold":"job%d"}`, i)); err != nil {
				t.Fatal(err)
			}
		}
		answer := func() {
			t.Helper()
			m, err := sub.NextMsg(patience)
			if err != nil {
				t.Fatal(err)
			}
			var a api.Answer
			if err := json.Unmarshal(m.Data, &a); err != nil || len(a.Picks) != 1 {
				t.Fatalf("%s: %v", m.Data, err)
			}
			places[a.Picks[0].Hive] = true
		}
		for range times {
			ask("q1")
		}
		for range times {
			answer()
		}
		q2.eventually("it knows of the hold", func() bool { return len(q2.ask(api.VerbHolds, api.Request{}).Holds) == i+1 })
		ask("q2")
		answer()
		if len(places) != 1 {
			t.Errorf("job%d holds %v", i, places)
		}
	}
}

// A hive that another queen holds as unverified is not picked, and the answer says so,
// until this queen receives more from it.
func TestAQueenPicksNobodyWhomAnotherDoubts(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	w := workerOf("w")
	w.Slots = 8
	h := startHive(t, bustest.Conn(t, srv), "h", time.Minute, w)
	q.warm()
	q.eventually("the hive is known", func() bool { return q.live("h") != "" })
	pick := func() api.Answer { return q.ask(api.VerbPick, api.Request{}) }
	if a := pick(); len(a.Picks) != 1 || len(a.Status.Unsure) > 0 {
		t.Fatalf("%+v", a)
	}
	nc := bustest.Conn(t, srv)
	say := func(seq uint64) {
		t.Helper()
		if err := nc.Publish("queen.peers", fmt.Appendf(nil, `{"v":1,"queen":"q2","unverified":[{"hive":"h","inc":%d,"seq":%d}]}`, h.snap.Inc, seq)); err != nil {
			t.Fatal(err)
		}
	}
	doubted := func(a *api.Answer) bool {
		return len(a.Picks) == 0 && len(a.Status.Unsure) == 1 && strings.Contains(a.Status.Unsure[0], "q2 doubts 1 hives")
	}
	q.eventually("it is not picked", func() bool {
		say(h.snap.Seq)
		a := pick()
		return doubted(&a) && a.Passed["another queen doubts its hive"] == 1
	})
	old := h.snap.Seq
	h.send(nil)
	q.eventually("it was heard since, and is picked", func() bool {
		say(old)
		a := pick()
		return len(a.Picks) == 1 && len(a.Status.Unsure) == 0
	})
}

// Queens that do not share one store say so.
func TestQueensWithOtherStoresSaySo(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q1 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q2 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q1.warm()
	q2.warm()
	says := func(q *runningQueen, other string) bool {
		for _, u := range q.ask(api.VerbSummary, api.Request{}).Status.Unsure {
			if strings.Contains(u, other+" keep hives and events in another JetStream") {
				return true
			}
		}
		return false
	}
	q3 := startQueen(t, bustest.Conn(t, srv), Config{ID: "q3", NoJetStream: true})
	q1.eventually("the third has another store", func() bool { return says(q1, "q3") })
	q3.eventually("the others have another store", func() bool { return says(q3, "queens q1, q2") })
	if says(q2, "q1") {
		t.Error("queens with one store say that it is another")
	}
	m, err := bustest.Conn(t, srv).Request("$SRV.INFO.queen.q1", nil, patience)
	if err != nil || !strings.Contains(string(m.Data), `"stores":"`) {
		t.Errorf("%v: its info is %s", err, m.Data)
	}
}

// A queen that hears which connections close holds a hive by its brake. Another queen,
// which does not hear that, does not pick there either.
func TestTheBrakeOfOneQueenStopsThePicksOfAnother(t *testing.T) {
	t.Parallel()
	w := newWitness(t)
	q2 := startQueen(t, agentConn(t, w.srv.URL()), Config{ID: "q2"})
	q2.warm()
	const hives = 8
	worker := workerOf("w")
	worker.Slots = 8
	var all []*testHive
	for i := range hives {
		h := w.hive(w.srv.URL(), fmt.Sprint("h", i), worker)
		defer h.kill()
		all = append(all, h)
	}
	q2.eventually("all are alive", func() bool { return q2.ask(api.VerbSummary, api.Request{}).Summary.Hives[hivebeat.Alive] == hives })
	pace := time.NewTicker(600 * time.Millisecond) // never many at once
	defer pace.Stop()
	for _, h := range all[:4] { // more than the brake believes
		h.dies()
		<-pace.C
	}
	held := ""
	w.eventually("the brake holds one", func() bool {
		for i := range hives {
			if id := fmt.Sprint("h", i); w.live(id) == hivebeat.Unverified {
				held = id
				return true
			}
		}
		return false
	})
	began := time.Now()
	q2.eventually("the other queen does not pick it, and says why", func() bool {
		a := q2.ask(api.VerbPick, api.Request{Hive: held})
		return len(a.Picks) == 0 && slices.ContainsFunc(a.Status.Unsure, func(s string) bool { return strings.Contains(s, "q1 doubts") })
	})
	if took := time.Since(began); took > time.Second {
		t.Errorf("for %v the other queen went on picking %s", took, held)
	}
	if l := q2.live(held); l != hivebeat.Alive {
		t.Logf("to the other queen %s is %s", held, l)
	}
}
