package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// If there is no subscriber, that is logged at once, and again when it has persisted
// for a minute without a gap.
func TestAudience(t *testing.T) {
	var a audience
	began := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	ask := func(s int, want bool) {
		t.Helper()
		if got := a.ask(at(s)); got != want {
			t.Errorf("at %d s it asks: %v", s, got)
		}
	}
	nobody := func(s int, tell, long bool) {
		t.Helper()
		if gotTell, gotLong := a.nobody(at(s)); gotTell != tell || gotLong != long {
			t.Errorf("at %d s it tells %v, for long %v; want %v, %v", s, gotTell, gotLong, tell, long)
		}
	}
	ask(0, true)
	nobody(0, true, false)
	ask(9, false)
	ask(10, true)
	nobody(10, false, false)
	ask(59, true)
	nobody(59, false, false)
	ask(70, true)
	nobody(70, true, true)
	ask(80, true)
	nobody(80, false, false) // logged only once
	if first, second := a.somebody(), a.somebody(); !first || second {
		t.Errorf("that somebody listens is told %t, then %t; want once", first, second)
	}
	ask(100, false) // once a minute is enough now
	ask(140, true)
	ask(200, true)
	nobody(200, true, false) // the hive restarts
	ask(210, true)
	ask(270, true)
	nobody(270, false, false) // there was a gap, so it did not persist
	ask(280, true)
	ask(340, true)
	ask(400, true)
	ask(460, true) // no 503 for three questions: the row starts again
	nobody(460, true, false)

	a.reconnected()
	ask(461, true)
	a = audience{off: true}
	ask(500, false)
}

// lines returns the lines of a log that have this message.
func lines(log *bustest.Log, msg string) (out []string) {
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, fmt.Sprintf("msg=%q", msg)) {
			out = append(out, line)
		}
	}
	return out
}

// awaits waits for a line with this message.
func awaits(t *testing.T, log *bustest.Log, msg string) string {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) { return len(lines(log, msg)) > 0, "the log does not say: " + msg })
	return lines(log, msg)[0]
}

const (
	nobodyListens   = "nobody listens to these beats"
	somebodyListens = "somebody listens to these beats"
)

// A worker whose hive does not run reports that in its log and in its counts, with only
// the permissions of a worker, and reports when its hive arrives.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.User("hive", nil, nil),
		bustest.User("w", []string{"hive.gpu-01.workers"}, []string{"hive.gpu-01.rollcall"}))
	var log bustest.Log
	nc := bustest.Conn(t, srv, nats.UserInfo("w", "w"))
	w := run(t, nc, Config{Every: time.Minute, Logger: log.Logger(slog.LevelInfo)})
	line := awaits(t, &log, nobodyListens)
	for _, part := range []string{"level=INFO", "hive=gpu-01", "worker=llama", "subject=hive.gpu-01.workers", "hint="} {
		if !strings.Contains(line, part) {
			t.Errorf("it says %s", line)
		}
	}
	if s := w.Stats(); s.Unheard != 1 || s.Calls != 0 || s.BadCalls != 0 {
		t.Errorf("it counts %+v", s)
	}

	hive := bustest.Conn(t, srv, nats.UserInfo("hive", "hive"))
	heard := listen(t, hive)
	must(t, hive.Publish("hive.gpu-01.rollcall", []byte("0")))
	heard.wait(0, "the answer", anyBeat)
	awaits(t, &log, somebodyListens)
	if n := len(lines(&log, nobodyListens)); n != 1 {
		t.Errorf("it says %d times that nobody listens", n)
	}
}

// A worker that has a subscriber logs nothing about it. The same holds for a worker
// whose beats are answered by a subscriber that should not answer: it asks no more.
func TestSomebodyListens(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, other := bustest.Conn(t, srv), bustest.Conn(t, srv)
	var log bustest.Log
	var mu sync.Mutex
	var replies []string
	_, err := other.Subscribe("hive.gpu-01.workers", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		replies = append(replies, m.Reply)
		if m.Reply != "" {
			_ = m.Respond([]byte(`{"stream":"BEATS","seq":1}`)) // as a stream that stores beats does
		}
	})
	must(t, err)
	must(t, other.Flush())
	w := run(t, nc, Config{Every: 100 * time.Millisecond, Logger: log.Logger(slog.LevelInfo)})
	bustest.Eventually(t, patience, func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return len(replies) >= 5, "no beats"
	})
	mu.Lock()
	asked := strings.Join(replies, ",")
	mu.Unlock()
	if !strings.HasPrefix(asked, "hive.gpu-01.rollcall,,") {
		t.Errorf("it asks with %s", asked)
	}
	bustest.Eventually(t, patience, func() (bool, string) { return w.Stats().BadCalls == 1, "the answer did not come" })
	w.hall.do(func(a *audience) {
		if a.ask(time.Now().Add(time.Hour)) {
			t.Error("it goes on asking")
		}
	})
	if no, yes := lines(&log, nobodyListens), lines(&log, somebodyListens); no != nil || yes != nil {
		t.Errorf("it says who listens: %v %v", no, yes)
	}
}

// Workers of one program share a connection, so one worker may receive the 503 for the
// subject of another. It is no 503 for this worker, and no roll call either.
func TestWordOfANeighbour(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	w, err := New(bustest.Conn(t, srv), Config{Hive: "gpu-01", ID: "llama", Pinned: true})
	must(t, err)
	for _, tt := range []struct {
		of      string
		unheard uint64
	}{{"hive.gpu-01.workers.flux", 0}, {"hive.gpu-01.workers.llama", 1}, {"", 2}} {
		m := nats.NewMsg("hive.gpu-01.rollcall")
		m.Header.Set("Status", "503")
		if tt.of != "" { // older servers do not send it
			m.Header.Set("Nats-Subject", tt.of)
		}
		w.called(m)
		if s := w.Stats(); s.Unheard != tt.unheard || s.Calls != 0 {
			t.Errorf("after one of %q: %+v", tt.of, s)
		}
	}
}

// A hive on the other side of a leaf node counts as a subscriber: no false alarm. When
// it is gone, that is reported on this side too.
func TestListenersBehindALeaf(t *testing.T) {
	t.Parallel()
	hub := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) { o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", -1 }))
	leaf := bustest.Server(t, bustest.NoJetStream(), func(c *embedded.Config) { c.Leaf = &embedded.Leaf{URL: hub.LeafURL()} })
	hive, nc := bustest.Conn(t, hub), bustest.Conn(t, leaf)
	var beats atomic.Int64
	sub, err := hive.Subscribe("hive.gpu-01.workers", func(m *nats.Msg) {
		if len(m.Data) > 0 {
			beats.Add(1)
		}
	})
	must(t, err)
	knows := func(somebody bool) { // whether the leaf knows of a subscriber
		t.Helper()
		bustest.Eventually(t, patience, func() (bool, string) {
			_, err := nc.Request("hive.gpu-01.workers", nil, 50*time.Millisecond)
			return errors.Is(err, nats.ErrNoResponders) != somebody, fmt.Sprintf("somebody listens: not %v by the leaf", somebody)
		})
	}
	knows(true)
	var log bustest.Log
	w := run(t, nc, Config{Every: 100 * time.Millisecond, Logger: log.Logger(slog.LevelInfo)})
	bustest.Eventually(t, patience, func() (bool, string) { return beats.Load() >= 3, "the beats do not come" })
	if n := w.Stats().Unheard; n != 0 || lines(&log, nobodyListens) != nil {
		t.Errorf("%d beats are said to be unheard: %s", n, log.String())
	}
	must(t, sub.Unsubscribe())
	knows(false)
	w.hall.do((*audience).reconnected) // otherwise it would ask within a minute
	awaits(t, &log, nobodyListens)
}

// A refused worker logs the refusal, once a minute, however often the notice arrives,
// and only if the notice is about itself.
func TestARefusedWorkerSaysSo(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, hive := bustest.Conn(t, srv), bustest.Conn(t, srv)
	var log bustest.Log
	w := run(t, nc, Config{Every: time.Hour, Logger: log.Logger(slog.LevelInfo)})
	e := listen(t, hive)
	say := func(n hivebeat.Notice) {
		t.Helper()
		if err := hive.Publish("hive.gpu-01.rollcall", n.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	call := func() {
		t.Helper()
		from := len(e.all())
		if err := hive.Publish("hive.gpu-01.rollcall", []byte("0")); err != nil {
			t.Fatal(err)
		}
		e.wait(from, "an answer", anyBeat)
	}
	bustest.Eventually(t, patience, func() (bool, string) { return w.Stats().Sent > 0, "no beat" })
	bustest.Flush(t, nc)
	say(hivebeat.Notice{ID: "other", Inc: w.Incarnation(), Believed: 1})
	say(hivebeat.Notice{ID: "llama", Inc: w.Incarnation() + 1, Believed: w.Incarnation()})
	call()
	if s := log.String(); strings.Contains(s, "refused") {
		t.Fatalf("of another one:\n%s", s)
	}
	for range 10 {
		say(hivebeat.Notice{ID: "llama", Inc: w.Incarnation(), Believed: w.Incarnation() + 5})
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		return strings.Contains(log.String(), "another process has its id"), log.String()
	})
	call() // after the notices
	if s := log.String(); strings.Count(s, "refused") != 1 || !strings.Contains(s, fmt.Sprint("believed=", w.Incarnation()+5)) || !strings.Contains(s, "hint=") {
		t.Errorf("said 10 times, logged as\n%s", s)
	}
	if st := w.Stats(); st.Calls != 2 || st.BadCalls != 0 {
		t.Errorf("a notice is taken for a roll call: %+v", st)
	}
}
