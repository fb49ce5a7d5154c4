package worker

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/beatfabric/hivebeat"
)

// Facts are what a worker reports about itself, besides its state. All texts are UTF-8.
// The limits are those of docs/PROTOCOL.md. All facts together may take about 7 KiB.
type Facts struct {
	Model    string            // the model it serves; 256 bytes
	Endpoint string            // where it serves the model, a URL; 512 bytes
	GPUs     []string          // UUIDs of the GPUs it uses; 64, each of 64 bytes
	Slots    uint64            // requests it can serve at once
	Need     uint64            // bytes of GPU memory that it will hold once it has loaded
	Labels   map[string]string // free-form; 32, with keys of 63 bytes and values of 128
	Data     []byte            // opaque, passed on unchanged; 1 KiB
	VRAM     uint64            // bytes it holds
	Busy     uint64            // slots in use
	Queue    uint64            // requests waiting
	Done     uint64            // work finished so far; only grows
}

// ErrInvalid: a state or facts that no beat may hold. The error names the field.
var ErrInvalid = errors.New("invalid")

// factsRoom is the space for the facts in a beat whose other keys all have their
// maximum length, so that the validity of facts depends on nothing else.
const factsRoom = hivebeat.MaxBeat - (2*hivebeat.MaxID + hivebeat.MaxState + hivebeat.MaxReason + 2*hivebeat.MaxConn + hivebeat.MaxHostText + 512)

// check returns nil, or an error that begins with the name of the field.
func (f *Facts) check() error {
	room := 0
	for _, t := range [...]struct {
		field, text string
		most        int
	}{{"Model", f.Model, hivebeat.MaxModel}, {"Endpoint", f.Endpoint, hivebeat.MaxEndpoint}} {
		if err := checkText(t.field, t.text, t.most); err != nil {
			return err
		}
		room += len(t.text)
	}
	if len(f.GPUs) > hivebeat.MaxGPUs {
		return fmt.Errorf("GPUs: %w: %d of them, at most %d are allowed", ErrInvalid, len(f.GPUs), hivebeat.MaxGPUs)
	}
	for _, id := range f.GPUs {
		if err := checkText("GPUs", id, hivebeat.MaxGPUID); err != nil {
			return err
		}
		room += 3 + len(id)
	}
	if len(f.Labels) > hivebeat.MaxLabels {
		return fmt.Errorf("Labels: %w: %d of them, at most %d are allowed", ErrInvalid, len(f.Labels), hivebeat.MaxLabels)
	}
	for k, v := range f.Labels {
		if err := checkText("Labels", k, hivebeat.MaxLabelKey); err != nil {
			return err
		}
		if err := checkText("Labels", v, hivebeat.MaxLabelVal); err != nil {
			return err
		}
		room += 6 + len(k) + len(v)
	}
	if len(f.Data) > hivebeat.MaxData {
		return fmt.Errorf("Data: %w: %d bytes, at most %d are allowed", ErrInvalid, len(f.Data), hivebeat.MaxData)
	}
	room += len(f.Data)
	for _, n := range [...]struct {
		field string
		n     uint64
	}{{"Slots", f.Slots}, {"Need", f.Need}, {"VRAM", f.VRAM}, {"Busy", f.Busy}, {"Queue", f.Queue}, {"Done", f.Done}} {
		if n.n > hivebeat.MaxInt {
			return fmt.Errorf("%s: %w: %d is over %d", n.field, ErrInvalid, n.n, uint64(hivebeat.MaxInt))
		}
	}
	if room > factsRoom {
		return fmt.Errorf("Facts: %w: %d bytes in all, at most %d fit a beat", ErrInvalid, room, factsRoom)
	}
	return nil
}

func checkText(field, s string, most int) error {
	switch {
	case len(s) > most:
		return fmt.Errorf("%s: %w: %.40q… has %d bytes, at most %d are allowed", field, ErrInvalid, s, len(s), most)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s: %w: %.40q is not UTF-8", field, ErrInvalid, s)
	}
	return nil
}

func checkState(s hivebeat.State) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: the state is empty", ErrInvalid)
	case s.Goodbye():
		return fmt.Errorf("%w: %s is a goodbye; call Stop or Fail instead", ErrInvalid, s)
	}
	return checkText("state", string(s), hivebeat.MaxState)
}

// clone returns facts that share no memory with f.
func (f *Facts) clone() Facts {
	c := *f
	c.GPUs, c.Labels, c.Data = slices.Clone(f.GPUs), maps.Clone(f.Labels), bytes.Clone(f.Data)
	return c
}

// keep returns a version of f that is safe to store. It reuses the values of old where
// they are equal, which is the usual case, and clones the others, because the program
// may still write to its own. same reports whether all values are equal.
func (f *Facts) keep(old *Facts) (kept *Facts, same bool) {
	k := *f
	same = f.Model == old.Model && f.Endpoint == old.Endpoint && f.Slots == old.Slots && f.Need == old.Need &&
		f.VRAM == old.VRAM && f.Busy == old.Busy && f.Queue == old.Queue && f.Done == old.Done
	if slices.Equal(f.GPUs, old.GPUs) {
		k.GPUs = old.GPUs
	} else {
		k.GPUs, same = slices.Clone(f.GPUs), false
	}
	if maps.Equal(f.Labels, old.Labels) {
		k.Labels = old.Labels
	} else {
		k.Labels, same = maps.Clone(f.Labels), false
	}
	if bytes.Equal(f.Data, old.Data) {
		k.Data = old.Data
	} else {
		k.Data, same = bytes.Clone(f.Data), false
	}
	return &k, same
}

// over returns f, with the values of base where f leaves them empty.
func (f *Facts) over(base *Facts) Facts {
	out := *f
	if out.Model == "" {
		out.Model = base.Model
	}
	if out.Endpoint == "" {
		out.Endpoint = base.Endpoint
	}
	if len(out.GPUs) == 0 {
		out.GPUs = base.GPUs
	}
	if out.Slots == 0 {
		out.Slots = base.Slots
	}
	if out.Need == 0 {
		out.Need = base.Need
	}
	if len(out.Labels) == 0 {
		out.Labels = base.Labels
	}
	if len(out.Data) == 0 {
		out.Data = base.Data
	}
	return out
}
