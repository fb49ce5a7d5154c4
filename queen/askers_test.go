package queen

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// requestAt sends a request on a subject.
func requestAt(t *testing.T, nc *nats.Conn, subject string, r api.Request) (a api.Answer) {
	t.Helper()
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request(subject, body, patience)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		t.Fatalf("%s: %v in %s", subject, err, m.Data)
	}
	return a
}

// Each of three queens answers each verb on its own subjects, and one of them answers
// on the shared subjects. The answer names its asker.
func TestEachQueenCanBeAddressed(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	subjects, err := hivebeat.NewSubjects("acme")
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{"q1", "q2", "q3"}
	for _, id := range ids {
		q := startQueen(t, bustest.Conn(t, srv), Config{ID: id, Prefix: "acme"})
		q.warm()
		q.eventually("it serves", func() bool {
			_, err := nc.Request(subjects.Ask("", api.VerbSummary, id), nil, patience)
			return err == nil
		})
	}
	requests := map[string]api.Request{
		api.VerbHive: {Hive: "h"}, api.VerbWorker: {Hive: "h", Worker: "w"}, api.VerbHold: {Hold: "job"}, api.VerbRelease: {Hold: "job"}, api.VerbForget: {Hive: "h", GPU: "GPU-3"},
		api.VerbDrain: {Hive: "h"}, api.VerbUndrain: {Hive: "h"}, api.VerbSilence: {Hive: "h", During: 1000}, api.VerbUnsilence: {Hive: "h"},
	}
	for _, verb := range api.Verbs() {
		for _, asker := range []string{"", "ann"} {
			shared, want := subjects.Ask(asker, verb, ""), cmp.Or(asker, "anyone")
			if a := requestAt(t, nc, shared, requests[verb]); a.Status.Asker != want {
				t.Errorf("%s: %+v", shared, a.Status)
			}
			for _, id := range ids {
				a := requestAt(t, nc, subjects.Ask(asker, verb, id), requests[verb])
				if a.Status.Queen != id || a.Status.Asker != want || a.Error != nil && a.Error.Code != api.CodeNotFound {
					t.Errorf("%s.%s: %+v, %+v", shared, id, a.Status, a.Error)
				}
			}
			if _, err := nc.Request(shared+".q4", nil, patience); err == nil {
				t.Errorf("%s.q4: a queen that is not there answers", shared)
			}
		}
	}

	for _, asker := range []string{"a$b", "größe", strings.Repeat("x", 65)} {
		for _, subject := range []string{subjects.Ask(asker, api.VerbHold, ""), subjects.Ask(asker, api.VerbSummary, "q1")} {
			a := requestAt(t, nc, subject, api.Request{})
			if a.Error == nil || a.Error.Code != api.CodeBadRequest || !strings.Contains(a.Error.Message, "asker") || a.Status.Asker != api.Anyone {
				t.Errorf("%s: %+v", subject, a)
			}
		}
	}
	// An asker in the JSON is not believed; the request is refused.
	m, err := nc.Request(subjects.API(api.VerbHolds), []byte(`{"asker":"ann"}`), patience)
	if err != nil || !strings.Contains(string(m.Data), `unknown key`) {
		t.Errorf("%s, %v", m.Data, err)
	}

	var info micro.Info
	if m, err = nc.Request("$SRV.INFO.queen.q2", nil, patience); err == nil {
		err = json.Unmarshal(m.Data, &info)
	}
	if err != nil || len(info.Endpoints) != len(api.Verbs()) {
		t.Fatalf("%+v, %v", info, err)
	}
	e := info.Endpoints[0]
	if more := e.Metadata; e.Subject != "acme.queen.api.summary" || more["addressed"] != "acme.queen.api.summary.q2" ||
		more["pinned"] != "acme.queen.as.*.summary" || more["addressed_pinned"] != "acme.queen.as.*.summary.q2" {
		t.Errorf("%+v", e)
	}
}

// Askers that use the same id have separate holds: none can touch another's, at any
// queen.
func TestHoldsAreTheirAskers(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	var s hivebeat.Subjects
	var queens []*runningQueen
	for _, id := range []string{"q1", "q2"} {
		q := startQueen(t, bustest.Conn(t, srv), Config{ID: id})
		q.warm()
		queens = append(queens, q)
	}
	startHive(t, bustest.Conn(t, srv), "h", time.Minute, slotted("w1", 1), slotted("w2", 1))
	for _, q := range queens {
		q.eventually("heard", func() bool { return q.live("h") == hivebeat.Alive })
	}
	// known waits until both queens know n holds.
	known := func(n int) (list []api.Hold) {
		t.Helper()
		for _, q := range queens {
			q.eventually(fmt.Sprintf("%d holds are known", n), func() bool {
				list = q.ask(api.VerbHolds, api.Request{}).Holds
				return len(list) == n
			})
		}
		return list
	}
	ask := func(asker, verb, queen string, hold hivebeat.Millis) api.Answer {
		t.Helper()
		return requestAt(t, nc, s.Ask(asker, verb, queen), api.Request{Hold: "job", HoldMS: hold})
	}

	a := ask("ann", api.VerbHold, "q1", 60_000)
	if len(a.Picks) != 1 || a.Picks[0].Hold != "job" || a.Picks[0].Asker != "ann" {
		t.Fatalf("%+v", a)
	}
	anns := a.Picks[0].Worker
	if list := known(1); list[0].Asker != "ann" || list[0].ID != "job" || list[0].Worker != anns {
		t.Errorf("%+v", list)
	}
	for _, other := range []string{"bob", ""} {
		for _, q := range queens {
			if a := ask(other, api.VerbRelease, q.cfg.ID, 0); a.Error == nil || a.Error.Code != api.CodeNotFound {
				t.Errorf("%q releases ann's hold at %s: %+v", other, q.cfg.ID, a)
			}
		}
	}
	// The same id of another asker is another hold, on the other place.
	a = ask("bob", api.VerbHold, "q2", 600_000)
	if len(a.Picks) != 1 || a.Picks[0].Worker == anns || a.Picks[0].Asker != "bob" {
		t.Fatalf("%+v", a)
	}
	known(2)
	// There is no third place, and the request does not extend the holds of the others.
	if a = ask("", api.VerbHold, "q1", 600_000); a.Error != nil || len(a.Picks) != 0 || a.Passed["held"] != 2 {
		t.Errorf("%+v", a)
	}
	for _, h := range known(2) {
		if h.Asker == "ann" && h.Left > 60_000 {
			t.Errorf("another asker renewed it: %+v", h)
		}
	}
	if a = ask("ann", api.VerbHold, "q2", 600_000); len(a.Picks) != 1 || a.Picks[0].Worker != anns || a.Picks[0].Asker != "ann" {
		t.Errorf("ann's own, asked again: %+v", a)
	}
	if a = ask("ann", api.VerbRelease, "q2", 0); a.Error != nil || len(a.Holds) != 1 || a.Holds[0].Asker != "ann" || a.Holds[0].Worker != anns {
		t.Errorf("%+v", a)
	}
	if list := known(1); list[0].Asker != "bob" {
		t.Errorf("%+v", list)
	}
	// An asker named anyone is the same as a request without a name.
	if a = ask("", api.VerbHold, "q1", 0); len(a.Picks) != 1 || a.Picks[0].Asker != api.Anyone {
		t.Errorf("%+v", a)
	}
	known(2)
	if a = ask("anyone", api.VerbRelease, "q2", 0); a.Error != nil || len(a.Holds) != 1 {
		t.Errorf("%+v", a)
	}

	// The bucket stores the owner of each hold, except for those of anyone.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), hivebeat.BucketHolds)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "w.h."+anns, []byte(`{"v":1,"holds":[{"id":"job","n":1,"left":60000},{"id":"x","asker":"a.b","n":1,"left":60000}]}`)); err != nil {
		t.Fatal(err)
	}
	list := known(2)
	if list[0].Asker != api.Anyone || list[1].Asker != "bob" {
		t.Errorf("%+v", list)
	}
	if a = ask("", api.VerbRelease, "q1", 0); a.Error != nil || len(a.Holds) != 1 || a.Holds[0].Worker != anns {
		t.Errorf("%+v", a)
	}
}
