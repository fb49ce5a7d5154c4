package show

import (
	"cmp"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// DrainedNote says who drained something, why and for how long: "drained by ann: kernel update, 2h left". of is what
// the note is about; what is drained with something else says so. extra is the time since the answer arrived.
func DrainedNote(d *api.Drained, of string, extra time.Duration) string {
	if d == nil {
		return ""
	}
	text := "drained"
	if d.Of != of {
		text += map[string]string{"hive": " with its hive", "gpu": " with its GPU"}[d.Of]
	}
	text += " by " + d.By
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	if left := max(0, d.Left.Duration()-extra); d.Left > 0 {
		text += ", " + Age(left) + " left"
	}
	return plaintext.Line(text)
}

// drainedNotes are the notes of what is drained of a hive.
func drainedNotes(h *api.HiveInfo, extra time.Duration) (notes []string) {
	if h.Drained != nil {
		notes = append(notes, DrainedNote(h.Drained, "hive", extra))
	}
	if len(h.DrainedGPUs) > 2 {
		return append(notes, Plural(len(h.DrainedGPUs), "GPU")+" drained")
	}
	for i := range h.GPUs {
		if d, ok := h.DrainedGPUs[h.GPUs[i].UUID]; ok {
			notes = append(notes, gpuName(h.GPUs[i].Index)+" "+DrainedNote(&d, "gpu", extra))
		}
	}
	return notes
}

// drained shows who drained something, and since when.
func (d *detail) drained(is *api.Drained, of string) {
	if is == nil {
		return
	}
	text := strings.TrimPrefix(DrainedNote(is, of, 0), "drained ")
	d.line("drained", "%s", d.p.Text(text+" · for "+age(is.Since)+" · no new work", Notice))
}

// PlaceOf names what a drain is about, as it is written on the command line.
func PlaceOf(d *api.Directive) string {
	text := d.Hive
	if part := cmp.Or(d.Worker, d.GPU); part != "" {
		text += "/" + part
	}
	return plaintext.Line(text)
}
