package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
)

// StallLabel is the label with which a worker sets its limit for work without progress:
// a Go duration, 0 for never. Any other value counts as unset.
const StallLabel = "stall_after"

// stalled is the value of From and To in a transition.
const stalled = "stalled"

// work is what the beats of a worker say about its work.
type work struct{ busy, queue, done, tokens uint64 }

func workOf(f *hivebeat.Facts) work { return work{f.Busy, f.Queue, f.Done, f.Tokens} }

func (w work) String() string {
	if w.queue == 0 {
		return fmt.Sprintf("%d busy", w.busy)
	}
	return fmt.Sprintf("%d busy and %d waiting", w.busy, w.queue)
}

// any reports whether there is work, in progress or waiting.
func (w work) any() bool { return w.busy > 0 || w.queue > 0 }

// progress tracks whether the work of a worker advances: done or tokens grow, or there is
// no work. Only beats decide. Neither ever decreases: if two beats have the same values,
// nothing was done between them, however many beats are missing there.
type progress struct {
	at      time.Time // last time with progress or without work
	text    string    // the label value that after was parsed from
	after   time.Duration
	said    bool // after is set
	stalled bool
}

// limit takes over the limit in the labels.
func (p *progress) limit(labels map[string]string) {
	text := labels[StallLabel]
	if text == p.text {
		return
	}
	d, err := time.ParseDuration(text)
	p.text, p.after, p.said = text, d, err == nil && d >= 0
}

// SetStallAfter sets the limit for workers that do not set their own; 0 is never, which
// is the default. Call it before the first beat.
func (r *Registry) SetStallAfter(d time.Duration) { r.stallAfter = d }

// advance updates the progress of w from an accepted beat. A worker that has had
// work for the limit and has done nothing is stalled. That changes no verdict.
func (r *Registry) advance(now time.Time, w *worker, b beatStep) {
	p, after := &w.progress, r.stallAfter
	if p.said {
		after = p.after
	}
	switch f, is := &w.facts, workOf(&w.facts); {
	case w.live != hivebeat.Alive:
		p.at = now
	case b.outcome.Begins():
		p.at, p.stalled = now, false
	case after == 0 && (p.said || !p.stalled), is.done != b.work.done, is.tokens != b.work.tokens, !is.any(), !b.work.any(), f.Quiet > 0:
		p.at = now
		if p.stalled {
			p.stalled = false
			r.stall(now, w, b, stalled, "", "work advances again")
		}
	case !p.stalled && w.heard.Sub(p.at) >= after: // heard, not now: the beat may have waited, and the next one may show progress
		p.stalled = true
		r.stall(now, w, b, "", stalled, fmt.Sprintf("%s, and done has been %d for %s", is, f.Done, w.heard.Sub(p.at).Round(time.Millisecond)))
	}
}

func (r *Registry) stall(now time.Time, w *worker, b beatStep, from, to, reason string) {
	s := r.note(now, w, hivebeat.KindStalled, b.age)
	s.From, s.To, s.Reason = from, to, reason
	r.keep(w)
}
