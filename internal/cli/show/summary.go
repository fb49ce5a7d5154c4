package show

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Summary renders the counts of the fleet and their certainty in one line.
func Summary(s *api.Summary, st *api.Status, p Paint) string {
	return strings.Join(append(append(counts(s, p), Brakes(st, p)...), Sure(st, p)), " · ")
}

// Counts renders the counts of hives, of workers, and of GPUs if not all are ok, each as one
// text, followed by a note on wrong verdicts, if there were any.
func Counts(s *api.Summary, p Paint) []string {
	parts := lived(s, p)
	if s.GPUStates[hivebeat.GPUOK] < Total(s.GPUStates) {
		parts = append(parts, gpuStates(s.GPUs, s.GPUStates, p))
	}
	return append(parts, score(s, p)...)
}

// Brakes renders the zones whose brake is on, each as one text.
func Brakes(st *api.Status, p Paint) (parts []string) {
	for _, b := range st.Brake {
		zone := "no zone"
		if b.Zone != "" {
			zone = "zone " + b.Zone
		}
		parts = append(parts, p.Text(plaintext.Line("brake on in "+zone+": "+Plural(b.Held, "hive")+" held"), Bad))
	}
	return parts
}

// counts renders the counts of the fleet, in parts.
func counts(s *api.Summary, p Paint) []string {
	parts := lived(s, p)
	if gpus := gpuStates(s.GPUs, s.GPUStates, p); gpus != "" {
		parts = append(parts, gpus)
		vram := ""
		if s.VRAMTotal > 0 {
			vram = "VRAM " + usedOf(s.VRAMUsed, s.VRAMTotal) + " GiB"
		}
		if unknown := notKnown(s.VRAMStale, staleGPUs(s)); unknown != "" {
			vram = strings.TrimPrefix(vram+", "+p.Text(unknown, Warn), ", ")
		}
		if vram != "" {
			parts = append(parts, vram)
		}
	}
	return append(parts, score(s, p)...)
}

// staleGPUs is the number of GPUs behind VRAMStale: those that are not ok or degraded, or
// whose hive is not fresh.
func staleGPUs(s *api.Summary) int { return max(0, Total(s.GPUStates)-s.GPUs) }

// lived renders the hives and the workers by verdict.
func lived(s *api.Summary, p Paint) []string {
	live := func(l hivebeat.Live, text string) string { return p.Text(text, liveStyle(l)) }
	part := func(n int, noun, counts string) string {
		if counts == "" {
			return Plural(n, noun)
		}
		return Plural(n, noun) + ": " + counts
	}
	workers := words(s.Workers, liveOrder, func(l hivebeat.Live, text string) string {
		text = live(l, text)
		if l == hivebeat.Alive {
			if states := words(s.States, hivebeat.States(), stateCount); states != "" {
				text += " (" + states + ")"
			}
		}
		return text
	})
	return []string{
		part(Total(s.Hives), "hive", words(s.Hives, liveOrder, live)),
		part(Total(s.Workers), "worker", workers),
	}
}

// score renders the number of wrong verdicts, if there were any.
func score(s *api.Summary, p Paint) (parts []string) {
	if n := s.Stats.FalseDead; n > 0 {
		parts = append(parts, p.Text(falsely(n), Warn))
	}
	return parts
}

// stateCount renders the number of workers in a state. The state may be empty.
func stateCount(s hivebeat.State, text string) string {
	if s == "" {
		return text + "without a state"
	}
	return text
}

// falsely renders the number of wrong verdicts.
func falsely(n uint64) string {
	if n == 1 {
		return "1 false death"
	}
	return strconv.FormatUint(n, 10) + " false deaths"
}

// Wrap joins parts, on as few lines of width as they need.
func Wrap(parts []string, width int) (lines []string) {
	for _, part := range parts {
		if last := len(lines) - 1; last >= 0 && Width(lines[last])+Width(part)+3 <= width {
			lines[last] += " · " + part
		} else {
			lines = append(lines, part)
		}
	}
	return lines
}

// Empty reports whether there is nothing to count.
func Empty(s *api.Summary) bool { return Total(s.Hives) == 0 && Total(s.Workers) == 0 }

// Sure renders the certainty of an answer: "sure", or why it is not.
func Sure(st *api.Status, p Paint) string {
	why := st.Unsure
	if len(why) == 0 && !st.Warm {
		why = []string{"the queen has just started and has not heard from every hive yet"}
	}
	if len(why) == 0 {
		return p.Text("sure", Good)
	}
	return p.Text(plaintext.Line("not sure: "+strings.Join(why, "; ")), Warn)
}

// Total sums up counts.
func Total[W ~string](counts map[W]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// Event renders an event in one line: time, kind, subject, and reason. Times are in loc.
func Event(e *hivebeat.Event, loc *time.Location, p Paint) string {
	d := &e.Data
	subject := cmp.Or(e.Subject, "fabric")
	var more []string
	if strings.HasPrefix(string(d.Kind), "gpu-") {
		more = gpuEvent(d)
	} else if s := step(d.From, d.To); s != "" {
		more = append(more, s)
	}
	if d.Cause != "" && string(d.Cause) != d.Reason && !gpuSays(d) {
		more = append(more, causeText(d.Cause))
	}
	switch d.Kind {
	case hivebeat.KindForgotten, hivebeat.KindDrained, hivebeat.KindUndrained, hivebeat.KindSilenced, hivebeat.KindUnsilenced:
		more = append(more, directiveEvent(d)...)
	}
	if d.Reason != "" {
		more = append(more, d.Reason)
	}
	if d.Silenced {
		more = append(more, "silenced")
	}
	if d.Action != "" {
		more = append(more, "to do: "+actionText(d.Action))
	}
	if d.Kind == hivebeat.KindJoined && d.Model != "" {
		more = append(more, d.Model)
	}
	if d.Missing > 0 {
		more = append(more, strconv.FormatUint(d.Missing, 10)+" transitions missed")
	}
	line := e.Time.In(loc).Format("15:04:05") + "  " + p.Text(Pad(plaintext.Line(string(d.Kind)), kindWidth), kindStyle(d)) +
		"  " + Pad(plaintext.Line(subject), 24)
	if len(more) > 0 {
		line += "  " + plaintext.Line(strings.Join(more, " · "))
	}
	return strings.TrimRight(line, " ")
}

// gpuSays reports whether the rest of an event of a GPU says more than its cause.
func gpuSays(d *hivebeat.EventData) bool {
	return d.GPU != "" && d.Reason != "" || d.Kind == hivebeat.KindGPUOrphan || d.Kind == hivebeat.KindGPUForgotten
}

// kindWidth is the width of the longest kind of event.
const kindWidth = len(hivebeat.KindGPURecovered)

// gpuEvent names the GPU of an event, and what happened to it.
func gpuEvent(d *hivebeat.EventData) []string {
	gpu := "GPU " + d.GPU
	if d.GPUIndex != nil {
		gpu = gpuName(*d.GPUIndex)
	}
	switch d.Kind {
	case hivebeat.KindGPUOrphan:
		return []string{gpu, "orphan of " + cmp.Or(d.Owner, "a worker")}
	case hivebeat.KindGPUForgotten:
		if d.Asker != "" {
			return []string{gpu, "by " + d.Asker}
		}
		return []string{gpu}
	}
	if s := step(d.From, d.To); s != "" {
		gpu += " " + s
	}
	return []string{gpu}
}

// directiveEvent says which GPU of a hive was meant, who said it, and for how long.
func directiveEvent(d *hivebeat.EventData) (more []string) {
	if d.GPUIndex != nil {
		more = append(more, gpuName(*d.GPUIndex))
	} else if d.GPU != "" {
		more = append(more, "GPU "+d.GPU)
	}
	if d.Asker != "" {
		more = append(more, "by "+d.Asker)
	}
	if d.DuringMS != nil {
		more = append(more, "for "+Age(d.DuringMS.Duration()))
	}
	return more
}

func kindStyle(d *hivebeat.EventData) Style {
	switch d.Kind {
	case hivebeat.KindJoined, hivebeat.KindRecovered, hivebeat.KindGPURecovered:
		return Good
	case hivebeat.KindLost, hivebeat.KindConflict, hivebeat.KindGap, hivebeat.KindBrake, hivebeat.KindGPULost, hivebeat.KindGPUFailing:
		return Bad
	case hivebeat.KindLate, hivebeat.KindUnverified, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindGPUDegraded, hivebeat.KindGPUOrphan:
		return Warn
	case hivebeat.KindState, hivebeat.KindRestarted, hivebeat.KindDrained, hivebeat.KindSilenced:
		return Notice
	case hivebeat.KindLeft:
		return Faint
	}
	return Plain
}
