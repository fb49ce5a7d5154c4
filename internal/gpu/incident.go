package gpu

import (
	"context"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Watcher is a Reader that also reports errors as they happen. Watch calls report until
// ctx ends; an error means that it can report nothing more.
type Watcher interface {
	Watch(ctx context.Context, report func(Incident)) error
}

// Incident is an error that a driver reported at one moment, such as an XID, already
// classified.
type Incident struct {
	UUID string // of the GPU or MIG instance; empty if only Bus is known
	Bus  string // PCI address in any of the driver's forms
	PID  uint64 // the process at fault or concerned; 0 if unknown
	// Fault is what it says of the GPU. An empty State means nothing: the program is at
	// fault.
	Fault Fault
	// Note describes the error for the worker that has PID, if the program is at fault.
	Note string
}

const (
	// settleAfter is how long after an incident a reading must be to count as good, and
	// settleReadings how many of them in a row end the fault: a GPU that needs a reset
	// may look well in its figures right after the error.
	settleAfter    = time.Minute
	settleReadings = 2

	// keepNote is how long a worker keeps a note, and maxNotes how many workers do.
	keepNote = 24 * time.Hour
	maxNotes = 1000
)

// pending is a fault that an incident found and that good readings have not ended yet.
type pending struct {
	Fault
	at   time.Time
	good int // readings in a row
}

// note is the last incident of a worker's processes.
type note struct {
	text string
	at   time.Time
}

// Incident handles an error that a driver reported. It reports whether it concerns a
// known GPU or a worker.
func (f *Fleet) Incident(now time.Time, in Incident, owner OwnerOf) bool {
	if in.Fault.State == "" {
		return f.blame(now, in, owner)
	}
	d := f.named(in)
	if d == nil {
		return false
	}
	if d.pending == nil || rank(in.Fault.State) >= rank(d.pending.State) {
		d.pending = &pending{Fault: in.Fault, at: now}
	}
	f.judge(now)
	return true
}

func (f *Fleet) named(in Incident) *device {
	for _, d := range f.devices {
		if in.UUID == "" {
			if bus := NormalBus(in.Bus); bus != "" && NormalBus(d.gpu.Bus) == bus {
				return d
			}
			continue
		}
		if d.key == in.UUID {
			return d
		}
		for i := range d.gpu.Instances {
			if d.gpu.Instances[i].UUID == in.UUID {
				return d
			}
		}
	}
	return nil
}

// blame notes an error of a program at its worker.
func (f *Fleet) blame(now time.Time, in Incident, owner OwnerOf) bool {
	if in.PID == 0 || owner == nil {
		return false
	}
	whose, worker := owner(in.PID)
	if worker == "" || whose != Ours && whose != Orphaned {
		return false
	}
	for w, n := range f.notes {
		if now.Sub(n.at) > keepNote {
			delete(f.notes, w)
		}
	}
	if _, ok := f.notes[worker]; !ok && len(f.notes) >= maxNotes {
		return false
	}
	f.notes[worker] = note{plaintext.Clip(in.Note, hivebeat.MaxReason), now}
	return true
}

// Note returns what the driver reported last about a worker's processes, and when. It is
// empty if there is nothing.
func (f *Fleet) Note(now time.Time, worker string) (text string, at time.Time) {
	n, ok := f.notes[worker]
	if !ok || now.Sub(n.at) > keepNote {
		return "", time.Time{}
	}
	return n.text, n.at
}
