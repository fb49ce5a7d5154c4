//go:build e2e

package nemesis

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// stage is the place of a scene: a NATS server, the processes that use it, the true history,
// and the events that were received.
type stage struct {
	*testing.T
	*row
	nats    *rig.NATS
	url     string
	leafURL string // the URL for leaf nodes
	nc      *nats.Conn
	truth   truth
	ears    *ears
	procs   map[string]*rig.Proc // by subject
	deaf    bool                 // the subscriber was cut too: a missing event proves nothing
	empty   bool                 // the stream was created again: it does not hold older events
}

func newStage(t *testing.T, r *row) *stage {
	return &stage{T: t, row: r, procs: map[string]*rig.Proc{}}
}

// serve starts a NATS server at a local address.
func (s *stage) serve(host string) {
	s.Helper()
	n := rig.Prepare(s.T, rig.Server(s.T), "nemesis", host)
	n.Start()
	s.on(n)
}

// on makes n the NATS server of the scene.
func (s *stage) on(n *rig.NATS) {
	s.Helper()
	s.nats, s.url = n, n.URL
	s.nc = rig.Connect(s.T, s.url)
	s.ears = listen(s.T, s.nc)
}

// start starts a hivebeat command on a machine; nil is this one.
func (s *stage) start(at *host, name string, args ...string) *rig.Proc {
	s.Helper()
	return s.startAt(at, s.url, name, args...)
}

func (s *stage) startAt(at *host, url, name string, args ...string) *rig.Proc {
	s.Helper()
	return rig.Start(s.T, name, []string{"HIVEBEAT_NATS=" + url}, append(at.enter(), append([]string{rig.Hivebeat(s.T)}, args...)...)...)
}

func (s *stage) queen(id string, args ...string) *rig.Proc {
	s.Helper()
	p := s.start(nil, "queen "+id, append([]string{"queen", "--id", id}, args...)...)
	s.procs["queen "+id] = p
	p.Said("queen is warm", patience)
	return p
}

func (s *stage) hive(at *host, id string, args ...string) *rig.Proc {
	s.Helper()
	p := s.start(at, "hive "+id, append([]string{"hive", "--id", id, "--every", hiveEvery.String()}, args...)...)
	s.procs[id] = p
	return p
}

func (s *stage) worker(at *host, hive, id string, args ...string) *rig.Proc {
	s.Helper()
	p := s.start(at, hive+"/"+id, append([]string{"worker", "--hive", hive, "--id", id, "--every", workerEvery.String()}, args...)...)
	s.procs[hive+"/"+id] = p
	return p
}

// workers starts n workers of a hive and returns their subjects.
func (s *stage) workers(at *host, hive string, n int) []string {
	s.Helper()
	var all []string
	for i := range n {
		id := fmt.Sprintf("w%03d", i)
		s.worker(at, hive, id)
		all = append(all, hive+"/"+id)
	}
	return all
}

// alive waits until a queen reports everything that was started as alive, and their events
// are published. Then the scene starts.
func (s *stage) alive() {
	s.Helper()
	want := rig.Fleet{}
	var joined []string
	for subject := range s.procs {
		if _, isQueen := strings.CutPrefix(subject, "queen "); !isQueen && !s.gone(subject) {
			want[subject] = hivebeat.Alive
			joined = append(joined, subject)
		}
	}
	rig.Sees(s.T, s.nc, patience, want)
	if s.deaf {
		return
	}
	rig.Until(s.T, patience, "everybody's event joined", func() (bool, string) {
		for _, subject := range joined {
			if _, ok := s.ears.since(hivebeat.KindJoined, subject, time.Time{}); !ok {
				return false, subject + " is missing"
			}
		}
		return true, ""
	})
}

func (s *stage) gone(subject string) bool {
	of := s.truth.all()[subject]
	return len(of) > 0 && of[len(of)-1].dead
}

// kill sends SIGKILL and does not wait. The death must be reported, with one of the causes if
// any are given.
func (s *stage) kill(subject string, by ...hivebeat.Cause) time.Time {
	s.Helper()
	at := time.Now()
	s.truth.began(subject, spell{from: at, dead: true, must: true, by: by})
	s.procs[subject].Signal(syscall.SIGKILL)
	return at
}

// away records that subjects are stopped or cut off from now on. If must is set, they must be
// reported lost.
func (s *stage) away(must bool, subjects ...string) {
	at := time.Now()
	for _, subject := range subjects {
		s.truth.began(subject, spell{from: at, must: must})
	}
}

// back records that they are back.
func (s *stage) back(subjects ...string) {
	at := time.Now()
	for _, subject := range subjects {
		s.truth.ended(subject, at)
	}
}

// stop sends SIGSTOP, waits, and sends SIGCONT.
func (s *stage) stop(p *rig.Proc, while time.Duration) {
	s.Helper()
	p.Signal(syscall.SIGSTOP)
	s.wait(while)
	p.Signal(syscall.SIGCONT)
}

// wait lets time pass, in tests that are about time.
func (s *stage) wait(d time.Duration) {
	s.Helper()
	select {
	case <-s.Context().Done():
		s.Fatal("ended")
	case <-time.After(d):
	}
}

// told waits until every death that must be reported was received as lost.
func (s *stage) told(most time.Duration) {
	s.Helper()
	for end := time.Now().Add(most); ; {
		missing := s.untold()
		if len(missing) == 0 {
			return
		}
		if time.Now().After(end) {
			s.Errorf("after %s nobody had told that these are lost: %s", most, strings.Join(missing[:min(8, len(missing))], " "))
			return
		}
		select {
		case <-s.ears.arrive:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *stage) untold() []string {
	var missing []string
	for subject, of := range s.truth.all() {
		if last := of[len(of)-1]; last.must {
			if _, ok := s.ears.since(hivebeat.KindLost, subject, last.from); !ok {
				missing = append(missing, subject)
			}
		}
	}
	return missing
}

// recovered waits until events since from report that they are alive again.
func (s *stage) recovered(from time.Time, subjects ...string) {
	s.Helper()
	rig.Until(s.T, patience, "events recovered", func() (bool, string) {
		for _, subject := range subjects {
			if _, ok := s.ears.since(hivebeat.KindRecovered, subject, from); !ok {
				return false, subject + " is missing"
			}
		}
		return true, ""
	})
}

// curtain waits until everything is published. It then waits a while for events that must not
// happen, and completes the row.
func (s *stage) curtain() {
	s.Helper()
	s.told(patience + 3*max(*hiveEvery, *workerEvery))
	s.wait(3 * time.Second / 2)
	if s.nc.Stats().Reconnects > 0 {
		s.deaf = true
	}
	read := time.Now()
	stored := s.stored()
	s.wait(300 * time.Millisecond)
	s.judge(s.ears.events(), stored, read)
	if s.Failed() {
		s.Logf("--- events stored:\n%s", list(stored))
	}
}

// stored returns every event in the stream, in its order.
func (s *stage) stored() []hivebeat.Event {
	s.Helper()
	js, err := jetstream.New(s.nc)
	if err != nil {
		s.Fatal(err)
	}
	var none hivebeat.Subjects
	var all []hivebeat.Event
	rig.Until(s.T, patience, "the stream's answer", func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		all = all[:0]
		st, err := js.Stream(ctx, none.Stream(hivebeat.StreamEvents))
		if err != nil {
			return false, err.Error()
		}
		c, err := st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
		if err != nil {
			return false, err.Error()
		}
		for n := st.CachedInfo().State.Msgs; uint64(len(all)) < n; {
			batch, err := c.Fetch(int(min(1000, n-uint64(len(all)))), jetstream.FetchMaxWait(5*time.Second))
			if err != nil {
				return false, err.Error()
			}
			before := len(all)
			for m := range batch.Messages() {
				var ev hivebeat.Event
				if err := json.Unmarshal(m.Data(), &ev); err != nil {
					s.Fatalf("%v in %s", err, m.Data())
				}
				all = append(all, ev)
			}
			if len(all) == before {
				return false, fmt.Sprintf("%d of %d events", len(all), n)
			}
		}
		return true, ""
	})
	return all
}

// judge compares the reports with what was done.
func (s *stage) judge(all []heard, stored []hivebeat.Event, read time.Time) {
	s.Helper()
	r := s.row
	r.told = map[string]int{}
	for subject, of := range s.truth.all() {
		for _, sp := range of {
			if sp.dead {
				r.deaths++
			}
			if !sp.must {
				continue
			}
			if h, ok := s.ears.since(hivebeat.KindLost, subject, sp.from); ok && sp.covers(h.at) {
				r.detect = append(r.detect, h.at.Sub(sp.from))
			} else {
				r.eventsLost++
				s.Errorf("%s is gone and was never told lost", subject)
			}
		}
	}
	// Verdicts, as received by the plain subscriber.
	for _, h := range all {
		if h.Data.Kind != hivebeat.KindLost {
			continue
		}
		r.told[string(h.Data.Cause)]++
		switch sp, ok := s.truth.of(h.Subject, h.at); {
		case !ok:
			r.falseDead++
			s.Errorf("FALSE DEATH: %s was told lost (%s, age %d ms, via %s: %s) and was alive and reachable", h.Subject, h.Data.Cause, h.Data.AgeMS, h.Data.Via, h.Data.Reason)
		case !sp.dead:
			r.cutOff++
		default:
			s.because(h, sp)
		}
	}
	s.accounts(all, stored, read)
	r.scoreFalse, r.scoreCutOff = s.ears.score()
	if r.scoreFalse > 0 {
		r.note = append(r.note, fmt.Sprintf("the hives counted %d false_dead", r.scoreFalse))
	}
	if r.scoreCutOff > 0 {
		r.note = append(r.note, fmt.Sprintf("the hives counted %d cut_off", r.scoreCutOff))
	}
}

func (s *stage) because(h heard, sp spell) {
	s.Helper()
	for _, c := range sp.by {
		if h.Data.Cause == c {
			return
		}
	}
	if len(sp.by) > 0 {
		s.Errorf("%s was told lost by %q, want %v: %s", h.Subject, h.Data.Cause, sp.by, h.Data.Reason)
	}
}

// accounts checks the stream by itself and against the events that the subscriber received:
// nothing twice, nothing missing. read is when the reading of the stream started.
func (s *stage) accounts(all []heard, stored []hivebeat.Event, read time.Time) {
	s.Helper()
	in, ears := map[string]int{}, map[string]int{}
	last := map[string]hivebeat.Kind{} // by subject and incarnation: the last verdict
	whose := map[string]string{}       // and its judge
	for _, ev := range stored {
		in[ev.ID]++
		if ev.Data.Kind == hivebeat.KindGap {
			s.eventsLost += int(ev.Data.Missing)
			s.Errorf("the queen lost %d transitions of %s", ev.Data.Missing, ev.Subject)
		}
		who := fmt.Sprint(ev.Subject, " ", ev.Data.Inc)
		switch k := ev.Data.Kind; k {
		case hivebeat.KindLost, hivebeat.KindLeft, hivebeat.KindJoined:
			// A queen concludes lost with cause hive if nothing more is known. The hive may
			// report the true cause once it is back.
			if last[who] == k && ev.Data.Via != whose[who] && ev.Data.Via == hivebeat.ViaHive {
				last[who] = ""
			}
			whose[who] = ev.Data.Via
			if last[who] == k {
				s.doubled++
				s.Errorf("%s was told %s twice in a row: %s", ev.Subject, k, ev.ID)
			}
			last[who] = k
		case hivebeat.KindRecovered, hivebeat.KindRestarted:
			last[who] = k
		}
	}
	once := map[string]bool{}
	for _, h := range all {
		ears[h.ID]++
		if who := fmt.Sprint(h.by, " ", h.ID); once[who] {
			s.doubled++
			s.Errorf("heard twice: %s %s %s", h.ID, h.Subject, h.Data.Kind)
		} else {
			once[who] = true
		}
		if in[h.ID] == 0 && !s.empty && h.at.Before(read) {
			s.eventsLost++
			s.Errorf("heard, and not in the stream: %s %s %s", h.ID, h.Subject, h.Data.Kind)
		}
	}
	for _, ev := range stored {
		if in[ev.ID] > 1 {
			s.doubled++
			s.Errorf("stored %d times: %s", in[ev.ID], ev.ID)
		}
		if ears[ev.ID] == 0 && !s.deaf {
			s.eventsLost++
			s.Errorf("in the stream, and not heard: %s %s %s", ev.ID, ev.Subject, ev.Data.Kind)
		}
	}
}

func list(events []hivebeat.Event) string {
	var b strings.Builder
	for _, ev := range events[max(0, len(events)-60):] {
		fmt.Fprintf(&b, "%-10s %-20s cause=%s via=%s age=%d id=%s %s\n", ev.Data.Kind, ev.Subject, ev.Data.Cause, ev.Data.Via, ev.Data.AgeMS, ev.ID, ev.Data.Reason)
	}
	return b.String()
}
