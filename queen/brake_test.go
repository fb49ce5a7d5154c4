package queen

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// TestMassDeathIsNotBelieved kills all twelve hives of a zone. Two queens hold them,
// call their roll, and announce it once. Hives that answer are alive; the others are
// lost in the end.
func TestMassDeathIsNotBelieved(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	q, q2 := startQueen(t, nc, Config{ID: "q1"}), startQueen(t, bustest.Conn(t, srv), Config{ID: "q2"})
	q.warm()
	q2.warm()

	hives := make(map[string]*testHive)
	hiveConn := bustest.Conn(t, srv)
	for i := range 12 {
		id := fmt.Sprintf("eu-%02d", i)
		hives[id] = startHive(t, hiveConn, id, time.Second)
	}
	other := startHive(t, hiveConn, "us-00", time.Second)
	other.send(func(s *hivebeat.Snapshot) { s.Labels = map[string]string{"zone": "us"} })
	q.eventually("all alive", func() bool { return q.ask(api.VerbSummary, api.Request{}).Summary.Hives[hivebeat.Alive] == 13 })
	bustest.Eventually(t, patience, func() (bool, string) { // each lives for an interval, on average
		n := q.Stats().Snapshots
		return n >= 2*13, fmt.Sprint(n, " snapshots")
	})

	var mu sync.Mutex
	called := make(map[string]int)
	sub, err := bustest.Conn(t, srv).Subscribe("queen.rollcall.*", func(m *nats.Msg) {
		id := strings.TrimPrefix(m.Subject, "queen.rollcall.")
		mu.Lock()
		called[id]++
		first := called[id] == 1
		mu.Unlock()
		if id < "eu-03" && first { // these were only cut off, and answer from now on
			hives[id].send(nil)
			hives[id].revive()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	for _, h := range hives {
		h.kill()
	}
	var during api.Answer
	q.eventually("the brake is on", func() bool { during = q.ask(api.VerbSummary, api.Request{}); return len(during.Status.Brake) == 1 })
	if b := during.Status.Brake[0]; b.Zone != "eu" || b.Held < 4 || len(during.Status.Unsure) == 0 {
		t.Errorf("%+v", during.Status)
	}
	q.eventually("the brake is off", func() bool { return len(q.ask(api.VerbSummary, api.Request{}).Status.Brake) == 0 })
	bustest.Eventually(t, patience, func() (bool, string) {
		n := 0
		for id := range hives {
			if q.live(id) == hivebeat.Lost && q2.live(id) == hivebeat.Lost {
				n++
			}
		}
		return n == 9, fmt.Sprintf("%d lost", n)
	})
	for id := range hives {
		want := 1
		if id < "eu-03" {
			want = 0
		}
		bustest.Eventually(t, patience, func() (bool, string) {
			n := countStored(t, nc, hivebeat.KindLost, id)
			return n == want, fmt.Sprintf("%s was told as lost %d times, want %d", id, n, want)
		})
	}
	unverified := 0
	for id := range hives {
		unverified += len(events.of(hivebeat.KindUnverified, id, ""))
	}
	if unverified < 4 || unverified > 12 {
		t.Errorf("%d were told as unverified", unverified)
	}
	if q.live("us-00") != hivebeat.Alive || countStored(t, nc, hivebeat.KindLate, "us-00")+countStored(t, nc, hivebeat.KindUnverified, "us-00") > 0 {
		t.Errorf("the hive of the other zone is %s", q.live("us-00"))
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		told := brakesStored(t, nc)
		return len(told) >= 2 && told[len(told)-1] == "eu off", fmt.Sprint(told)
	})
	for _, r := range []*runningQueen{q, q2} {
		r.eventually("brake off", func() bool { return len(r.ask(api.VerbSummary, api.Request{}).Status.Brake) == 0 })
	}
	told := brakesStored(t, nc)
	for i, s := range told {
		if want := []string{"eu on", "eu off"}[i%2]; s != want {
			t.Errorf("told %v", told)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(called) < 4 || len(called) > 12 {
		t.Errorf("called: %v", slices.Sorted(maps.Keys(called)))
	}
	events.once(t)
}

func brakesStored(t testing.TB, nc *nats.Conn) (list []string) {
	t.Helper()
	all := storedEvents(t, nc)
	for n := uint64(1); ; n++ {
		ev, ok := all[fmt.Sprintf("brake.eu.%d", n)]
		if !ok {
			return list
		}
		if ev.Type != "hivebeat.fabric.brake.v1" || ev.Data.Reason == "" {
			t.Errorf("%+v", ev)
		}
		list = append(list, ev.Data.Zone+" "+ev.Data.To)
	}
}

func TestBrakeOff(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, nc, Config{BrakeOff: true})
	q.warm()
	var hives []*testHive
	for i := range 6 {
		hives = append(hives, startHive(t, nc, fmt.Sprintf("eu-%02d", i), time.Second))
	}
	q.eventually("all alive", func() bool { return q.ask(api.VerbSummary, api.Request{}).Summary.Hives[hivebeat.Alive] == 6 })
	for _, h := range hives {
		h.kill()
	}
	for i := range 6 {
		waitStored(t, nc, hivebeat.KindLost, fmt.Sprintf("eu-%02d", i), "")
	}
	if n := len(brakesStored(t, nc)); n > 0 {
		t.Errorf("%d brakes told", n)
	}
}

// TestAStoppedQueenKillsNobody stops the loop of a queen, and the hives with it, for
// longer than their permitted silence. Messages that waited meanwhile are of unknown
// age.
func TestAStoppedQueenKillsNobody(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, nc, Config{ID: "q1"})
	q.warm()
	hiveConn := bustest.Conn(t, srv)
	var hives []*testHive
	for i := range 3 {
		hives = append(hives, startHive(t, hiveConn, fmt.Sprintf("h%d", i), 2*time.Second))
	}
	q.eventually("all alive", func() bool { return q.ask(api.VerbSummary, api.Request{}).Summary.Hives[hivebeat.Alive] == 3 })
	const stopped = 8 * time.Second // 6 s would make them lost
	for _, h := range hives {
		h.kill()
	}
	var ages []hivebeat.Millis
	err := q.do(t.Context(), func(time.Time) {
		// The loop blocks as that of a stopped process does.
		<-time.After(stopped / 2)
		hives[0].send(nil) // one snapshot that waits, so that its age is unknown
		bustest.Flush(t, hiveConn)
		<-time.After(stopped / 2)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range q.ask(api.VerbHives, api.Request{}).Hives {
		ages = append(ages, h.Age)
		if h.Live != hivebeat.Alive && h.Live != hivebeat.Late {
			t.Errorf("%s is %s", h.Hive, h.Live)
		}
	}
	for _, h := range hives {
		h.revive()
	}
	if slices.Min(ages) < hivebeat.MillisOf(stopped) {
		t.Errorf("ages of %v: what waited for up to %v is shown as younger", ages, stopped)
	}
	q.logged("this queen was stopped or starved")
	q.logged("this queen hears again, and knows it")
	q.eventually("all alive again", func() bool { return q.ask(api.VerbSummary, api.Request{}).Summary.Hives[hivebeat.Alive] == 3 })
	if s := q.Stats(); s.SelfPause < stopped || s.Blind < stopped {
		t.Errorf("paused %v, credited %v", s.SelfPause, s.Blind)
	}
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Kind == hivebeat.KindLost {
			t.Errorf("lost: %+v", ev.Data)
		}
	}
}

// TestDroppedSnapshotsAreDoubted: a queen whose channel overflowed does not know which
// hives it missed.
func TestDroppedSnapshotsAreDoubted(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, nc, Config{ID: "q1", Pending: 8})
	q.warm()
	loud := startHive(t, bustest.Conn(t, srv), "loud", time.Minute)
	q.eventually("alive", func() bool { return q.live("loud") == hivebeat.Alive })
	before := q.Stats().Snapshots
	err := q.do(t.Context(), func(time.Time) {
		for range 100 {
			loud.send(nil)
		}
		bustest.Flush(t, loud.nc)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(5 * time.Second); q.countDropped() == 0 && time.Now().Before(end); {
			<-tick.C // the loop is blocked until messages are dropped
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	q.eventually("doubted, and sure again", func() bool {
		s := q.Stats()
		return s.Dropped > 0 && s.Blind > 0 && s.Snapshots > before && len(q.ask(api.VerbSummary, api.Request{}).Status.Unsure) == 0
	})
	if l := q.live("loud"); l != hivebeat.Alive {
		t.Errorf("%s", l)
	}
}
