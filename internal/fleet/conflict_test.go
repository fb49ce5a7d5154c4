package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// twinHives are two hives with one id. They send every 15 s and answer roll calls once in
// 5 s, each by the clock of its machine.
type twinHives struct {
	t     *testing.T
	v     *View
	list  []*hivebeat.Snapshot
	next  []time.Duration
	last  []time.Duration // when it answered
	found []time.Duration
	calls []time.Duration
	seek  []string
}

func (w *twinHives) begins(inc uint64, host string, pid uint64, conn string, at time.Duration) {
	s := snapshotOf("h", inc, 0)
	s.Host.Name, s.PID, s.Conn = host, pid, conn
	w.list, w.next, w.last = append(w.list, s), append(w.next, at), append(w.last, -time.Hour)
}

func (w *twinHives) run(from, until time.Duration) {
	for now := from; now < until; now += 50 * time.Millisecond {
		for i, s := range w.list {
			if now < w.next[i] {
				continue
			}
			w.next[i] = now + 13500*time.Millisecond
			s.Seq++
			s.Sent = int64(i)*7_654_321 + 1_000_000 + now.Milliseconds()
			_ = feed(w.t, w.v, s, epoch.Add(now))
		}
		w.v.Tick(epoch.Add(now))
		r := w.v.Take()
		for _, c := range r.Checks {
			w.v.Checked(c, 0, 0, epoch.Add(now))
		}
		for _, s := range r.Steps {
			if s.Kind == hivebeat.KindConflict {
				w.found = append(w.found, now)
			}
		}
		w.seek = append(w.seek, r.Seek...)
		for _, c := range r.Calls {
			if c.Hive != "h" || c.Workers {
				continue
			}
			w.calls = append(w.calls, now)
			for i, s := range w.list {
				if s.Seq > 0 {
					w.next[i] = min(w.next[i], max(now+time.Duration(1+i)*100*time.Millisecond, w.last[i]+5*time.Second))
					w.last[i] = w.next[i]
				}
			}
		}
	}
}

// Two hives with one id are reported within 10 s, with the places where they run.
func TestTwoHivesWithOneID(t *testing.T) {
	for name, inc := range map[string]uint64{"a clock that is right": 200, "one that is behind": 50} {
		t.Run(name, func(t *testing.T) {
			w := &twinHives{t: t, v: New(45 * time.Second)}
			w.begins(100, "gpu-01", 7, "S/1", 0)
			w.begins(inc, "gpu-02", 8, "S/2", 100*time.Second)
			w.run(0, 110*time.Second)
			if len(w.found) != 1 || len(w.calls) > 3 {
				t.Fatalf("told at %v, after roll calls at %v", w.found, w.calls)
			}
			h := w.v.Hive("h")
			believed, refused := h.Places()
			a, b := hivebeat.Place{Inc: 100, Host: "gpu-01", PID: 7, Conn: "S/1"}, hivebeat.Place{Inc: inc, Host: "gpu-02", PID: 8, Conn: "S/2"}
			if inc > 100 {
				a, b = b, a
			}
			if believed != a || refused != b {
				t.Errorf("run at %+v and %+v", believed, refused)
			}
			if len(w.seek) < 2 {
				t.Errorf("asks for the addresses of %v", w.seek)
			}
			at := epoch.Add(110 * time.Second)
			w.v.Located("S/1", "192.0.2.1:1", at)
			w.v.Located("S/2", "192.0.2.2:2", at)
			kind, to, ok := h.Difference(at)
			for ok && kind != hivebeat.KindConflict { // events that were not announced before
				d, next := h.Next(kind, to, at)
				h.roster.Item.RosterEntry = next
				_ = d
				kind, to, ok = h.Difference(at)
			}
			if !ok {
				t.Fatal("the conflict is not to be told")
			}
			d, _ := h.Next(kind, to, at)
			if d.Believed == nil || d.Refused == nil || d.Believed.Addr == "" || d.Refused.Addr == "" || d.Believed.Conn != a.Conn {
				t.Errorf("told: %+v, %+v", d.Believed, d.Refused)
			}
			for _, want := range []string{"host gpu-01, pid 7, connection S/1, from 192.0.2.1:1", "host gpu-02, pid 8, connection S/2, from 192.0.2.2:2"} {
				if !strings.Contains(d.Reason, want) {
					t.Errorf("%q is not in %s", want, d.Reason)
				}
			}
			w.run(110*time.Second, 300*time.Second)
			if len(w.found) != 1 || len(w.calls) > 3 || h.Conflicting(epoch.Add(300*time.Second)) == 0 {
				t.Errorf("told at %v, after roll calls at %v", w.found, w.calls)
			}
		})
	}
}

// A hive that restarts without a goodbye is called once, and answers alone. If many restart
// at once, few are called.
func TestHivesThatWereKilledAndStartedAgain(t *testing.T) {
	w := &twinHives{t: t, v: New(45 * time.Second)}
	w.begins(100, "gpu-01", 7, "S/1", 0)
	w.run(0, 60*time.Second)
	w.list, w.next, w.last = nil, nil, nil
	w.begins(200, "gpu-01", 8, "S/2", 60*time.Second)
	w.run(60*time.Second, 300*time.Second)
	if len(w.found) > 0 || len(w.calls) != 1 {
		t.Errorf("told at %v, roll calls at %v", w.found, w.calls)
	}

	v := New(45 * time.Second)
	const hives = 500
	for inc := uint64(100); inc <= 200; inc += 100 {
		for i := range hives {
			mustFeed(t, v, snapshotOf("h"+string(rune('a'+i%26))+string(rune('a'+i/26)), inc, 1), at(float64(inc)/10+float64(i)/hives))
			v.Tick(at(float64(inc)/10 + float64(i)/hives))
		}
	}
	if n := len(v.Take().Calls); n < 5 || n > 11 {
		t.Errorf("%d roll calls of %d hives that began again within a second", n, hives)
	}
	if v.twins.Len() > 0 {
		t.Errorf("%d wait", v.twins.Len())
	}
}
