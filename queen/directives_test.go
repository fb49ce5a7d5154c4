package queen

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/directive"
	"github.com/beatfabric/hivebeat/queen/api"
)

// serves returns a worker that may be picked.
func serves(id string, gpus ...string) hivebeat.Record {
	r := workerOf(id)
	r.State, r.Model, r.Slots, r.Busy, r.GPUs = hivebeat.Ready, "m", 4, 0, gpus
	return r
}

// picked returns the hives and workers that a queen picks, and why it passed over others.
func (r *runningQueen) picked(req api.Request) (places map[string]bool, passed map[string]int) {
	req.N = 100
	a := r.ask(api.VerbPick, req)
	places = make(map[string]bool)
	for _, p := range a.Picks {
		places[p.Hive+"/"+p.Worker+p.GPU] = true
	}
	return places, a.Passed
}

// picks waits until a queen picks just these places.
func (r *runningQueen) picks(req api.Request, want ...string) {
	r.t.Helper()
	bustest.Eventually(r.t, patience, func() (bool, string) {
		got, passed := r.picked(req)
		ok := len(got) == len(want)
		for _, w := range want {
			ok = ok && got[w]
		}
		return ok, fmt.Sprintf("%s picks %v, passes over %v, and should pick %v", r.cfg.ID, got, passed, want)
	})
}

// kvRoster returns the bucket of the roster.
func kvRoster(t *testing.T, r *runningQueen) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), hivebeat.BucketRoster)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// drainsStored returns how many drains the stream has.
func drainsStored(t *testing.T, nc *nats.Conn) (n int) {
	t.Helper()
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Kind == hivebeat.KindDrained {
			n++
		}
	}
	return n
}

// Two queens honour a drain, also after a restart of either; the event comes once, and undrain ends it.
func TestQueensHonourADrain(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	queens := []*runningQueen{startQueen(t, bustest.Conn(t, srv), Config{ID: "q0"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})}
	for _, q := range queens {
		q.warm()
	}
	h := startHive(t, bustest.Conn(t, srv), "h1", 15*time.Second, serves("a"), serves("b", "GPU-1"))
	h.send(func(s *hivebeat.Snapshot) { s.GPUs = []hivebeat.GPU{gpuOf(0), gpuOf(1)} })
	startHive(t, bustest.Conn(t, srv), "h2", 15*time.Second, serves("c"))
	everywhere := func(req api.Request, want ...string) {
		t.Helper()
		for _, q := range queens {
			q.picks(req, want...)
		}
	}
	gpu := api.Request{For: api.ForGPU, Filter: api.Filter{FreeVRAM: 1 << 30}}
	everywhere(api.Request{}, "h1/a", "h1/b", "h2/c")
	everywhere(gpu, "h1/GPU-0", "h1/GPU-1")
	ann := func(verb string, r api.Request) api.Answer { return requestAt(t, nc, "queen.as.ann."+verb, r) }

	for _, c := range []struct {
		verb    string
		r       api.Request
		workers []string
		gpus    []string
	}{
		{api.VerbDrain, api.Request{Hive: "h1", Worker: "a", Reason: "kernel update"}, []string{"h1/b", "h2/c"}, []string{"h1/GPU-0", "h1/GPU-1"}},
		{api.VerbDrain, api.Request{Hive: "h1", GPU: "GPU-1", During: 3_600_000}, []string{"h2/c"}, []string{"h1/GPU-0"}},
		{api.VerbUndrain, api.Request{Hive: "h1", GPU: "GPU-1"}, []string{"h1/b", "h2/c"}, []string{"h1/GPU-0", "h1/GPU-1"}},
		{api.VerbUndrain, api.Request{Hive: "h1", Worker: "a"}, []string{"h1/a", "h1/b", "h2/c"}, []string{"h1/GPU-0", "h1/GPU-1"}},
		{api.VerbDrain, api.Request{Hive: "h1", Reason: "rack move"}, []string{"h2/c"}, nil},
	} {
		a := ann(c.verb, c.r)
		if d := a.Directive; a.Error != nil || d == nil || d.What != "drain" || d.Hive != "h1" || d.Worker != c.r.Worker || d.GPU != c.r.GPU || d.By != "ann" || (c.verb == api.VerbDrain && d.Reason != c.r.Reason) {
			b, _ := json.Marshal(a)
			t.Fatalf("%s %+v: %s", c.verb, c.r, b)
		}
		everywhere(api.Request{}, c.workers...)
		everywhere(gpu, c.gpus...)
	}

	for i, q := range queens { // each restarts
		q.stop()
		queens[i] = startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)})
		queens[i].eventually("it answers", func() bool { return queens[i].ask(api.VerbSummary, api.Request{}).Status.Warm })
		if got, passed := queens[i].picked(api.Request{Hive: "h1"}); len(got) != 0 {
			t.Errorf("a queen that has just started picks %v on a drained hive, and passes over %v", got, passed)
		}
		h.send(nil)
		queens[i].eventually("it has heard both", func() bool { got, _ := queens[i].picked(api.Request{}); return got["h2/c"] })
		everywhere(api.Request{}, "h2/c")
	}
	if _, passed := queens[0].picked(api.Request{Hive: "h1"}); passed["drained"] != 2 {
		t.Errorf("passed over: %v", passed)
	}
	a := queens[1].ask(api.VerbHive, api.Request{Hive: "h1"})
	if d := a.Hives[0].Drained; d == nil || d.Of != "hive" || d.By != "ann" || d.Reason != "rack move" || d.Left != 0 {
		t.Errorf("%+v", d)
	}
	a = queens[1].ask(api.VerbWorker, api.Request{Hive: "h1", Worker: "b"})
	if d := a.Workers[0].Drained; d == nil || d.Of != "hive" || d.By != "ann" {
		t.Errorf("%+v", d)
	}
	if a := ann(api.VerbUndrain, api.Request{Hive: "h1", Worker: "b"}); a.Error == nil || a.Error.Code != api.CodeNotFound || !strings.Contains(a.Error.Message, "it is drained with its hive") {
		t.Errorf("%+v", a.Error)
	}

	ev := waitStored(t, nc, hivebeat.KindUndrained, "h1", "a")
	if d := ev.Data; d.Asker != "ann" || d.Reason != "it was drained by ann: kernel update" || ev.ID != hivebeat.DirectiveEventID("h1", 4) || ev.Subject != "h1/a" {
		t.Errorf("%+v", ev)
	}
	for worker, want := range map[string]int{"": 2, "a": 1} {
		bustest.Eventually(t, patience, func() (bool, string) {
			got := events.of(hivebeat.KindDrained, "h1", worker)
			return len(got) == want, fmt.Sprintf("%d events, not %d: %+v", len(got), want, got)
		})
	}
	events.once(t)
	if n := drainsStored(t, nc); n != 3 {
		t.Errorf("%d are stored, not 3", n)
	}
}

// A drain ends by itself, by the time since it was stored. Until then the hold that was there stays, and none is given.
func TestDrainEnds(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q, other := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q.warm()
	other.warm()
	startHive(t, bustest.Conn(t, srv), "h", 15*time.Second, serves("a"))
	q.picks(api.Request{}, "h/a")
	other.picks(api.Request{}, "h/a")
	if a := request(t, nc, api.VerbHold, api.Request{Hold: "job", HoldMS: 600_000, Slots: 1}); len(a.Picks) != 1 {
		t.Fatalf("%+v", a)
	}
	a := q.ask(api.VerbDrain, api.Request{Hive: "h", During: 1_500})
	if d := a.Directive; a.Error != nil || d.Left == 0 || d.Left > 1_500 {
		t.Fatalf("%+v", a)
	}
	stored := time.Now()
	if a := q.ask(api.VerbHold, api.Request{Hold: "other"}); len(a.Picks) != 0 || a.Passed[api.PassedDrained] != 1 {
		t.Errorf("a hold on a drained worker: %+v", a)
	}
	if a := q.ask(api.VerbHolds, api.Request{}); len(a.Holds) != 1 {
		t.Errorf("the hold that was there: %+v", a.Holds)
	}
	for _, q := range []*runningQueen{q, other} {
		q.picks(api.Request{}, "h/a")
		if took := time.Since(stored); took < time.Second {
			t.Errorf("%s: it ended after %v", q.cfg.ID, took)
		}
		if a := q.ask(api.VerbUndrain, api.Request{Hive: "h"}); a.Error == nil || a.Error.Code != api.CodeNotFound {
			t.Errorf("%s: %+v", q.cfg.ID, a.Error)
		}
	}
}

// Two queens that are asked at once lose nothing: each reads again what the other wrote.
func TestDrainsAtOnce(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	var queens []*runningQueen
	for i := range 2 {
		queens = append(queens, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)}))
		queens[i].warm()
	}
	const each = 8
	var list []hivebeat.Record
	for i := range 2 * each {
		list = append(list, serves(fmt.Sprint("w", i)))
	}
	startHive(t, bustest.Conn(t, srv), "h", 15*time.Second, list...)
	for _, q := range queens {
		q.eventually("it knows all", func() bool { got, _ := q.picked(api.Request{}); return len(got) == 2*each })
	}
	var wg sync.WaitGroup
	for i, q := range queens {
		for k := range each {
			wg.Go(func() {
				if a := q.ask(api.VerbDrain, api.Request{Hive: "h", Worker: fmt.Sprint("w", i*each+k)}); a.Error != nil {
					t.Errorf("%+v", a.Error)
				}
			})
		}
	}
	wg.Wait()
	for _, q := range queens {
		q.picks(api.Request{})
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		n := drainsStored(t, queens[0].nc)
		return n == 2*each, fmt.Sprintf("%d events of %d", n, 2*each)
	})
	e, err := kvRoster(t, queens[0]).Get(t.Context(), directive.Key("h"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := directive.Decode(e.Value()); err != nil || got.N != 2*each || len(got.Directives) != 2*each {
		t.Errorf("%+v %v", got, err)
	}
}

// Who asks again, because no answer came, changes nothing more.
func TestDrainRepeated(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	startHive(t, bustest.Conn(t, srv), "h", 15*time.Second, serves("a"))
	q.picks(api.Request{}, "h/a")
	for _, c := range []struct {
		asker string
		r     api.Request
		n     int // events since the start
	}{
		{"ann", api.Request{Hive: "h", During: 60_000}, 1},
		{"ann", api.Request{Hive: "h", During: 60_000}, 1},
		{"bob", api.Request{Hive: "h", During: 60_000}, 2},
		{"bob", api.Request{Hive: "h", During: 120_000}, 3},
		{"bob", api.Request{Hive: "h"}, 4},
		{"bob", api.Request{Hive: "h"}, 4},
		{"bob", api.Request{Hive: "h", Reason: "now with a reason"}, 5},
	} {
		a := requestAt(t, nc, "queen.as."+c.asker+".drain", c.r)
		if d := a.Directive; a.Error != nil || d.By != c.asker || d.Reason != c.r.Reason || (d.Left == 0) != (c.r.During == 0) {
			t.Errorf("%+v: %+v %+v", c.r, a.Error, d)
		}
		if n := drainsStored(t, nc); n != c.n {
			t.Errorf("%+v: %d events, not %d", c.r, n, c.n)
		}
	}
}

// Refusals name what is wrong, and change nothing.
func TestDrainRefused(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	startHive(t, bustest.Conn(t, srv), "h", 15*time.Second, serves("a"))
	q.picks(api.Request{}, "h/a")
	for _, c := range []struct {
		verb       string
		r          api.Request
		code, says string
	}{
		{api.VerbDrain, api.Request{}, api.CodeBadRequest, "hive is empty"},
		{api.VerbDrain, api.Request{Hive: "x"}, api.CodeNotFound, "no hive x is known"},
		{api.VerbDrain, api.Request{Hive: "h", Worker: "x"}, api.CodeNotFound, "no worker x is known on hive h"},
		{api.VerbDrain, api.Request{Hive: "h", GPU: "x"}, api.CodeNotFound, "no GPU x is known on hive h"},
		{api.VerbDrain, api.Request{Hive: "h", GPU: "x", Worker: "a"}, api.CodeBadRequest, "not both"},
		{api.VerbDrain, api.Request{Hive: "h", Reason: strings.Repeat("x", 257)}, api.CodeBadRequest, "reason is at most 256 bytes"},
		{api.VerbDrain, api.Request{Hive: "h", Reason: "\xff"}, api.CodeBadRequest, "reason is at most 256 bytes of UTF-8"},
		{api.VerbDrain, api.Request{Hive: "h", During: 1}, api.CodeBadRequest, "during must be 1000 to"},
		{api.VerbDrain, api.Request{Hive: "h", N: 3}, api.CodeBadRequest, `drain does not take the key "n"`},
		{api.VerbUndrain, api.Request{Hive: "h", Reason: "x"}, api.CodeBadRequest, `undrain does not take the key "reason"`},
		{api.VerbUndrain, api.Request{Hive: "h"}, api.CodeNotFound, "hive h is not drained"},
		{api.VerbUndrain, api.Request{Hive: "x", Worker: "y"}, api.CodeNotFound, "worker y of x is not drained"},
	} {
		if a := q.ask(c.verb, c.r); a.Error == nil || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) {
			t.Errorf("%s %+v: %+v", c.verb, c.r, a.Error)
		}
	}
	q.picks(api.Request{}, "h/a")
	if _, err := kvRoster(t, q).Get(t.Context(), directive.Key("h")); err == nil {
		t.Error("an entry was written")
	}
}

// Without JetStream nothing is changed; what was in force stays in force, and is stored again in an empty store.
func TestDrainWithoutJetStream(t *testing.T) {
	t.Parallel()
	none := bustest.Server(t, bustest.NoJetStream())
	plain := startQueen(t, bustest.Conn(t, none), Config{ID: "plain", NoJetStream: true})
	startHive(t, bustest.Conn(t, none), "h", 15*time.Second, serves("a"))
	plain.picks(api.Request{}, "h/a")
	plain.eventually("warm", func() bool { return plain.ask(api.VerbSummary, api.Request{}).Status.Warm })
	if a := plain.ask(api.VerbDrain, api.Request{Hive: "h"}); a.Error == nil || a.Error.Code != api.CodeUnavailable || !strings.Contains(a.Error.Message, "runs without it") {
		t.Errorf("%+v", a.Error)
	}

	srv := bustest.Server(t)
	q := startQueen(t, bustest.Conn(t, srv, reconnecting()...), Config{ID: "q1"})
	q.warm()
	hive := startHive(t, bustest.Conn(t, srv, reconnecting()...), "h", time.Second, serves("a"), serves("b"))
	q.picks(api.Request{}, "h/a", "h/b")
	if a := q.ask(api.VerbDrain, api.Request{Hive: "h", Worker: "a", Reason: "x"}); a.Error != nil {
		t.Fatalf("%+v", a.Error)
	}
	bustest.Stop(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) {
		a := q.ask(api.VerbDrain, api.Request{Hive: "h"})
		return a.Error != nil && a.Error.Code == api.CodeUnavailable, fmt.Sprintf("%+v", a.Error)
	})
	if a := q.ask(api.VerbWorker, api.Request{Hive: "h", Worker: "a"}); a.Workers[0].Drained == nil {
		t.Error("what was in force is not")
	}
	bustest.RestartEmpty(t, srv)
	bustest.Eventually(t, patience, func() (bool, string) {
		q.warm()
		l := q.store.ledger // set before it was warm, and never again
		got, err := l.Directives(t.Context(), "h")
		return err == nil && got.N == 1 && len(got.Directives) == 1 && got.Directives[0].Reason == "x" && got.Event == nil, fmt.Sprintf("%+v %v", got, err)
	})
	hive.send(nil)
	q.picks(api.Request{}, "h/b")
	if n := drainsStored(t, q.nc); n != 0 {
		t.Errorf("%d events in the new stream: it was published before", n)
	}
}

// An entry that is not one takes nothing away, and the next command replaces it.
func TestHostileDirectives(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	startHive(t, bustest.Conn(t, srv), "h", 15*time.Second, serves("a"), serves("b"))
	q.picks(api.Request{}, "h/a", "h/b")
	if a := q.ask(api.VerbDrain, api.Request{Hive: "h", Worker: "a"}); a.Error != nil {
		t.Fatalf("%+v", a.Error)
	}
	kv := kvRoster(t, q)
	long := strings.Repeat("x", 300)
	many := strings.Repeat(`{"what":"drain","by":"z"},`, 1000)
	for _, body := range []string{
		"", "null", "{", "[]", `{"v":2,"n":9}`, `{"v":1,"n":0}`, `{"v":1,"n":9,"directives":[{"what":"drain","by":"` + long + `"}]}`,
		`{"v":1,"n":9,"directives":[{"what":"drain","by":"z","reason":"` + long + `"}]}`, `{"v":1,"n":9,"directives":[{"what":"drain","by":"z","worker":"a.b"}]}`,
		`{"v":1,"n":9,"directives":[{"what":"drain","by":"z","left":9007199254740993}]}`, `{"v":1,"n":9,"directives":[` + many + `{}]}`,
		`{"v":1,"n":9,"directives":[{"what":"drain","by":"z"},{"what":"drain","by":"y"}]}`, strings.Repeat("x", directive.MaxBody+1),
	} {
		rev, err := kv.Put(t.Context(), directive.Key("h"), []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		bustest.Eventually(t, patience, func() (bool, string) { // the queen puts what is in force again
			e, err := kv.Get(t.Context(), directive.Key("h"))
			if err != nil {
				return false, err.Error()
			}
			got, err := directive.Decode(e.Value())
			return err == nil && e.Revision() > rev && len(got.Directives) == 1 && got.Directives[0].Worker == "a", fmt.Sprintf("%.80q: %+v %v", body, got, err)
		})
		q.picks(api.Request{}, "h/b")
	}

	// Words of a later version are kept; an event that is none of this entry is not published.
	if _, err := kv.Put(t.Context(), directive.Key("h"), []byte(`{"v":1,"n":70,"directives":[{"what":"later","by":"z","worker":"b","new":1},{"what":"drain","by":"z","worker":"b"}],`+
		`"event":{"id":"h.!op.70","data":{"hive":"other","kind":"lost"}},"more":true}`)); err != nil {
		t.Fatal(err)
	}
	q.picks(api.Request{}, "h/a")
	if a := q.ask(api.VerbDrain, api.Request{Hive: "h", Worker: "a"}); a.Error != nil {
		t.Fatalf("%+v", a.Error)
	}
	q.picks(api.Request{})
	e, err := kv.Get(t.Context(), directive.Key("h"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := directive.Decode(e.Value()); err != nil || got.N != 71 || len(got.Directives) != 3 {
		t.Errorf("%+v %v", got, err)
	}
	if n := countStored(t, q.nc, hivebeat.KindLost, "other"); n != 0 {
		t.Error("the event of another hive was published")
	}

	// Removed by hand, it is no longer in force.
	if err := kv.Delete(t.Context(), directive.Key("h")); err != nil {
		t.Fatal(err)
	}
	q.picks(api.Request{}, "h/a", "h/b")
	if a := q.ask(api.VerbDrain, api.Request{Hive: "h"}); a.Error != nil {
		t.Errorf("%+v", a.Error)
	}
	q.picks(api.Request{})
}

// The event of a change is published by the queens that read it, if the one that made it died before.
func TestDrainWhoseQueenDied(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	var queens []*runningQueen
	for i := range 2 {
		queens = append(queens, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)}))
		queens[i].warm()
	}
	startHive(t, nc, "h", 15*time.Second, serves("a"))
	for _, q := range queens {
		q.picks(api.Request{}, "h/a")
	}
	subjects, _ := hivebeat.NewSubjects("")
	body, err := subjects.NewEvent(hivebeat.DirectiveEventID("h", 5), time.Now(), hivebeat.EventData{Hive: "h", Kind: hivebeat.KindDrained, Asker: "ann"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := directive.Entry{N: 5, Event: body, Directives: []directive.Directive{{Place: directive.Place{What: directive.Drain}, By: "ann"}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kvRoster(t, queens[0]).Put(t.Context(), directive.Key("h"), b); err != nil {
		t.Fatal(err)
	}
	if ev := waitStored(t, nc, hivebeat.KindDrained, "h", ""); ev.ID != "h.!op.5" || ev.Data.Asker != "ann" {
		t.Errorf("%+v", ev)
	}
	for _, q := range queens {
		q.picks(api.Request{})
		q.eventually("it has published it", func() bool {
			open := true
			_ = q.do(t.Context(), func(now time.Time) { body, _ := q.directives.Event("h", now); open = body != nil })
			return !open
		})
	}
	if n := drainsStored(t, nc); n != 1 {
		t.Errorf("%d events are stored", n)
	}
}

// What is silenced dies as ever: it is shown and its event stored, but marked, and the counters for alerts leave it out.
func TestSilence(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	queens := []*runningQueen{startQueen(t, bustest.Conn(t, srv), Config{ID: "q0"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})}
	for _, q := range queens {
		q.warm()
	}
	hives := map[string]*testHive{}
	for _, id := range []string{"silenced", "partly", "loud"} {
		a, b := serves("a"), serves("b")
		a.N, b.N = 0, 0
		transition(&a, hivebeat.KindJoined, "alive")
		transition(&b, hivebeat.KindJoined, "alive")
		hives[id] = startHive(t, bustest.Conn(t, srv), id, short, a, b)
	}
	for _, q := range queens {
		q.eventually("all are known", func() bool {
			s := q.ask(api.VerbSummary, api.Request{}).Summary
			return s != nil && s.Workers[hivebeat.Alive] == 6
		})
	}
	for _, r := range []api.Request{{Hive: "silenced", During: 3_600_000, Reason: "reboot"}, {Hive: "partly", Worker: "a", During: 3_600_000}} {
		if a := requestAt(t, nc, "queen.as.ann.silence", r); a.Error != nil || a.Directive.What != "silence" || a.Directive.By != "ann" || a.Directive.Left == 0 {
			t.Fatalf("%+v", a)
		}
	}
	for _, c := range []struct{ hive, worker, of string }{{"silenced", "a", "hive"}, {"partly", "a", "worker"}, {"partly", "b", ""}, {"loud", "a", ""}} {
		for _, q := range queens {
			bustest.Eventually(t, patience, func() (bool, string) {
				a := q.ask(api.VerbWorker, api.Request{Hive: c.hive, Worker: c.worker})
				is := a.Workers[0].Silenced
				return c.of == "" && is == nil || is != nil && is.Of == c.of && is.By == "ann", fmt.Sprintf("%s/%s: %+v", c.hive, c.worker, is)
			})
		}
	}
	if got, _ := queens[0].picked(api.Request{}); len(got) != 6 {
		t.Errorf("a silence takes nothing out of a pick: %v", got)
	}

	// A worker of each dies, and after it each hive.
	for _, id := range []string{"silenced", "partly", "loud"} {
		hives[id].send(func(s *hivebeat.Snapshot) {
			for i := range s.Workers {
				w := &s.Workers[i]
				transition(w, hivebeat.KindLost, "lost")
				w.Live, w.Cause = hivebeat.Lost, hivebeat.CauseExit
				w.Tr[len(w.Tr)-1].Cause = w.Cause
			}
		})
		for worker, want := range map[string]bool{"a": id != "loud", "b": id == "silenced"} {
			if ev := waitStored(t, nc, hivebeat.KindLost, id, worker); ev.Data.Silenced != want {
				t.Errorf("%s/%s: %+v", id, worker, ev.Data)
			}
		}
		if ev := waitStored(t, nc, hivebeat.KindJoined, id, "a"); ev.Data.Silenced {
			t.Errorf("%+v", ev.Data)
		}
		hives[id].kill()
	}
	for id, want := range map[string]bool{"silenced": true, "partly": false, "loud": false} {
		if ev := waitStored(t, nc, hivebeat.KindLost, id, ""); ev.Data.Silenced != want {
			t.Errorf("%s: %+v", id, ev.Data)
		}
		if ev := waitStored(t, nc, hivebeat.KindLate, id, ""); ev.Data.Silenced != want {
			t.Errorf("%s: %+v", id, ev.Data)
		}
	}
	for _, q := range queens {
		q.eventually("all are lost", func() bool { return q.ask(api.VerbSummary, api.Request{}).Summary.Hives[hivebeat.Lost] == 3 })
		r, err := q.Report(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if h, w := r.HiveTransitions, r.WorkerTransitions; h.Kinds[hivebeat.KindLost] != 2 || h.Lost[hivebeat.CauseMissed] != 2 || w.Kinds[hivebeat.KindLost] != 3 || w.Lost[hivebeat.CauseExit] != 3 || w.Kinds[hivebeat.KindJoined] != 6 {
			t.Errorf("%s: it counts %+v and %+v", q.cfg.ID, h, w)
		}
	}

	// The end of a silence is an event, and what happens after it has no mark.
	if a := requestAt(t, nc, "queen.as.bob.unsilence", api.Request{Hive: "silenced"}); a.Error != nil || a.Directive.Reason != "reboot" {
		t.Errorf("%+v", a)
	}
	if ev := waitStored(t, nc, hivebeat.KindUnsilenced, "silenced", ""); ev.Data.Asker != "bob" || ev.Data.Reason != "it was silenced by ann: reboot" {
		t.Errorf("%+v", ev.Data)
	}
	if ev := waitStored(t, nc, hivebeat.KindSilenced, "partly", "a"); ev.Data.Asker != "ann" || ev.Data.DuringMS == nil || *ev.Data.DuringMS != 3_600_000 {
		t.Errorf("%+v", ev.Data)
	}
	hives["silenced"].send(func(s *hivebeat.Snapshot) { s.Inc++; s.Seq = 0 })
	hives["silenced"].bye("over")
	if ev := waitStored(t, nc, hivebeat.KindLeft, "silenced", ""); ev.Data.Silenced {
		t.Errorf("%+v", ev.Data)
	}
	for _, c := range []struct {
		r          api.Request
		verb, says string
	}{
		{api.Request{Hive: "partly"}, api.VerbSilence, "silence needs during"},
		{api.Request{Hive: "partly", During: 604_800_001}, api.VerbSilence, "silence needs during, at most 604800000"},
		{api.Request{Hive: "partly", GPU: "x", During: 1000}, api.VerbSilence, `silence does not take the key "gpu"`},
		{api.Request{Hive: "loud", Worker: "a"}, api.VerbUnsilence, "worker a of loud is not silenced"},
	} {
		if a := queens[0].ask(c.verb, c.r); a.Error == nil || !strings.Contains(a.Error.Message, c.says) {
			t.Errorf("%s %+v: %+v", c.verb, c.r, a.Error)
		}
	}
}
