package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// DefaultBackoff is the longest wait between two readings of an engine that keeps failing.
const DefaultBackoff = 30 * time.Second

// patience is how many readings in a row must end without an answer before the engine is
// degraded. One alone proves nothing: engines do not answer during a long prefill
// (ikawrakow/ik_llama.cpp#1210, sgl-project/sglang#22511).
const patience = 3

// again is how soon the engine is asked again after a reading without an answer, so that a dead one
// is known as such within some 15 s.
const again = time.Second

// JudgeConfig has the times of a [Judge]. The zero value works.
type JudgeConfig struct {
	Every   time.Duration // between two readings, [DefaultEvery] by default
	Backoff time.Duration // the longest wait after failures, [DefaultBackoff] by default, never below Every
}

// Judge turns readings and failures into the state that a worker reports. It has no clock, no
// timer and no lock.
//
//	refused, never read        starting       nothing listens until the model is loaded
//	refused, read before       degraded       at once, with how long
//	a reading                  as it says     ready, busy, sleeping, degraded, loading; 503 with
//	                                          such a text is a reading
//	429                        busy           the engine has no room even for a probe
//	401, 403, 5xx              degraded       at once, with the first line of the answer
//	another answer             degraded       at once, with what came
//	no answer                  as before      and degraded from the third in a row, with how long
//
// No answer is a timeout, or a connection that broke or was not made for another reason than a
// refusal. Before the first answer, "as before" is starting.
type Judge struct {
	every, backoff time.Duration

	heard   time.Time // the last answer or refusal, or the first Hear
	refused time.Time // since when the port refuses connections; zero: it does not
	fails   int       // readings in a row that failed, other than by a refusal
	silent  int       // readings in a row without an answer

	report       Report
	done, tokens counter
}

// Report is what a [Judge] concludes from everything that it heard.
type Report struct {
	State  hivebeat.State
	Reason string
	// Reading is the last good one. Its Done and Tokens never fall: if the engine restarts and
	// counts from zero, they continue from the old count. They keep their value while the engine
	// does not say them, as vLLM does between a restart and its first request.
	Reading Reading
	Probed  time.Time     // when the last good reading was heard; zero: never
	Next    time.Duration // when to read again, before jitter
}

// NewJudge returns a Judge that has heard nothing.
func NewJudge(cfg JudgeConfig) *Judge {
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = DefaultBackoff
	}
	return &Judge{
		every: cfg.Every, backoff: max(cfg.Every, cfg.Backoff),
		report: Report{State: hivebeat.Starting, Next: cfg.Every},
	}
}

// Hear takes the result of one reading that ended now. A reading that ended because the caller's
// context did says nothing about the engine, and changes nothing.
func (j *Judge) Hear(now time.Time, r Reading, err error) Report {
	if j.heard.IsZero() {
		j.heard = now
	}
	if err == nil {
		j.good(now, r)
		return j.report
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return j.report
	}
	j.bad(now, err)
	return j.report
}

// good takes a reading.
func (j *Judge) good(now time.Time, r Reading) {
	j.fails, j.silent, j.refused, j.heard = 0, 0, time.Time{}, now
	r.Done, r.Tokens = j.done.add(r.Done), j.tokens.add(r.Tokens)
	if r.State == "" {
		r.State = hivebeat.Ready
	}
	j.report = Report{State: r.State, Reason: r.Reason, Reading: r, Probed: now, Next: j.every}
}

// bad takes a failure.
func (j *Judge) bad(now time.Time, err error) {
	if errors.Is(err, ErrRefused) {
		// A refusal is free and comes at once, so the port is tried at the full rate: an engine
		// that has loaded for 12 minutes is seen when it is ready.
		j.fails, j.silent, j.heard, j.report.Next = 0, 0, now, j.every
		if j.report.Probed.IsZero() {
			j.say(hivebeat.Starting, "refuses connections")
			return
		}
		if j.refused.IsZero() {
			j.refused = now
		}
		j.say(hivebeat.Degraded, "refuses connections since "+short(now.Sub(j.refused)))
		return
	}
	j.refused = time.Time{}
	j.fails++
	j.report.Next = j.every
	for i := patience; i < j.fails && j.report.Next < j.backoff; i++ {
		j.report.Next = min(2*j.report.Next, j.backoff)
	}

	_, status := errors.AsType[*StatusError](err)
	switch {
	case errors.Is(err, ErrBusy):
		j.say(hivebeat.Busy, err.Error())
	case status, errors.Is(err, ErrUnauthorized), errors.Is(err, ErrAnswer):
		j.say(hivebeat.Degraded, err.Error())
	default:
		j.silent++
		if j.silent < patience { // Probed says it, because it stays; whether it is a habit is seen soon
			j.report.Next = min(j.every, again)
			return
		}
		reason := "no answer for " + short(now.Sub(j.heard))
		if !errors.Is(err, ErrTimeout) {
			reason += ": " + err.Error()
		}
		j.say(hivebeat.Degraded, reason)
		return
	}
	j.silent, j.heard = 0, now
}

func (j *Judge) say(state hivebeat.State, reason string) {
	j.report.State, j.report.Reason = state, plaintext.Clip(plaintext.Line(reason), hivebeat.MaxReason)
}

// short returns d in one unit: a reason that changes with every second is a beat every second.
func short(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	}
	return fmt.Sprintf("%.0fh", d.Hours())
}

// counter makes a count monotone that begins at zero with every restart of the engine.
type counter struct {
	base, last uint64 // the count before the last restart, and since then
	known      bool
}

func (c *counter) add(v *uint64) *uint64 {
	if v != nil {
		if *v < c.last {
			c.base += c.last
		}
		c.last, c.known = *v, true
	}
	if !c.known {
		return nil
	}
	sum := min(c.base+c.last, hivebeat.MaxInt)
	return &sum
}
