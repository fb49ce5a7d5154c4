package detector

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
)

// StallLabel is the label by which a worker says after which time without progress
// it is stalled: a Go duration, 0 for never. What is not one counts as not said.
const StallLabel = "stall_after"

// stalled is what From and To of a transition say.
const stalled = "stalled"

// progress is how the work of a worker goes on: done grows, or there is none. Both
// are known from beats alone, so beats alone decide. Done only grows: where it is
// the same in two beats, nothing was finished in between, however many beats are
// missing there.
type progress struct {
	at      time.Time // when there was progress, or no work, at the latest
	text    string    // of the label that after is from
	after   time.Duration
	said    bool // after counts
	stalled bool
}

// limit takes over what the labels say.
func (p *progress) limit(labels map[string]string) {
	text := labels[StallLabel]
	if text == p.text {
		return
	}
	d, err := time.ParseDuration(text)
	p.text, p.after, p.said = text, d, err == nil && d >= 0
}

// SetStallAfter sets the limit for workers that do not say their own; 0 is never,
// which is the default. It is called before anything is heard.
func (r *Registry) SetStallAfter(d time.Duration) { r.stallAfter = d }

// advance looks at the work of w as an accepted beat tells of it: one that has been
// busy for the limit, and finished nothing, is stalled. That changes no verdict.
func (r *Registry) advance(now time.Time, w *worker, b beatStep) {
	p, after := &w.progress, r.stallAfter
	if p.said {
		after = p.after
	}
	switch f := &w.facts; {
	case w.live != hivebeat.Alive:
		p.at = now
	case b.outcome.Begins():
		p.at, p.stalled = now, false
	case after == 0 && (p.said || !p.stalled), f.Done != b.done, f.Busy == 0, b.busy == 0, f.Quiet > 0:
		p.at = now
		if p.stalled {
			p.stalled = false
			r.stall(now, w, b, stalled, "", "it goes on")
		}
	case !p.stalled && w.heard.Sub(p.at) >= after: // heard, not read: it may have waited, and what waits behind it goes on
		p.stalled = true
		r.stall(now, w, b, "", stalled, fmt.Sprintf("%d busy, and done has been %d for %s", f.Busy, f.Done, w.heard.Sub(p.at).Round(time.Millisecond)))
	}
}

func (r *Registry) stall(now time.Time, w *worker, b beatStep, from, to, reason string) {
	s := r.note(now, w, hivebeat.KindStalled, b.age)
	s.From, s.To, s.Reason = from, to, reason
	r.keep(w)
}
