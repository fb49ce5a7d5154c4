package queen

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// testWorker beats as a worker does, and answers roll calls.
type testWorker struct {
	t        testing.TB
	nc       *nats.Conn
	subjects hivebeat.Subjects
	pinned   bool
	stop     chan struct{}
	wg       sync.WaitGroup

	mu   sync.Mutex
	mute bool // cut off: it keeps working, but none of its beats arrive
	b    hivebeat.Beat
}

func startWorker(t testing.TB, nc *nats.Conn, prefix, hive, id string, every time.Duration, pinned bool) *testWorker {
	t.Helper()
	s, err := hivebeat.NewSubjects(prefix)
	if err != nil {
		t.Fatal(err)
	}
	w := &testWorker{t: t, nc: nc, subjects: s, pinned: pinned, stop: make(chan struct{})}
	w.b = hivebeat.Beat{V: 1, Hive: hive, Worker: id, Facts: hivebeat.Facts{
		Inc: uint64(time.Now().UnixMicro()), Every: hivebeat.MillisOf(every), State: hivebeat.Ready, Model: "llama",
	}}
	rolls := make(chan *nats.Msg, 16)
	sub, err := nc.ChanSubscribe(s.WorkerRollcall(hive), rolls)
	if err != nil {
		t.Fatal(err)
	}
	w.wg.Go(func() {
		defer func() { _ = sub.Unsubscribe() }()
		tick := time.NewTicker(every * 9 / 10)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case m := <-rolls:
				if _, err := bus.ParseSpread(m.Data, 0); err != nil {
					t.Errorf("roll call: %v", err)
				}
				w.beat()
			case <-tick.C:
				w.beat()
			}
		}
	})
	t.Cleanup(w.kill)
	return w
}

func (w *testWorker) beat() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Seq++
	if w.mute {
		return
	}
	body, err := wire.EncodeBeat(&w.b)
	if err != nil {
		w.t.Error(err)
		return
	}
	subject := w.subjects.Workers(w.b.Hive)
	if w.pinned {
		subject = w.subjects.Worker(w.b.Hive, w.b.Worker)
	}
	_ = w.nc.Publish(subject, body)
}

func (w *testWorker) setMute(mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = mute
}

func (w *testWorker) kill() {
	w.mu.Lock()
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// record is what its hive would report about it after its last beat.
func (w *testWorker) record() hivebeat.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return hivebeat.Record{Worker: w.b.Worker, Live: hivebeat.Alive, N: 1, Since: 1000, Facts: w.b.Facts}
}

// adoptionRig is a hive with workers that dies.
type adoptionRig struct {
	*testHive
	workers []*testWorker
	every   time.Duration
}

func startAdoptionRig(t testing.TB, nc *nats.Conn, n int, pinned bool) *adoptionRig {
	o := &adoptionRig{every: time.Second}
	var list []hivebeat.Record
	for i := range n {
		w := startWorker(t, nc, "", "h", fmt.Sprint("w", i), o.every, pinned)
		w.beat()
		o.workers = append(o.workers, w)
		r := w.record()
		r.N = 0
		transition(&r, hivebeat.KindJoined, "alive")
		list = append(list, r)
	}
	o.testHive = startHive(t, nc, "h", o.every, list...)
	return o
}

// begin lets the hive come back as a new process.
func (o *adoptionRig) begin(t testing.TB, nc *nats.Conn, sameInc bool) *testHive {
	var list []hivebeat.Record
	for _, w := range o.workers {
		r := w.record()
		if !sameInc {
			r.Tr = []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, To: "alive", Inc: r.Inc, Ago: 10}}
		}
		list = append(list, r)
	}
	h := startHive(t, nc, "h", o.every, list...)
	return h
}

func (r *runningQueen) worker(id string) (api.WorkerInfo, bool) {
	a := r.ask(api.VerbWorker, api.Request{Hive: "h", Worker: id})
	if len(a.Workers) != 1 {
		return api.WorkerInfo{}, false
	}
	return a.Workers[0], true
}

func (r *runningQueen) sees(id string, live hivebeat.Live, via string) {
	r.t.Helper()
	bustest.Eventually(r.t, patience, func() (bool, string) {
		w, ok := r.worker(id)
		return ok && w.Live == live && w.Via == via, fmt.Sprintf("%s is %s (%s) via %s, want %s via %s", id, w.Live, w.Cause, w.Via, live, via)
	})
}

// eventsOf returns the kinds of the stored events of a worker, in order of n.
func eventsOf(t testing.TB, nc *nats.Conn, worker string) string {
	t.Helper()
	counts := map[hivebeat.Kind]int{}
	for _, ev := range storedEvents(t, nc) {
		if ev.Data.Worker == worker {
			counts[ev.Data.Kind]++
		}
	}
	return fmt.Sprint(counts)
}

// A hive that dies does not take its workers along. When it is back, only the hive's
// own events show that it was gone.
func TestHiveDiesAndItsWorkersLiveOn(t *testing.T) {
	t.Parallel()
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprint("pinned ", pinned), func(t *testing.T) {
			t.Parallel()
			srv := bustest.Server(t)
			nc := bustest.Conn(t, srv)
			var queens []*runningQueen
			for i := range 2 {
				queens = append(queens, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)}))
				queens[i].warm()
			}
			o := startAdoptionRig(t, bustest.Conn(t, srv), 5, pinned)
			queens[0].eventually("alive", func() bool { return queens[0].live("h") == hivebeat.Alive })
			o.kill()
			lost := waitStored(t, nc, hivebeat.KindLost, "h", "")
			for _, q := range queens {
				for _, w := range o.workers {
					q.sees(w.b.Worker, hivebeat.Alive, hivebeat.ViaQueen)
				}
			}
			if took := time.Since(lost.Time); took > patience/2 {
				t.Errorf("%s after the verdict", took)
			} else {
				t.Logf("all alive via both queens %s after the event of the verdict", took)
			}
			s := queens[0].Stats()
			if s.AdoptedHives != 1 || s.AdoptedWorkers != 5 || s.AdoptedBeats == 0 {
				t.Errorf("%+v", s)
			}
			o.begin(t, nc, false)
			for _, q := range queens {
				for _, w := range o.workers {
					q.sees(w.b.Worker, hivebeat.Alive, hivebeat.ViaHive)
				}
				q.eventually("handed back", func() bool { return q.Stats().AdoptedHives == 0 })
				q.logged("a hive judges its workers again")
			}
			waitStored(t, nc, hivebeat.KindRestarted, "h", "")
			for _, w := range o.workers {
				if got := eventsOf(t, nc, w.b.Worker); got != "map[joined:1]" {
					t.Errorf("events of %s: %s", w.b.Worker, got)
				}
			}
		})
	}
}

// Workers that died with their hive are lost, with cause hive, and announced once by
// two queens.
func TestHiveDiesWithSomeOfItsWorkers(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	var queens []*runningQueen
	for i := range 2 {
		queens = append(queens, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)}))
		queens[i].warm()
	}
	o := startAdoptionRig(t, bustest.Conn(t, srv), 5, false)
	queens[0].eventually("alive", func() bool { return queens[0].live("h") == hivebeat.Alive })
	for _, w := range o.workers[:2] {
		w.kill()
	}
	o.kill()
	hive := waitStored(t, nc, hivebeat.KindLost, "h", "")
	for _, w := range o.workers[:2] {
		ev := waitStored(t, nc, hivebeat.KindLost, "h", w.b.Worker)
		d := ev.Data
		if d.Cause != hivebeat.CauseHive || d.Via != hivebeat.ViaQueen || d.N <= hive.Data.N || !strings.HasPrefix(ev.ID, "h.") || !strings.Contains(d.Reason, "did not answer") {
			t.Errorf("%s: %+v", ev.ID, d)
		}
		for _, q := range queens {
			q.sees(w.b.Worker, hivebeat.Lost, hivebeat.ViaQueen)
		}
		if got := eventsOf(t, nc, w.b.Worker); got != "map[joined:1 lost:1]" {
			t.Errorf("events of %s: %s", w.b.Worker, got)
		}
	}
	for _, w := range o.workers[2:] {
		queens[1].sees(w.b.Worker, hivebeat.Alive, hivebeat.ViaQueen)
		if got := eventsOf(t, nc, w.b.Worker); got != "map[joined:1]" {
			t.Errorf("events of %s: %s", w.b.Worker, got)
		}
	}
}

// A whole machine that was cut off had been alive: it counts as cut off, not as falsely
// dead.
func TestMachineCutOff(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	var queens []*runningQueen
	for i := range 2 {
		queens = append(queens, startQueen(t, bustest.Conn(t, srv), Config{ID: fmt.Sprint("q", i)}))
		queens[i].warm()
	}
	o := startAdoptionRig(t, bustest.Conn(t, srv), 2, false)
	queens[0].eventually("alive", func() bool { return queens[0].live("h") == hivebeat.Alive })
	o.kill()
	for _, w := range o.workers {
		w.setMute(true)
	}
	for _, w := range o.workers {
		waitStored(t, nc, hivebeat.KindLost, "h", w.b.Worker)
		for _, q := range queens {
			q.sees(w.b.Worker, hivebeat.Lost, hivebeat.ViaQueen)
		}
	}
	for _, w := range o.workers {
		w.setMute(false)
		w.beat()
	}
	o.testHive.send(func(s *hivebeat.Snapshot) {
		s.Seq += 10
		s.Workers = nil
		for _, w := range o.workers {
			s.Workers = append(s.Workers, w.record())
		}
	})
	waitStored(t, nc, hivebeat.KindRecovered, "h", "")
	for _, w := range o.workers {
		waitStored(t, nc, hivebeat.KindRecovered, "h", w.b.Worker)
		if got := eventsOf(t, nc, w.b.Worker); got != "map[joined:1 lost:1 recovered:1]" {
			t.Errorf("events of %s: %s", w.b.Worker, got)
		}
	}
	for _, q := range queens {
		q.eventually("3 cut off", func() bool { s := q.Stats(); return s.CutOff == 3 && s.FalseDead == 0 && s.Margins != nil })
	}
}

// Without JetStream each queen announces its own findings, below its prefix.
func TestAdoptionStraight(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	events := subscribeEvents(t, bustest.Conn(t, srv))
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q", NoJetStream: true})
	q.eventually("warm", func() bool { return q.ask(api.VerbSummary, api.Request{}).Status.Warm })
	o := startAdoptionRig(t, bustest.Conn(t, srv), 2, false)
	q.eventually("alive", func() bool { return q.live("h") == hivebeat.Alive })
	o.workers[0].kill()
	o.kill()
	q.sees("w1", hivebeat.Alive, hivebeat.ViaQueen)
	q.sees("w0", hivebeat.Lost, hivebeat.ViaQueen)
	bustest.Eventually(t, patience, func() (bool, string) {
		return len(events.of(hivebeat.KindLost, "h", "w0")) == 1, "no event"
	})
	_ = nc
	events.once(t)
}
