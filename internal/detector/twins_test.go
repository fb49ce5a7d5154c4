package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
)

// twins are two workers with one id. They beat every 30 s and answer roll calls, each
// by the clock of its own machine.
type twins struct {
	*bench
	list  []*fake
	next  []time.Duration
	found []time.Duration // when conflicts were reported
	steps []Step
	calls int
}

// begins makes f start at the given time.
func (w *twins) begins(f *fake, at time.Duration) {
	w.list, w.next = append(w.list, f), append(w.next, at)
}

func (w *twins) run(until time.Duration) {
	for w.now.Sub(t0) < until {
		w.after(10 * time.Millisecond)
		now := w.now.Sub(t0)
		for i, f := range w.list {
			if now < w.next[i] {
				continue
			}
			w.next[i] = now + 27*second
			f.Seq++
			f.Sent = int64(i)*12_345_678 + 1_000_000 + now.Milliseconds()
			_ = w.feed(f.Bytes(w.t))
		}
		if w.AskTwins(w.now) {
			w.calls++
			for i, f := range w.list {
				if f.Seq > 0 { // it has begun
					w.next[i] = now + time.Duration(1+i)*200*time.Millisecond
				}
			}
		}
		for _, s := range w.TakeSteps() {
			if s.Kind == hivebeat.KindConflict {
				w.found, w.steps = append(w.found, now), append(w.steps, s)
			}
		}
	}
}

// Two workers with one id are reported within 10 s, with the places where they run.
func TestTwoWorkersWithOneID(t *testing.T) {
	for name, later := range map[string]uint64{"a clock that is right": 1, "one that is behind": ^uint64(0)} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			old, young := newFake("w"), newFake("w")
			young.Inc += later
			young.Host, young.PID, young.Conn = "gpu-02", 815, "NDXS/18"
			w := &twins{bench: b}
			w.begins(old, 0)
			w.begins(young, 100*second)
			w.run(100*second + 10*second)
			if len(w.found) != 1 || w.calls > 3 {
				t.Fatalf("told at %v, after %d roll calls", w.found, w.calls)
			}
			believed, other := old, young
			if later == 1 {
				believed, other = young, old
			}
			s := w.steps[0]
			if s.Inc != other.Inc {
				t.Errorf("it names %d, want %d, the one that is not believed", s.Inc, other.Inc)
			}
			for _, want := range []string{`as "gpu-01/w"`, "host gpu-01, pid 4711, connection NDXS/17)", "host gpu-02, pid 815, connection NDXS/18)"} {
				if !strings.Contains(s.Reason, want) {
					t.Errorf("%q is not in %s", want, s.Reason)
				}
			}
			seek := b.TakeSeek()
			if len(seek) < 2 {
				t.Errorf("asks for the addresses of %v", seek)
			}
			for i, want := range []bool{true, true, false} { // the third connection is nobody's
				conn, addr := fmt.Sprint("NDXS/", 17+i), fmt.Sprintf("192.0.2.%d:%d", i+1, i+1)
				if got := b.Located(conn, addr); got != want {
					t.Errorf("the address of %s is news: %t, want %t", conn, got, want)
				}
			}
			w.run(500 * second)
			r, _ := b.record("w")
			if len(w.found) != 1 || r.Rival != other.Inc || r.Inc != believed.Inc {
				t.Errorf("told %d times, and %+v", len(w.found), r)
			}
			at := hivebeat.Place{Inc: other.Inc, Host: other.Host, PID: other.PID, Conn: other.Conn, Addr: map[string]string{"NDXS/17": "192.0.2.1:1", "NDXS/18": "192.0.2.2:2"}[other.Conn]}
			if r.RivalAt != at || !strings.HasPrefix(r.Addr, "192.0.2.") || r.Addr == at.Addr {
				t.Errorf("the other one is at %+v, want %+v; this one at %s", r.RivalAt, at, r.Addr)
			}
			if w.calls > 3 {
				t.Errorf("%d roll calls", w.calls)
			}
		})
	}
}

// After a restart whose end was not observed, the roll is called once, and only the new
// process answers.
func TestARestartThatNobodySaw(t *testing.T) {
	b, f, again := newBench(t), newFake("w"), newFake("w")
	again.Inc++
	w := &twins{bench: b}
	w.begins(f, 0)
	w.run(60 * second)
	w.list, w.next = nil, nil
	w.begins(again, 60*second)
	w.run(300 * second)
	if len(w.found) > 0 || w.calls != 1 {
		t.Errorf("%d conflicts, %d roll calls", len(w.found), w.calls)
	}
	// If its end was observed, no roll call is needed.
	b, f, again = newBench(t), newFake("w"), newFake("w")
	b.WatchExits(f.NS, 1)
	again.Inc++
	w = &twins{bench: b}
	w.begins(f, 0)
	w.run(10 * second)
	b.Exit(b.now, Exit{Process: Process{"w", f.Inc, f.PID}, At: b.now})
	w.list, w.next = nil, nil
	w.begins(again, 11*second)
	w.run(60 * second)
	if len(w.found) > 0 || w.calls != 0 {
		t.Errorf("%d conflicts, %d roll calls of one whose process was seen to end", len(w.found), w.calls)
	}
}
