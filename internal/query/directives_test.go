package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/directive"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

func drain(worker string, left time.Duration) directive.Directive {
	return directive.Directive{Place: directive.Place{What: directive.Drain, Worker: worker}, By: "ann", Left: hivebeat.MillisOf(left)}
}

func entryOf(epoch int64, rev, n uint64, stored time.Duration, list ...directive.Directive) directive.Item {
	return directive.Item{Entry: directive.Entry{V: 1, N: n, Directives: list}, Epoch: epoch, Revision: rev, Stored: stored}
}

// What is in force follows the entries as they are read: the later one in a bucket, the one with the higher n in another.
func TestDirectivesLearn(t *testing.T) {
	bad := func(rev uint64) directive.Item { return directive.Item{Epoch: 1, Revision: rev, Bad: true} }
	for _, c := range []struct {
		name  string
		items []directive.Item
		want  string // workers that are drained, n, revision, and whether it is to be put again
	}{
		{"later", []directive.Item{entryOf(1, 5, 1, 0, drain("a", 0)), entryOf(1, 7, 2, 0, drain("b", 0))}, "b 2 7 false"},
		{"late", []directive.Item{entryOf(1, 7, 2, 0, drain("b", 0)), entryOf(1, 5, 1, 0, drain("a", 0))}, "b 2 7 false"},
		{"by hand", []directive.Item{entryOf(1, 5, 9, 0, drain("a", 0)), entryOf(1, 7, 2, 0, drain("b", 0))}, "b 2 7 false"},
		{"removed", []directive.Item{entryOf(1, 5, 1, 0, drain("a", 0)), {Epoch: 1, Revision: 6, Gone: true}}, " 1 6 false"},
		{"ran out", []directive.Item{entryOf(1, 5, 1, 0, drain("a", 0)), {Epoch: 1, Gone: true}}, "a 1 0 true"},
		{"bad", []directive.Item{entryOf(1, 5, 1, 0, drain("a", 0)), bad(6)}, "a 1 6 true"},
		{"bad at first", []directive.Item{bad(6)}, " 1 6 false"},
		{"no entry", []directive.Item{{Epoch: 1, Gone: true}}, " 0 0 false"},
		{"over when read", []directive.Item{entryOf(1, 5, 1, 20*time.Second, drain("a", 10*time.Second), drain("b", 30*time.Second))}, "b 1 5 false"},
		{"another bucket, empty", []directive.Item{entryOf(1, 5, 3, 0, drain("a", 0)), {Epoch: 2, Gone: true}}, "a 3 0 true"},
		{"another bucket, as before", []directive.Item{entryOf(1, 5, 3, 0, drain("a", 0)), entryOf(2, 1, 3, 0, drain("a", 0))}, "a 3 1 false"},
		{"another bucket, newer", []directive.Item{entryOf(1, 5, 3, 0, drain("a", 0)), entryOf(2, 1, 4, 0, drain("b", 0))}, "b 4 1 false"},
		{"another bucket, by a queen that knew less", []directive.Item{entryOf(1, 5, 3, 0, drain("a", 0)), entryOf(2, 1, 1, 0, drain("b", 0))}, "a,b 3 1 true"},
		{"the bucket before", []directive.Item{entryOf(2, 1, 1, 0, drain("b", 0)), entryOf(1, 5, 3, 0, drain("a", 0))}, "b 1 1 false"},
	} {
		v := newView()
		feed(t, v, snapshotOf("h", "", 1, workerOf("a", "m", 4, 0), workerOf("b", "m", 4, 0)), at(0))
		var s Directives
		for _, item := range c.items {
			s.Learn(v.Index(), "h", item, at(1))
		}
		v.Settle(at(1))
		if err := verify(v, at(1)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var names []string
		for _, w := range v.Index().Hive("h").Workers() {
			if w.Drain() != nil {
				names = append(names, w.ID())
			}
		}
		e, rev := s.Entry("h", at(1))
		if got := fmt.Sprint(strings.Join(names, ","), " ", e.N, " ", rev, " ", s.Due(v.Index(), "h", at(1))); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
}

// A directive ends by itself; an old entry is put again while its hive is known, with the time that is left.
func TestDirectivesEnd(t *testing.T) {
	v := newView()
	feed(t, v, snapshotOf("h", "", 1, workerOf("a", "m", 4, 0)), at(0))
	var s Directives
	s.Learn(v.Index(), "h", entryOf(1, 5, 1, 0, drain("a", 30*time.Hour), drain("", 40*time.Second)), at(0))
	s.Learn(v.Index(), "away", entryOf(1, 6, 1, 0, drain("", 0)), at(0))
	if e, _ := s.Entry("h", at(10)); len(e.Directives) != 2 || e.Directives[1].Left != 30_000 || e.Directives[1].Since != 10_000 || e.N != 1 || e.Event != nil {
		t.Errorf("%+v", e)
	}
	s.Expire(v.Index(), at(39))
	if v.Index().Hive("h").Drain() == nil {
		t.Error("it ended early")
	}
	s.Expire(v.Index(), at(40))
	if v.Index().Hive("h").Drain() != nil {
		t.Error("it has not ended")
	}
	hours := 21 * 3600.0
	for when, want := range map[float64]string{40: "[] []", hours: "[h] []"} {
		put, publish := s.Todo(v.Index(), true, at(when))
		if got := fmt.Sprint(put, " ", publish); got != want {
			t.Errorf("at %v: %s, not %s", when, got, want)
		}
	}
	if e, _ := s.Entry("h", at(hours)); len(e.Directives) != 1 || e.Directives[0].Left != hivebeat.MillisOf(9*time.Hour) {
		t.Errorf("%+v", e)
	}
}

// The event of an entry is published while it is young, once.
func TestDirectivesEvent(t *testing.T) {
	v := newView()
	var s Directives
	item := entryOf(1, 5, 4, 49*time.Minute, drain("", 0))
	item.Event = []byte(`{}`)
	s.Learn(v.Index(), "h", item, at(0))
	if _, publish := s.Todo(v.Index(), false, at(0)); !slices.Equal(publish, []string{"h"}) {
		t.Errorf("%v", publish)
	}
	if body, age := s.Event("h", at(0)); body == nil || age != 49*time.Minute {
		t.Errorf("%s %v", body, age)
	}
	if body, _ := s.Event("h", at(120)); body != nil {
		t.Error("it is too old")
	}
	s.Published("h", 3)
	if body, _ := s.Event("h", at(0)); body == nil {
		t.Error("another change was published")
	}
	s.Published("h", 4)
	if body, _ := s.Event("h", at(0)); body != nil {
		t.Error("it was published")
	}
	item.Revision, item.Stored = 6, 51*time.Minute
	s.Learn(v.Index(), "h", item, at(0))
	if body, _ := s.Event("h", at(0)); body != nil {
		t.Error("it was too old when it was read")
	}
}

// A watcher hears of a drain of its hive and workers, and of its end.
func TestDrainIsAChange(t *testing.T) {
	v := newView()
	feed(t, v, snapshotOf("h", "", 1, workerOf("a", "m", 4, 0), workerOf("b", "m", 4, 0)), at(0))
	var s Directives
	rev := v.Index().Rev()
	changed := func() (list []string) {
		v.Index().Changed(rev, func(h *index.Hive, w *index.Worker, _, key uint64) bool {
			if key > rev {
				id := h.ID()
				if w != nil {
					id += "/" + w.ID()
				}
				list = append(list, id)
			}
			return true
		})
		rev = v.Index().Rev()
		slices.Sort(list)
		return list
	}
	for i, c := range []struct {
		list []directive.Directive
		want string
	}{
		{[]directive.Directive{drain("a", 0)}, "[h h/a]"},
		{[]directive.Directive{drain("a", 0)}, "[]"}, // put again
		{[]directive.Directive{drain("", 0)}, "[h h/a h/b]"},
		{nil, "[h h/a h/b]"},
	} {
		s.Learn(v.Index(), "h", entryOf(1, uint64(i+1), uint64(i+1), 0, c.list...), at(1))
		if got := fmt.Sprint(changed()); got != c.want {
			t.Errorf("%v: %s changed, not %s", c.list, got, c.want)
		}
	}
}

// There is a most that one hive can have, and the request says so.
func TestTooManyDrains(t *testing.T) {
	v := newView()
	feed(t, v, snapshotOf("h", "", 1, workerOf("a", "m", 4, 0)), at(0))
	var s Directives
	var list []directive.Directive
	for i := range directive.Max {
		list = append(list, drain(fmt.Sprint("w", i), 0))
	}
	s.Learn(v.Index(), "h", entryOf(1, 5, 1, 0, list...), at(0))
	if _, refused := s.Change(v.Index(), api.VerbDrain, "ann", &api.Request{Hive: "h", Worker: "a"}, at(1)); refused == nil || refused.Code != api.CodeBadRequest || !strings.Contains(refused.Message, "has 200 drains") {
		t.Errorf("%+v", refused)
	}
	if c, refused := s.Change(v.Index(), api.VerbUndrain, "ann", &api.Request{Hive: "h", Worker: "w7"}, at(1)); refused != nil || len(c.Entry.Directives) != directive.Max-1 || c.Entry.N != 2 || c.Rev != 5 {
		t.Errorf("%+v %+v", c, refused)
	}
}
