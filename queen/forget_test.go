package queen

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// A hive that is lost or left is forgotten by all queens, for good, with what was in force on it. If it returns, it has
// joined, under a number that was not used.
func TestForgetAHive(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	queens := []*runningQueen{startQueen(t, bustest.Conn(t, srv), Config{ID: "q0"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})}
	for _, q := range queens {
		q.warm()
	}
	w := serves("w")
	w.Every = 60_000 // so that it is lost with its hive only after a while
	dies, leaves := startHive(t, bustest.Conn(t, srv), "dies", short, w), startHive(t, bustest.Conn(t, srv), "leaves", short, serves("w"))
	waitStored(t, nc, hivebeat.KindJoined, "dies", "")
	waitStored(t, nc, hivebeat.KindJoined, "leaves", "")
	if a := requestAt(t, nc, "queen.as.ann.drain", api.Request{Hive: "dies"}); a.Error != nil {
		t.Fatalf("%+v", a.Error)
	}
	forget := func(hive string) api.Answer { return requestAt(t, nc, "queen.as.ann.forget", api.Request{Hive: hive}) }
	for _, c := range []struct{ hive, code, says string }{
		{"nobody", api.CodeNotFound, "no hive nobody is known"},
		{"dies", api.CodeBadRequest, "hive dies is alive: only one that is lost or left can be forgotten"},
		{"", api.CodeBadRequest, "hive is empty"},
	} {
		if a := forget(c.hive); a.Error == nil || a.Error.Code != c.code || !strings.Contains(a.Error.Message, c.says) {
			t.Errorf("%s: %+v", c.hive, a.Error)
		}
	}
	dies.kill()
	leaves.bye("over")
	lost := waitStored(t, nc, hivebeat.KindLost, "dies", "")
	waitStored(t, nc, hivebeat.KindLeft, "leaves", "")
	for _, id := range []string{"dies", "leaves"} {
		for _, q := range queens {
			q.eventually("it is gone for all", func() bool { l := q.live(id); return l == hivebeat.Lost || l == hivebeat.Left })
		}
		bustest.Eventually(t, patience, func() (bool, string) { // the verdict of the other queen may be on its way
			a := forget(id)
			return a.Error == nil && len(a.Hives) == 1 && a.Hives[0].Hive == id && (a.Hives[0].Live == hivebeat.Lost || a.Hives[0].Live == hivebeat.Left), fmt.Sprintf("%+v", a.Error)
		})
		for _, q := range queens {
			q.eventually("it is forgotten by both", func() bool { return q.live(id) == "" })
		}
		if ev := waitStored(t, nc, hivebeat.KindForgotten, id, ""); ev.Data.Asker != "ann" {
			t.Errorf("%+v", ev)
		}
		if a := forget(id); a.Error == nil || a.Error.Code != api.CodeNotFound {
			t.Errorf("again: %+v", a.Error)
		}
		if e, err := kvRoster(t, queens[0]).Get(t.Context(), id); err == nil {
			t.Errorf("the roster has %s", e.Value())
		}
	}
	for i, q := range queens { // also those that start now do not know it
		q.stop()
		queens[i] = startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)})
		queens[i].warm()
		if got := queens[i].live("dies"); got != "" {
			t.Errorf("a queen that has just started has it as %s", got)
		}
	}

	again := startHive(t, bustest.Conn(t, srv), "dies", 15*time.Second, serves("w"))
	var joined hivebeat.Event
	bustest.Eventually(t, patience, func() (bool, string) {
		n := 0
		for _, ev := range storedEvents(t, nc) {
			if d := ev.Data; d.Hive == "dies" && d.Worker == "" && d.Kind == hivebeat.KindJoined {
				if n++; d.Inc == again.snap.Inc {
					joined = ev
				}
			}
		}
		return n == 2, fmt.Sprintf("it has joined %d times, not twice", n)
	})
	if joined.Data.N <= lost.Data.N {
		t.Errorf("the number %d was used before: it was lost with %d", joined.Data.N, lost.Data.N)
	}
	for _, q := range queens {
		q.picks(api.Request{}, "dies/w") // and is drained no more
	}
}

// A hive whose workers still answer is not forgotten; nor is one without JetStream, or while that is away.
func TestForgetRefused(t *testing.T) {
	t.Parallel()
	none := bustest.Server(t, bustest.NoJetStream())
	plain := startQueen(t, bustest.Conn(t, none), Config{ID: "plain", NoJetStream: true})
	dying := startHive(t, bustest.Conn(t, none), "h", short)
	plain.eventually("the hive is heard", func() bool { return plain.live("h") == hivebeat.Alive })
	dying.kill()
	plain.eventually("warm, and the hive lost", func() bool {
		return plain.live("h") == hivebeat.Lost && plain.ask(api.VerbSummary, api.Request{}).Status.Warm
	})
	if a := plain.ask(api.VerbForget, api.Request{Hive: "h"}); a.Error == nil || a.Error.Code != api.CodeUnavailable {
		t.Errorf("%+v", a.Error)
	}

	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q1"})
	q.warm()
	h := startHive(t, bustest.Conn(t, srv), "h", short)
	waitStored(t, nc, hivebeat.KindJoined, "h", "")
	h.kill()
	waitStored(t, nc, hivebeat.KindLost, "h", "")

	// Another queen was first: the entry is a newer one than this queen knows.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), hivebeat.BucketRoster)
	if err != nil {
		t.Fatal(err)
	}
	_ = q.do(t.Context(), func(time.Time) { q.view.Hive("h").Roster().Item.Revision-- })
	if a := q.ask(api.VerbForget, api.Request{Hive: "h"}); a.Error == nil || a.Error.Code != api.CodeUnavailable || !strings.Contains(a.Error.Message, "another queen has just changed") {
		t.Errorf("%+v", a.Error)
	}
	if _, err := kv.Get(t.Context(), "h"); err != nil {
		t.Errorf("the entry: %v", err)
	}
	if q.live("h") != hivebeat.Lost {
		t.Error("it was forgotten")
	}
}
