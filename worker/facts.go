package worker

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
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
	// PID is the process that serves, if that is not the process that beats: the one whose end
	// the hive reports, and whose memory counts as the worker's. It runs in the same pid
	// namespace. Default: this process.
	PID uint64

	// Facts of an inference engine that the worker serves its model with.
	Engine     string        // which engine: vllm, ollama …; 64 bytes
	Version    string        // of the engine; 64 bytes
	Context    uint64        // longest context that it serves, in tokens
	KVCapacity uint64        // tokens that its KV cache holds
	LoRA       hivebeat.LoRA // its adapters: 32 names in each list, each of 128 bytes
	Cold       []string      // models that it can load and has not loaded; 64, each of 256 bytes
	Tokens     uint64        // tokens generated so far; only grows
	KV         *float64      // use of the KV cache, 0 to 1; nil: unknown
	// Probed is when the engine reported these facts, if they are not the program's own. A
	// queen does not pick a worker whose engine has not been heard for too long.
	Probed time.Time
}

// ErrInvalid: a state or facts that no beat may hold. The error names the field.
var ErrInvalid = errors.New("invalid")

// factsRoom is the space for the facts in a beat whose other keys all have their
// maximum length, so that the validity of facts depends on nothing else.
const factsRoom = hivebeat.MaxBeat - (2*hivebeat.MaxID + hivebeat.MaxState + hivebeat.MaxReason + 2*hivebeat.MaxConn + hivebeat.MaxHostText + hivebeat.MaxEngine + 640)

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
	if err := f.checkEngine(&room); err != nil {
		return err
	}
	for _, n := range [...]struct {
		field string
		n     uint64
	}{{"Slots", f.Slots}, {"Need", f.Need}, {"VRAM", f.VRAM}, {"Busy", f.Busy}, {"Queue", f.Queue}, {"Done", f.Done}, {"Tokens", f.Tokens}, {"Context", f.Context}, {"PID", f.PID}, {"KVCapacity", f.KVCapacity}} {
		if n.n > hivebeat.MaxInt {
			return fmt.Errorf("%s: %w: %d is over %d", n.field, ErrInvalid, n.n, uint64(hivebeat.MaxInt))
		}
	}
	if room > factsRoom {
		return fmt.Errorf("Facts: %w: %d bytes in all, at most %d fit a beat", ErrInvalid, room, factsRoom)
	}
	return nil
}

// checkEngine is the part of check for an engine's facts. It adds their size to room.
func (f *Facts) checkEngine(room *int) error {
	if f.KV != nil && !(*f.KV >= 0 && *f.KV <= 1) { // NaN included
		return fmt.Errorf("KV: %w: %v is not within 0 to 1", ErrInvalid, *f.KV)
	}
	for _, l := range [...]struct {
		field       string
		texts       []string
		many, bytes int
	}{
		{"Engine", []string{f.Engine}, 1, hivebeat.MaxEngine},
		{"Version", []string{f.Version}, 1, hivebeat.MaxEngine},
		{"LoRA.On", f.LoRA.On, hivebeat.MaxAdapters, hivebeat.MaxAdapter},
		{"LoRA.Wait", f.LoRA.Wait, hivebeat.MaxAdapters, hivebeat.MaxAdapter},
		{"Cold", f.Cold, hivebeat.MaxCold, hivebeat.MaxModel},
	} {
		if len(l.texts) > l.many {
			return fmt.Errorf("%s: %w: %d of them, at most %d are allowed", l.field, ErrInvalid, len(l.texts), l.many)
		}
		for _, text := range l.texts {
			if err := checkText(l.field, text, l.bytes); err != nil {
				return err
			}
			*room += 3 + len(text)
		}
	}
	if f.LoRA.Max > hivebeat.MaxInt {
		return fmt.Errorf("LoRA.Max: %w: %d is over %d", ErrInvalid, f.LoRA.Max, uint64(hivebeat.MaxInt))
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
	c.Cold, c.LoRA.On, c.LoRA.Wait = slices.Clone(f.Cold), slices.Clone(f.LoRA.On), slices.Clone(f.LoRA.Wait)
	if f.KV != nil {
		c.KV = new(*f.KV)
	}
	return c
}

// keep returns a version of f that is safe to store. It reuses the values of old where
// they are equal, which is the usual case, and clones the others, because the program
// may still write to its own. same reports whether all values that are worth a beat are
// equal.
func (f *Facts) keep(old *Facts) (kept *Facts, same bool) {
	k := *f
	same = f.Model == old.Model && f.Endpoint == old.Endpoint && f.Slots == old.Slots && f.Need == old.Need &&
		f.VRAM == old.VRAM && f.Busy == old.Busy && f.Queue == old.Queue && f.Done == old.Done && f.PID == old.PID &&
		f.sameEngine(old)
	if slices.Equal(f.Cold, old.Cold) {
		k.Cold = old.Cold
	} else {
		k.Cold = slices.Clone(f.Cold)
	}
	k.LoRA.On, k.LoRA.Wait = slices.Clone(f.LoRA.On), slices.Clone(f.LoRA.Wait)
	if f.KV != nil {
		k.KV = new(*f.KV)
	}
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

// sameEngine reports whether the facts of the engine are equal, but for Tokens, KV and
// Probed. These change with every reading, and alone are not worth a beat.
func (f *Facts) sameEngine(old *Facts) bool {
	return f.Engine == old.Engine && f.Version == old.Version && f.Context == old.Context && f.KVCapacity == old.KVCapacity &&
		f.LoRA.Max == old.LoRA.Max && slices.Equal(f.LoRA.On, old.LoRA.On) && slices.Equal(f.LoRA.Wait, old.LoRA.Wait) &&
		slices.Equal(f.Cold, old.Cold)
}

// over returns f, with the values of base where f leaves them empty.
func (f *Facts) over(base *Facts) Facts {
	out := *f
	out.Model = cmp.Or(out.Model, base.Model)
	out.Endpoint = cmp.Or(out.Endpoint, base.Endpoint)
	if len(out.GPUs) == 0 {
		out.GPUs = base.GPUs
	}
	out.Slots, out.Need, out.PID = cmp.Or(out.Slots, base.Slots), cmp.Or(out.Need, base.Need), cmp.Or(out.PID, base.PID)
	if len(out.Labels) == 0 {
		out.Labels = base.Labels
	}
	if len(out.Data) == 0 {
		out.Data = base.Data
	}
	out.Engine, out.Version = cmp.Or(out.Engine, base.Engine), cmp.Or(out.Version, base.Version)
	out.Context, out.KVCapacity = cmp.Or(out.Context, base.Context), cmp.Or(out.KVCapacity, base.KVCapacity)
	if out.LoRA.IsZero() {
		out.LoRA = base.LoRA
	}
	if len(out.Cold) == 0 {
		out.Cold = base.Cold
	}
	return out
}
