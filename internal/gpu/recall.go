package gpu

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/beatfabric/hivebeat"
)

// KeepKnown is how long a GPU that was seen once stays known without being seen again.
const KeepKnown = 7 * 24 * time.Hour

// MemoryKey returns the key in the bucket queen_roster where queens keep the Memory of a
// hive. It is no id of a hive, so that readers of verdicts skip it.
func MemoryKey(hive string) string { return "gpus." + hive }

// Memory is what queens keep of a hive's GPUs, so that a GPU that disappears while the
// hive or its machine restarts is gone and not forgotten. Queens put it under MemoryKey
// when the GPUs or a state change, and daily while the hive sends snapshots. A GPU stays
// in it until a snapshot of the hive has a gpu-forgotten transition for it, or until
// KeepKnown is over: a hive that has just begun may not list it yet.
type Memory struct {
	V    int    `json:"v"`              // 1
	Boot string `json:"boot,omitempty"` // of the hive's machine, as the part of an ns before the slash; empty if unknown
	GPUs []Kept `json:"gpus"`
}

// Kept is what a Memory has of one GPU: the part of a hivebeat.GPU that outlives a
// reading. Since and Age are as of when the Memory was put.
type Kept struct {
	UUID     string            `json:"uuid"`
	Index    uint64            `json:"index"`
	Name     string            `json:"name,omitempty"`
	Bus      string            `json:"bus,omitempty"`
	Total    uint64            `json:"total,omitempty"`
	State    hivebeat.GPUState `json:"state,omitempty"`
	Cause    hivebeat.Cause    `json:"cause,omitempty"`
	Evidence string            `json:"evidence,omitempty"`
	Action   string            `json:"action,omitempty"`
	Since    hivebeat.Millis   `json:"since,omitempty"`
	Boots    uint64            `json:"boots,omitempty"`
	Age      hivebeat.Millis   `json:"age,omitempty"`
}

// Keep returns what a Memory has of g, whose Since and Age are effective ones.
func Keep(g *hivebeat.GPU) Kept {
	return Kept{
		UUID: g.UUID, Index: g.Index, Name: g.Name, Bus: g.Bus, Total: g.Total,
		State: g.Condition(), Cause: g.Cause, Evidence: g.Evidence, Action: g.Action, Since: g.Since, Boots: g.Boots, Age: g.Age,
	}
}

// maxMemory bounds the JSON of a Memory: a string escaped takes up to six times its bytes.
const maxMemory = hivebeat.MaxGPUs * 6 << 10

// Encode returns the JSON of m with the current version.
func (m Memory) Encode() ([]byte, error) {
	m.V = 1
	return json.Marshal(m)
}

// DecodeMemory decodes a Memory. It returns an error if a value is beyond the limits of
// the wire, so that a hive can send on what it recalls.
func DecodeMemory(b []byte) (m Memory, err error) {
	if len(b) > maxMemory {
		return m, fmt.Errorf("gpu: memory: %d bytes, at most %d are allowed", len(b), maxMemory)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Memory{}, fmt.Errorf("gpu: memory: %w", err)
	}
	switch {
	case m.V != 1:
		return Memory{}, fmt.Errorf("gpu: memory: version %d is not 1", m.V)
	case len(m.GPUs) > hivebeat.MaxGPUs:
		return Memory{}, fmt.Errorf("gpu: memory: %d GPUs, at most %d are allowed", len(m.GPUs), hivebeat.MaxGPUs)
	case !fits(m.Boot, hivebeat.MaxConn):
		return Memory{}, errors.New("gpu: memory: boot is too long")
	}
	for i := range m.GPUs {
		if err := m.GPUs[i].check(); err != nil {
			return Memory{}, fmt.Errorf("gpu: memory: %w", err)
		}
	}
	return m, nil
}

func (k *Kept) check() error {
	for _, t := range []struct {
		name, text string
		most       int
	}{
		{"uuid", k.UUID, hivebeat.MaxGPUID},
		{"name", k.Name, hivebeat.MaxHostText},
		{"bus", k.Bus, hivebeat.MaxGPUID},
		{"state", string(k.State), hivebeat.MaxState},
		{"cause", string(k.Cause), hivebeat.MaxState},
		{"evidence", k.Evidence, hivebeat.MaxReason},
		{"action", k.Action, hivebeat.MaxState},
	} {
		if !fits(t.text, t.most) {
			return fmt.Errorf("%s of GPU %.64q is not at most %d bytes of UTF-8", t.name, k.UUID, t.most)
		}
	}
	if k.UUID == "" {
		return errors.New("a GPU without a uuid")
	}
	if max(k.Index, k.Total, uint64(k.Since), k.Boots, uint64(k.Age)) > hivebeat.MaxInt {
		return fmt.Errorf("a number of GPU %.64q is above 2^53 - 1", k.UUID)
	}
	return nil
}

func fits(s string, most int) bool { return len(s) <= most && utf8.ValidString(s) }

// Recall adds the GPUs that queens kept, if they are not known yet. stored is how long ago
// the Memory was put. rebooted reports that the machine began a new boot since: that ends
// every fault but those that need a replacement.
func (f *Fleet) Recall(now time.Time, m Memory, stored time.Duration, rebooted bool) {
	for i := range m.GPUs {
		k := &m.GPUs[i]
		age := k.Age.Duration() + stored
		if f.devices[k.UUID] != nil || age >= KeepKnown || len(f.devices) >= hivebeat.MaxGPUs {
			continue
		}
		d := &device{
			key: k.UUID, gpu: hivebeat.GPU{UUID: k.UUID, Index: k.Index, Name: k.Name, Bus: k.Bus, Total: k.Total},
			read: now.Add(-age), seen: now.Add(-age), boots: k.Boots, since: now.Add(-k.Since.Duration() - stored),
		}
		d.recall(now, Fault{State: k.State, Cause: k.Cause, Evidence: k.Evidence, Action: k.Action}, rebooted)
		f.devices[k.UUID] = d
	}
	f.judge(now)
}

// recall restores the fault v, which has been announced.
func (d *device) recall(now time.Time, v Fault, rebooted bool) {
	if v.State.Bad() || v.State == hivebeat.GPUDegraded {
		d.flaps.told, d.flaps.replaced = v.State, v.Action == hivebeat.ActionReplace
	}
	switch {
	case v.State == hivebeat.GPUGone:
		d.missing = v.Evidence
		if d.missing == "" {
			d.missing = "missing since before the hive began"
		}
		d.verdict = v
		return
	case v.State != hivebeat.GPUFailing || v.Cause == hivebeat.CauseMachine: // concluded again from readings
	case v.Action == hivebeat.ActionReplace:
		d.stuck, d.verdict = &v, v
		return
	case rebooted:
		d.boots, d.before = d.boots+1, v
	default:
		d.before, d.verdict = v, v
		if v.Cause == hivebeat.CauseXID {
			d.pending = &pending{Fault: v, at: now}
		} else {
			d.faults = []Fault{v}
		}
		return
	}
	if d.boots > 0 && d.before.State == "" { // which fault it was is not known
		d.boots = 0
	}
	d.verdict, d.since = Fault{State: hivebeat.GPUUnknown, Cause: hivebeat.CauseUnread}, now
}
