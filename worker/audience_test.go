package worker

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

// When nobody listens: it is told at once, and again once it went on for a minute
// without a gap.
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
	nobody(80, false, false) // once
	if !a.somebody() || a.somebody() {
		t.Error("that somebody listens is not told once")
	}
	ask(100, false) // once a minute is enough now
	ask(140, true)
	ask(200, true)
	nobody(200, true, false) // the hive restarts
	ask(210, true)
	ask(270, true)
	nobody(270, false, false) // and again, so that it did not go on
	ask(280, true)
	ask(340, true)
	ask(400, true)
	ask(460, true) // no word on three of them: it begins anew
	nobody(460, true, false)

	a.reconnected()
	ask(461, true)
	a = audience{off: true}
	ask(500, false)
}

// journal is a log that can be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) lines(msg string) (out []map[string]any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.b.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == msg {
			out = append(out, m)
		}
	}
	return out
}

func (j *journal) awaits(t *testing.T, msg string, n int) []map[string]any {
	t.Helper()
	bustest.Eventually(t, patience, func() (bool, string) { return len(j.lines(msg)) >= n, "the log does not say: " + msg })
	return j.lines(msg)
}

const (
	nobodyListens   = "nobody listens to these beats"
	somebodyListens = "somebody listens to these beats"
)

// A worker of a hive that nobody runs says so, in its log and in its counts, with
// the permissions of a worker alone; and when its hive is there.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.User("hive", nil, nil),
		bustest.User("w", []string{"hive.gpu-01.workers"}, []string{"hive.gpu-01.rollcall"}))
	var log journal
	nc := bustest.Conn(t, srv, nats.UserInfo("w", "w"))
	w := run(t, nc, Config{Every: time.Minute, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	line := log.awaits(t, nobodyListens, 1)[0]
	if line["level"] != "INFO" || line["hive"] != "gpu-01" || line["subject"] != "hive.gpu-01.workers" || line["hint"] == nil {
		t.Errorf("it says %v", line)
	}
	if s := w.Stats(); s.Unheard != 1 || s.Calls != 0 || s.BadCalls != 0 {
		t.Errorf("it counts %+v", s)
	}

	hive := bustest.Conn(t, srv, nats.UserInfo("hive", "hive"))
	heard := listen(t, hive)
	must(t, hive.Publish("hive.gpu-01.rollcall", []byte("0")))
	heard.wait(0, "the answer", anyBeat)
	log.awaits(t, somebodyListens, 1)
	if n := len(log.lines(nobodyListens)); n != 1 {
		t.Errorf("it says %d times that nobody listens", n)
	}
}

// A worker that is heard says nothing of it; neither does one whose beats are
// answered by somebody who has no business to: it asks no more.
func TestSomebodyListens(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, other := bustest.Conn(t, srv), bustest.Conn(t, srv)
	var log journal
	var mu sync.Mutex
	var replies []string
	_, err := other.Subscribe("hive.gpu-01.workers", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		replies = append(replies, m.Reply)
		if m.Reply != "" {
			_ = m.Respond([]byte(`{"stream":"BEATS","seq":1}`)) // as a stream that stores them
		}
	})
	must(t, err)
	must(t, other.Flush())
	w := run(t, nc, Config{Every: 100 * time.Millisecond, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
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
	if log.lines(nobodyListens) != nil || log.lines(somebodyListens) != nil {
		t.Error("it says who listens")
	}
}

// Workers of one program share a connection, and so NATS may tell one of another's
// subject: that is no word about this one, and no roll call either.
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
		if tt.of != "" { // servers of before did not say
			m.Header.Set("Nats-Subject", tt.of)
		}
		w.called(m)
		if s := w.Stats(); s.Unheard != tt.unheard || s.Calls != 0 {
			t.Errorf("after one of %q: %+v", tt.of, s)
		}
	}
}
