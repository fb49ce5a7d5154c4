package worker

import (
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// If a client publishes with a reply subject and no client subscribes to the subject,
// the server informs the publisher (status 503, "no responders"). That holds anywhere,
// including behind routes and leaf nodes. Some beats therefore carry the roll call
// subject as their reply subject: the worker subscribes to it anyway, and it needs no
// extra permission. A hive, or a queen that judges in its place, stays subscribed to
// the beats. A worker whose beats have no subscriber has a wrong id, a wrong prefix, or
// no hive.
const (
	askAgain  = time.Minute      // between two questions while there is a subscriber,
	askSooner = 10 * time.Second // and while there is none
	warnAfter = time.Minute      // a hive may start later than its workers
	askedWell = 3                // questions in a row without a 503: there is a subscriber again
)

// audience tracks whether a worker's beats have a subscriber. It is pure, and not safe
// for concurrent use.
type audience struct {
	asked  time.Time // the last question; zero: none since the connection was established
	open   bool      // no 503 has arrived for it
	well   int       // questions in a row without a 503
	since  time.Time // of the first 503 in an unbroken row; zero: none
	told   bool      // it was logged that there is no subscriber,
	warned bool      // and that this persists
	off    bool      // something answers beats, so no 503 ever arrives
}

// ask reports whether the next beat must be a question.
func (a *audience) ask(now time.Time) bool {
	wait := askAgain
	if !a.since.IsZero() {
		wait = askSooner
	}
	if a.off || !a.asked.IsZero() && now.Sub(a.asked) < wait {
		return false
	}
	if a.open {
		a.since = time.Time{}
		if a.well++; a.well >= askedWell {
			a.told, a.warned = false, false
		}
	}
	a.asked, a.open = now, true
	return true
}

// nobody records a 503. It reports whether to log that there is no subscriber, and
// whether that has persisted.
func (a *audience) nobody(now time.Time) (tell, long bool) {
	a.open, a.well = false, 0
	if a.since.IsZero() {
		a.since = now
	}
	switch {
	case !a.told:
		a.told = true
		return true, false
	case !a.warned && now.Sub(a.since) >= warnAfter:
		a.warned = true
		return true, true
	}
	return false, false
}

// somebody records a roll call, which only a subscriber of beats sends. It reports
// whether to log that there is a subscriber, because the opposite was logged before.
func (a *audience) somebody() (tell bool) {
	tell = a.told
	*a = audience{asked: a.asked, off: a.off}
	return tell
}

// reconnected forgets the outstanding question, because its answer may be lost.
func (a *audience) reconnected() { a.asked, a.open = time.Time{}, false }

// hall is an audience for concurrent use.
type hall struct {
	mu sync.Mutex
	a  audience
}

func (h *hall) do(f func(*audience)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.a)
}

// question returns the reply subject of the next beat, or "" if the beat is no
// question.
func (w *Worker) question() (reply string) {
	w.hall.do(func(a *audience) {
		if a.ask(time.Now()) {
			reply = w.subjects.WorkerRollcall(w.cfg.Hive)
		}
	})
	return reply
}

// unheard reports whether m is a 503 for a beat, and records it if the beat is this
// worker's.
func (w *Worker) unheard(m *nats.Msg) bool {
	if len(m.Data) > 0 || m.Header.Get("Status") != "503" {
		return false
	}
	if of := m.Header.Get("Nats-Subject"); of != "" && of != w.subject {
		return true // a beat of another worker that shares the connection
	}
	w.n.unheard.Add(1)
	var tell, long bool
	w.hall.do(func(a *audience) { tell, long = a.nobody(time.Now()) })
	hint := slog.String("hint", "is the hive of this machine running, with this id and prefix? \"hivebeat ls hives\" lists the running hives")
	switch {
	case long:
		w.log.Warn("no hive subscribes to these beats", slog.String("subject", w.subject), hint)
	case tell:
		w.log.Info("no hive subscribes to these beats", slog.String("subject", w.subject), hint)
	}
	return true
}

// heardBy records a roll call.
func (w *Worker) heardBy() {
	tell := false
	w.hall.do(func(a *audience) { tell = a.somebody() })
	if tell {
		w.log.Info("a hive subscribes to these beats", slog.String("subject", w.subject))
	}
}

// noticeEvery is how often a refusal by the hive is logged.
const noticeEvery = time.Minute

// noticed handles a notice that the hive refuses beats, possibly this worker's.
func (w *Worker) noticed(n hivebeat.Notice) {
	if n.ID != w.cfg.ID || n.Inc != w.inc {
		return // of another process
	}
	now := time.Now()
	w.mu.Lock()
	tell := now.Sub(w.told) >= noticeEvery
	if tell {
		w.told = now
	}
	w.mu.Unlock()
	if tell {
		text, hint := n.Text("worker")
		w.log.Warn(text, slog.Uint64("inc", n.Inc), slog.Uint64("believed", n.Believed), slog.String("hint", hint)) //nolint:sloglint // one of two constants
	}
}

// answered handles a payload that is not a roll call. A stream that stores beats
// answers each question, on the subject of the question and thus to all workers of the
// hive. The workers then ask no more.
func (w *Worker) answered(payload []byte) {
	if len(payload) > 0 && payload[0] == '{' {
		w.hall.do(func(a *audience) { a.off = true })
	}
}
