package gpu

import (
	"fmt"
	"strings"
)

// told writes a reading as lines, in MiB. What is absent is not written.
func told(r Reading) string {
	var b strings.Builder
	for _, d := range r.Devices {
		fmt.Fprintf(&b, "%d %s %s", d.Index, short(d.UUID), d.Name)
		if d.Bus != "" {
			fmt.Fprintf(&b, " at %s", d.Bus)
		}
		if d.Total > 0 {
			fmt.Fprintf(&b, ", %d = %d used + %d reserved + %d free", d.Total>>20, d.Used>>20, d.Reserved>>20, d.Free()>>20)
		}
		if d.Unified {
			b.WriteString(", unified")
		}
		for _, v := range []struct {
			n    int64
			unit string
		}{{int64(d.Util), "%"}, {d.Temp, "°C"}, {int64(d.Power), "mW"}} {
			if v.n != 0 {
				fmt.Fprintf(&b, ", %d %s", v.n, v.unit)
			}
		}
		if d.MIG {
			b.WriteString(", MIG")
		}
		if d.Err != "" {
			fmt.Fprintf(&b, ", unread: %s", d.Err)
		}
		b.WriteString("\n")
		for _, i := range d.Instances {
			fmt.Fprintf(&b, "  %s %s %d/%d, %d = %d used + %d reserved + %d free\n", short(i.UUID), i.Profile, i.GI, i.CI, i.Total>>20, i.Used>>20, i.Reserved>>20, i.Free()>>20)
		}
		for _, f := range d.Faults {
			fmt.Fprintf(&b, "  %s\n", verdict(f))
		}
	}
	for _, p := range r.Procs {
		fmt.Fprintf(&b, "pid %d on %s, %d\n", p.PID, short(p.UUID), p.Used>>20)
	}
	for _, m := range r.Mentions {
		fmt.Fprintf(&b, "mention of %q, index %d: %s\n", m.Bus, m.Index, verdict(m.Fault))
	}
	return b.String()
}

func verdict(f Fault) string {
	s := fmt.Sprintf("%s, %s: %s", f.State, f.Cause, f.Evidence)
	if f.Action != "" {
		s += " -> " + f.Action
	}
	return s
}

func short(uuid string) string {
	uuid = strings.ReplaceAll(uuid, "000000-0000-0000-0000-00000000000", "…")
	return uuid
}

// says reports whether the error holds the text, or is nil if the text is empty.
func says(err error, text string) bool {
	if text == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), text)
}
