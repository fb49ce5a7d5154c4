package worker

import (
	"os"
	"os/exec"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// inBubble is set in the process that runs TestVirtual's bubble. nats.go pools timers
// for the whole process, and timers of two clocks must not mix.
const inBubble = "HIVEBEAT_TEST_BUBBLE"

// Workers on a real server, under a virtual clock.
func TestVirtual(t *testing.T) {
	if os.Getenv(inBubble) != "" {
		synctest.Test(t, tenMinutes)
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVirtual$", "-test.v")
	cmd.Env = append(os.Environ(), inBubble+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// tenMinutes runs four workers: one is busy, one changes its state constantly, one has
// slow facts and one loads a model.
func tenMinutes(t *testing.T) {
	const every = 30 * time.Second
	srv := bustest.Server(t, bustest.NoListen())
	nc := bustest.Conn(t, srv)
	at := map[string][]heard{}
	sub, err := nc.Subscribe("hive.gpu-01.workers", func(m *nats.Msg) {
		h := heard{at: time.Now()}
		if err := bus.Decode(m.Data, &h.Beat); err != nil {
			t.Error(err)
		}
		at[h.Worker] = append(at[h.Worker], h)
	})
	must(t, err)
	must(t, nc.Flush())

	var wg sync.WaitGroup
	workers := map[string]*Worker{}
	for _, id := range []string{"busy", "hot", "loads", "plain0", "plain1", "plain2", "plain3", "slow"} {
		cfg := Config{Hive: "gpu-01", ID: id}
		if id == "slow" { // its facts take longer than its interval
			cfg.Facts = func() Facts { time.Sleep(40 * time.Second); return Facts{} }
		}
		w, err := New(nc, cfg)
		must(t, err)
		workers[id] = w
		wg.Go(func() {
			if err := w.Run(t.Context()); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	begin := time.Now()
	end := begin.Add(10 * time.Minute)
	wg.Go(func() { // serves 100 requests a second
		for n := 0; time.Now().Before(end); n++ {
			must(t, workers["busy"].SetState([]hivebeat.State{hivebeat.Ready, hivebeat.Busy}[n%2], ""))
			must(t, workers["busy"].Update(func(f *Facts) { f.Done++ }))
			time.Sleep(10 * time.Millisecond)
		}
	})
	wg.Go(func() { // changes its state as often
		for n := 0; time.Now().Before(end); n++ {
			must(t, workers["hot"].SetState([]hivebeat.State{hivebeat.Ready, hivebeat.Degraded}[n%2], ""))
			time.Sleep(10 * time.Millisecond)
		}
	})
	time.Sleep(time.Minute)
	must(t, workers["loads"].SetState(hivebeat.Loading, ""))
	announced := time.Now()
	must(t, workers["loads"].Quiet(t.Context(), 5*time.Minute))
	if took := time.Since(announced); took > time.Second {
		t.Errorf("Quiet took %s", took)
	}
	time.Sleep(time.Until(end))
	for id, w := range workers {
		must(t, w.Stop(t.Context()))
		if st := w.Stats(); st.Late > 0 || st.Failed > 0 || st.Refused > 0 {
			t.Errorf("%s: %+v", id, st)
		}
	}
	wg.Wait()
	time.Sleep(time.Minute) // the slow one returns
	must(t, sub.Unsubscribe())
	nc.Close()
	synctest.Wait()

	for id, beats := range at {
		if first, last := beats[0], beats[len(beats)-1]; first.at != begin && id != "slow" || first.Seq != 1 || last.State != hivebeat.Stopped {
			t.Errorf("%s: begins with seq %d after %s and ends as %s", id, first.Seq, first.at.Sub(begin), last.State)
		}
		for i := 1; i < len(beats); i++ {
			if gap := beats[i].at.Sub(beats[i-1].at); gap > every || beats[i].Seq != beats[i-1].Seq+1 {
				t.Errorf("%s: seq %d came %s after seq %d: the promise is %s", id, beats[i].Seq, gap, beats[i-1].Seq, every)
			}
		}
		least, most := 21, 25 // 10 minutes of 25.5 to 28.5 s, plus the first and the goodbye
		switch id {
		case "busy": // one a second
			least, most = 595, 602
		case "hot": // a burst of 5, then one a second
			least, most = 600, 607
		case "loads": // loading, and 3 times quiet
			least, most = 25, 30
		}
		if len(beats) < least || len(beats) > most {
			t.Errorf("%s: %d beats in 10 minutes, want %d to %d", id, len(beats), least, most)
		}
	}
	quiet := 0
	for _, b := range at["loads"] {
		until := b.at.Add(b.Quiet.Duration())
		switch {
		case b.Quiet > 0 && until.Sub(announced.Add(5*time.Minute)).Abs() > 2*time.Millisecond:
			t.Errorf("seq %d announces silence until %s, want 5m0s", b.Seq, until.Sub(announced))
		case b.Quiet > 0 && b.at.Sub(announced) <= time.Second:
			quiet++
		case b.Quiet > 0 != (b.at.After(announced) && b.at.Before(announced.Add(5*time.Minute))):
			t.Errorf("seq %d, %s after the announcement, has quiet %d", b.Seq, b.at.Sub(announced), b.Quiet)
		}
	}
	if quiet < 3 {
		t.Errorf("the silence was announced %d times within 1 s, want 3", quiet)
	}
}
