package gpu

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Change is a change of a GPU, for the log. Kind and N are empty if it is no transition:
// a GPU is unknown, or known again.
type Change hivebeat.GPUTransition

// moment is a transition and when it was made.
type moment struct {
	hivebeat.GPUTransition
	at time.Time
}

// announce numbers a transition.
func (f *Fleet) announce(now time.Time, t hivebeat.GPUTransition) {
	f.n++
	t.N = f.n
	t.Evidence = plaintext.Clip(t.Evidence, hivebeat.MaxReason)
	f.changes = append(f.changes, Change(t))
	f.moments = slices.DeleteFunc(f.moments, func(m moment) bool { return now.Sub(m.at) > hivebeat.TransitionsCarried })
	f.moments = append(f.moments, moment{t, now})
	f.moments = f.moments[max(0, len(f.moments)-hivebeat.MaxGPUTransitions):]
}

// N returns the number of transitions so far.
func (f *Fleet) N() uint64 { return f.n }

// Transitions returns those of the last hivebeat.TransitionsCarried, oldest first, and at
// most hivebeat.MaxGPUTransitions.
func (f *Fleet) Transitions(now time.Time) (list []hivebeat.GPUTransition) {
	for _, m := range f.moments {
		if ago := now.Sub(m.at); ago <= hivebeat.TransitionsCarried {
			t := m.GPUTransition
			t.Ago = hivebeat.MillisOf(ago)
			list = append(list, t)
		}
	}
	return list
}

// TakeChanges returns the changes since the last call.
func (f *Fleet) TakeChanges() []Change {
	list := f.changes
	f.changes = nil
	return list
}

// Errors of Forget.
var (
	ErrNotKnown = errors.New("no such GPU is known")
	ErrPresent  = errors.New("it is there")
)

// Forget removes a GPU that is gone, for asker. It also removes one that must be
// replaced: if it is still there it is known again after the next reading, with what that
// says of it alone.
func (f *Fleet) Forget(now time.Time, uuid, asker string) error {
	d := f.devices[uuid]
	switch {
	case d == nil:
		return fmt.Errorf("GPU %.64q: %w", uuid, ErrNotKnown)
	case d.missing == "" && d.stuck == nil:
		return fmt.Errorf("GPU %d (%s): %w, and %s", d.gpu.Index, d.key, ErrPresent, d.verdict.State)
	}
	delete(f.devices, uuid)
	f.announce(now, hivebeat.GPUTransition{
		Kind: hivebeat.KindGPUForgotten, GPU: d.key, Index: d.gpu.Index, From: d.verdict.State,
		Cause: hivebeat.CauseForgot, Asker: plaintext.Clip(asker, hivebeat.MaxID),
	})
	f.judge(now)
	return nil
}
