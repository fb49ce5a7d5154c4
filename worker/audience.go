package worker

import (
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// Whoever publishes with a reply subject is told by the server if nobody subscribes
// to what was published (status 503, "no responders"): anywhere, also behind routes
// and leaf nodes. So some beats carry the subject of the roll call as theirs, which
// is subscribed to anyhow and needs no permission of its own. A hive, or a queen
// that judges in its place, subscribes to beats for as long as it hears them: who
// is told that nobody does has a wrong id, a wrong prefix, or no hive.
const (
	askAgain  = time.Minute      // between two questions while somebody listens,
	askSooner = 10 * time.Second // and while nobody does
	warnAfter = time.Minute      // a hive that starts later than its workers is no fault
	askedWell = 3                // questions in a row without the word: somebody listens again
)

// audience is what a worker knows of who listens to it. It is pure: who uses it
// keeps it to one goroutine at a time.
type audience struct {
	asked  time.Time // the last question; zero = none since the connection is there
	open   bool      // the word did not come on it
	well   int       // questions in a row on which it did not come
	since  time.Time // of the first word of a row without a gap; zero = none
	told   bool      // that nobody listens,
	warned bool      // and that it goes on
	off    bool      // something answers beats, so that the word never comes
}

// ask reports whether the next beat is to be a question.
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

// nobody takes the word that nobody listens. It reports whether that is to be told,
// and whether it went on for long.
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

// somebody takes a roll call: only who listens to beats calls. It reports whether
// that is to be told, as the opposite was.
func (a *audience) somebody() (tell bool) {
	tell = a.told
	*a = audience{asked: a.asked, off: a.off}
	return tell
}

// reconnected forgets the question that is out: its answer may be gone.
func (a *audience) reconnected() { a.asked, a.open = time.Time{}, false }

// hall is an audience for several goroutines.
type hall struct {
	mu sync.Mutex
	a  audience
}

func (h *hall) do(f func(*audience)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.a)
}

// question returns the reply subject of the next beat: empty, if it asks nothing.
func (w *Worker) question() (reply string) {
	w.hall.do(func(a *audience) {
		if a.ask(time.Now()) {
			reply = w.subjects.WorkerRollcall(w.cfg.Hive)
		}
	})
	return reply
}

// unheard takes m if it says that nobody listens to this worker.
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
	hint := slog.String("hint", "is the hive of this machine running, with this id and prefix? \"hivebeat ls hives\" lists those that are")
	switch {
	case long:
		w.log.Warn("nobody listens to these beats", slog.String("subject", w.subject), hint)
	case tell:
		w.log.Info("nobody listens to these beats", slog.String("subject", w.subject), hint)
	}
	return true
}

// heardBy notes that the roll was called.
func (w *Worker) heardBy() {
	tell := false
	w.hall.do(func(a *audience) { tell = a.somebody() })
	if tell {
		w.log.Info("somebody listens to these beats", slog.String("subject", w.subject))
	}
}

// noticeEvery is how often it is logged that the hive refuses this worker.
const noticeEvery = time.Minute

// noticed takes that the hive refuses beats, perhaps of this worker.
func (w *Worker) noticed(n hivebeat.Notice) {
	if n.ID != w.cfg.ID || n.Inc != w.inc {
		return // they are of another process
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

// answered notes what came in place of a roll call. A stream that stores beats
// answers each question, and by the subject of the question all workers of the
// hive: then none is asked any more.
func (w *Worker) answered(payload []byte) {
	if len(payload) > 0 && payload[0] == '{' {
		w.hall.do(func(a *audience) { a.off = true })
	}
}
