package queen

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A requested list is present even if it is empty, so that scripts can read it without
// a check. A list that was not requested is absent.
func TestEmptyListsAreThere(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{})
	q.warm()
	for verb, want := range map[string][]string{
		api.VerbHives: {"hives"}, api.VerbWorkers: {"workers"}, api.VerbEvents: {"events"}, api.VerbHolds: {"holds"},
		api.VerbPick: {"passed", "picks"}, api.VerbSummary: {}, api.VerbWatch: {},
	} {
		m, err := nc.Request("queen.api."+verb, nil, patience)
		if err != nil {
			t.Fatal(err)
		}
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(m.Data, &keys); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, key := range []string{"hives", "workers", "events", "holds", "picks", "passed"} {
			if v, ok := keys[key]; ok {
				got[key] = string(v)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s answers %s", verb, m.Data)
		}
		for _, key := range want {
			if empty := map[bool]string{true: "{}"}[key == "passed"]; got[key] != cmp.Or(empty, "[]") {
				t.Errorf("%s answers %s: %q", verb, key, got[key])
			}
		}
	}

	// An error has no list.
	m, err := nc.Request("queen.api.hives", []byte(`{"limit":5000}`), patience)
	if err != nil || strings.Contains(string(m.Data), `"hives"`) {
		t.Errorf("%s, %v", m.Data, err)
	}
}

// On a known hive it is possible that nothing fits; an unknown hive is an error.
func TestPickOnAHiveThatIsNotThere(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	q := startQueen(t, bustest.Conn(t, srv), Config{})
	q.warm()
	startHive(t, bustest.Conn(t, srv), "h", time.Minute)
	q.eventually("heard", func() bool { return q.live("h") != "" })
	for _, r := range []api.Request{{}, {Hold: "job-1"}, {For: api.ForGPU}} {
		verb := api.VerbPick
		if r.Hold != "" {
			verb = api.VerbHold
		}
		r.Hive = "h"
		if a := q.ask(verb, r); a.Error != nil || a.Picks == nil || len(a.Picks) != 0 {
			t.Errorf("%+v: %+v, %v", r, a.Picks, a.Error)
		}
		r.Hive = "none"
		a := q.Answer(t.Context(), verb, r)
		if a.Error == nil || a.Error.Code != api.CodeNotFound || a.Error.Message != "no hive none is known" || a.Status.Queen == "" {
			t.Errorf("%+v: %+v", r, a)
		}
	}
}

// A queen is discoverable as a service before it answers, so that a client can tell it
// from no queen. On an overloaded machine it may be warm by the time it is found.
func TestFoundBeforeItAnswers(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	for try := range 5 {
		id := fmt.Sprintf("q%d", try)
		q := startQueen(t, bustest.Conn(t, srv), Config{ID: id, Prefix: "acme", NoJetStream: true})
		var p micro.Ping
		bustest.Eventually(t, patience, func() (bool, string) {
			m, err := nc.Request("$SRV.PING.queen."+id, nil, patience)
			return err == nil && json.Unmarshal(m.Data, &p) == nil, fmt.Sprint(err)
		})
		early := !q.Answer(t.Context(), api.VerbSummary, api.Request{}).Status.Warm
		var info micro.Info
		m, err := nc.Request("$SRV.INFO.queen."+id, nil, patience)
		if err != nil || json.Unmarshal(m.Data, &info) != nil || len(info.Endpoints) != len(api.Verbs()) {
			t.Errorf("%v, %+v", err, info)
		}
		if p.ID != id || p.Metadata["prefix"] != "acme" {
			t.Errorf("%+v", p)
		}
		q.eventually("warm", func() bool { return q.Answer(t.Context(), api.VerbSummary, api.Request{}).Status.Warm })
		bustest.Eventually(t, patience, func() (bool, string) { // its subscriptions may not have reached the server yet
			_, err := nc.Request("acme.queen.api.summary", nil, patience)
			return err == nil, fmt.Sprint(err)
		})
		if early {
			return
		}
		q.stop()
	}
	t.Error("no queen was found before it was warm")
}
