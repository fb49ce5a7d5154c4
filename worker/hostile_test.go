package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

func TestRollCall(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	e := listen(t, nc)
	w := run(t, bustest.Conn(t, srv), Config{})
	first := e.wait(0, "the first beat", anyBeat)
	// The subscription to the roll call shows only in the counts.
	for _, bad := range []string{"-5", "soon", "1e9", "99999999999999999999", "\x00\xff", strings.Repeat("9", 1<<16)} {
		must(t, nc.Publish("hive.gpu-01.rollcall", []byte(bad)))
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		st := w.Stats()
		return st.Calls == 6 && st.BadCalls == 6, fmt.Sprintf("%+v", st)
	})
	if n := len(e.all()); n != 1 {
		t.Errorf("roll calls that are none were answered: %s", e)
	}
	begin := time.Now()
	must(t, nc.Publish("hive.gpu-01.rollcall", nil))
	answer := e.wait(1, "the answer", anyBeat)
	if answer.Seq != first.Seq+1 {
		t.Errorf("the answer: %+v", answer)
	}
	// A flood is answered once a second.
	for range 1000 {
		must(t, nc.Publish("hive.gpu-01.rollcall", []byte("0")))
	}
	must(t, nc.Flush())
	e.wait(2, "the answer to the flood", anyBeat)
	bustest.Eventually(t, patience, func() (bool, string) {
		st := w.Stats()
		return st.Calls >= 50, fmt.Sprintf("%+v", st)
	})
	if n, limit := len(e.all()), 2+1+int(time.Since(begin)/time.Second); n > limit {
		t.Errorf("%d beats for a flood of roll calls, at most %d are allowed: %s", n, limit, e)
	}
}

// A Facts function that panics, ends its goroutine, never returns, or returns facts
// that no beat may hold does not stop the beats: they continue with the last good
// facts.
func TestHostileFacts(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	release := make(chan struct{})
	// Runs after the end of the test, and lets the function that never returns return.
	t.Cleanup(func() { close(release) })
	for name, tc := range map[string]struct {
		misbehave func() Facts
		count     func(Stats) uint64
	}{
		"panic":  {func() Facts { panic("no driver") }, func(s Stats) uint64 { return s.FactsPanics }},
		"nil":    {func() Facts { var f *Facts; return *f }, func(s Stats) uint64 { return s.FactsPanics }},
		"exit":   {func() Facts { runtime.Goexit(); return Facts{} }, func(s Stats) uint64 { return s.FactsPanics }},
		"stuck":  {func() Facts { <-release; return Facts{} }, func(s Stats) uint64 { return s.FactsSlow }},
		"absurd": {func() Facts { return Facts{Model: "\xff"} }, func(s Stats) uint64 { return s.FactsRefused }},
	} {
		t.Run(name, func(t *testing.T) {
			e := listen(t, nc)
			var calls atomic.Int64
			w := run(t, nc, Config{ID: name, Every: 100 * time.Millisecond, Model: "m", Slots: 4, Facts: func() Facts {
				if calls.Add(1) == 1 {
					return Facts{Busy: 2}
				}
				return tc.misbehave()
			}})
			bustest.Eventually(t, patience, func() (bool, string) {
				return tc.count(w.Stats()) >= 3, fmt.Sprintf("%+v", w.Stats())
			})
			from := len(e.all())
			b := e.wait(from, "another beat", func(h heard) bool { return h.Worker == name })
			if b.Busy != 2 || b.Model != "m" || b.Slots != 4 {
				t.Errorf("not what was known before: %+v", b)
			}
			if err := w.Stop(t.Context()); err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	}
}

// A program that makes calls in hot loops from many goroutines causes no more beats
// than the schedule allows, all of them valid and in order.
func TestHotProgram(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	e := listen(t, bustest.Conn(t, srv))
	w := run(t, bustest.Conn(t, srv), Config{})
	e.wait(0, "the first beat", anyBeat)
	begin := time.Now()
	end := begin.Add(2 * time.Second)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				_ = w.SetState([]hivebeat.State{hivebeat.Degraded, hivebeat.Ready, hivebeat.Busy}[(n+i)%3], fmt.Sprint(n))
				_ = w.Update(func(f *Facts) { f.Done++ })
				w.Touch()
			}
		})
	}
	wg.Wait()
	must(t, w.Stop(t.Context()))
	e.wait(0, "the goodbye", in(hivebeat.Stopped))
	all := e.all()
	if span := time.Since(begin); len(all) > 7+2*(int(span/time.Second)+1) {
		t.Errorf("%d beats in %s", len(all), span)
	}
	for i, h := range all {
		if h.Seq != uint64(i+1) {
			t.Fatalf("beat %d has seq %d", i+1, h.Seq)
		}
	}
}

// Every method, from many goroutines, in every order, while the connection comes and
// goes.
func TestStress(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	listen(t, bustest.Conn(t, srv)) // each beat must be valid
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		w, err := New(nc, Config{Hive: "gpu-01", ID: fmt.Sprint("w", i), Every: 100 * time.Millisecond, Facts: func() Facts { return Facts{Busy: 1} }})
		must(t, err)
		var wg sync.WaitGroup
		for j := range 3 {
			wg.Go(func() { _ = w.Run(ctx) })
			wg.Go(func() {
				for n := range 50 {
					_ = w.SetState(hivebeat.Degraded, fmt.Sprint(n))
					_ = w.SetState(hivebeat.Ready, "")
					_ = w.Update(func(f *Facts) { f.Queue++ })
					_ = w.Stats()
				}
			})
			wg.Go(func() {
				short, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				_ = w.Quiet(short, time.Minute)
			})
			wg.Go(func() {
				if i%2 == 0 { // the stops come 1 ms apart
					<-time.After(time.Duration(j) * time.Millisecond)
				}
				if j == 0 {
					_ = w.Fail(ctx, "stress")
				}
				_ = w.Stop(ctx)
			})
		}
		if i%5 == 4 {
			_ = nc.ForceReconnect()
		}
		wg.Wait()
		if ctx.Err() != nil {
			t.Fatal("it hangs")
		}
		cancel()
		if err := w.Run(t.Context()); !errors.Is(err, hivebeat.ErrStopped) {
			t.Errorf("Run after Stop: %v", err)
		}
	}
}
