package show

import (
	"cmp"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Drained and Silenced are what operators do.
const (
	Drained  = "drained"
	Silenced = "silenced"
)

// Imposed names the operator of a drain or silence, the reason and the time left: "drained by ann: kernel update, 2h
// left". of is the subject of the note, which says so if something else is drained with it. extra is the time since
// the answer arrived.
func Imposed(past string, d *api.Imposed, of string, extra time.Duration) string {
	if d == nil {
		return ""
	}
	text := past
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

// imposedNotes are the notes on the drains and silences of a hive.
func imposedNotes(h *api.HiveInfo, extra time.Duration) (notes []string) {
	for _, note := range []string{Imposed(Drained, h.Drained, "hive", extra), Imposed(Silenced, h.Silenced, "hive", extra)} {
		if note != "" {
			notes = append(notes, note)
		}
	}
	if len(h.DrainedGPUs) > 2 {
		return append(notes, Plural(len(h.DrainedGPUs), "GPU")+" drained")
	}
	for i := range h.GPUs {
		if d, ok := h.DrainedGPUs[h.GPUs[i].UUID]; ok {
			notes = append(notes, gpuName(h.GPUs[i].Index)+" "+Imposed(Drained, &d, "gpu", extra))
		}
	}
	return notes
}

// imposed shows the operator of a drain or silence, and its beginning.
func (d *detail) imposed(drained, silenced *api.Imposed, of string) {
	for _, x := range []struct {
		past, means string
		is          *api.Imposed
	}{{Drained, "no new work", drained}, {Silenced, "no webhook and no alert", silenced}} {
		if x.is != nil {
			text := strings.TrimPrefix(Imposed(x.past, x.is, of, 0), x.past+" ")
			d.line(x.past, "%s", d.p.Text(text+" · for "+age(x.is.Since)+" · "+x.means, Notice))
		}
	}
}

// PlaceOf names what a drain or silence is about, as it is written on the command line.
func PlaceOf(d *api.Directive) string {
	text := d.Hive
	if part := cmp.Or(d.Worker, d.GPU); part != "" {
		text += "/" + part
	}
	return plaintext.Line(text)
}
