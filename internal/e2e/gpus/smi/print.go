//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// units are those of columns.
var units = map[string]string{
	"memory.total": "MiB", "memory.used": "MiB", "memory.free": "MiB", "memory.reserved": "MiB",
	"utilization.gpu": "%", "power.draw": "W", "used_memory": "MiB", "used_gpu_memory": "MiB",
}

// alias are the older names of columns.
var alias = map[string]string{"gpu_name": "name", "gpu_uuid": "uuid", "used_gpu_memory": "used_memory"}

// table prints rows as CSV. A row that is a string is printed as it is.
func table(w io.Writer, rows []any, columns, format string) {
	names := strings.Split(columns, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	if !strings.Contains(format, "noheader") {
		head := make([]string, len(names))
		for i, n := range names {
			if head[i] = n; units[n] != "" {
				head[i] += " [" + units[n] + "]"
			}
		}
		fmt.Fprintln(w, strings.Join(head, ", "))
	}
	for _, r := range rows {
		row, ok := r.(map[string]any)
		if !ok {
			fmt.Fprintln(w, r)
			continue
		}
		cells := make([]string, len(names))
		for i, n := range names {
			v, ok := row[n]
			if !ok {
				v, ok = row[alias[n]]
			}
			if cells[i] = text(v); !ok {
				cells[i] = "[N/A]"
			}
			if units[n] != "" && !strings.Contains(format, "nounits") && !strings.HasPrefix(cells[i], "[") {
				cells[i] += " " + units[n]
			}
		}
		fmt.Fprintln(w, strings.Join(cells, ", "))
	}
}

// text writes a value as nvidia-smi does: numbers without an exponent.
func text(v any) string {
	switch v := v.(type) {
	case json.Number:
		return v.String()
	case float64:
		if v == float64(int64(v)) {
			return fmt.Sprint(int64(v))
		}
	}
	return fmt.Sprint(v)
}

func (s *scene) list(w io.Writer, gpus []any) {
	for _, r := range gpus {
		g, ok := r.(map[string]any)
		if !ok {
			fmt.Fprintln(w, r)
			continue
		}
		fmt.Fprintf(w, "GPU %s: %s (UUID: %s)\n", text(g["index"]), text(g["name"]), text(g["uuid"]))
		for _, m := range instances(g) {
			fmt.Fprintf(w, "  MIG %s     Device  %s: (UUID: %s)\n", text(m["profile"]), text(m["index"]), text(m["uuid"]))
		}
	}
}

func instances(g map[string]any) (list []map[string]any) {
	all, _ := g["mig"].([]any)
	for _, m := range all {
		if m, ok := m.(map[string]any); ok {
			list = append(list, m)
		}
	}
	return list
}

// element is a part of the XML: a name with text, or with other elements.
type element struct {
	name string
	text string
	in   []element
}

func (e element) print(w io.Writer, depth int) {
	indent := strings.Repeat("\t", depth)
	name, _, _ := strings.Cut(e.name, " ") // its attributes follow
	if e.in == nil {
		fmt.Fprintf(w, "%s<%s>%s</%s>\n", indent, e.name, e.text, name)
		return
	}
	fmt.Fprintf(w, "%s<%s>\n", indent, e.name)
	for _, in := range e.in {
		in.print(w, depth+1)
	}
	fmt.Fprintf(w, "%s</%s>\n", indent, name)
}

// xml prints the parts of -q -x that a reader of GPUs may use, under the names and in the
// order of drivers since 565.
func (s *scene) xml(w io.Writer, gpus []any) {
	for _, r := range gpus { // messages come before the document
		if line, ok := r.(string); ok && !strings.HasPrefix(line, "[") {
			fmt.Fprintln(w, line)
		}
	}
	log := element{name: "nvidia_smi_log", in: []element{
		{name: "timestamp", text: "Mon Nov 30 13:30:00 2026"},
		{name: "driver_version", text: or(s.Driver, "570.00")},
		{name: "cuda_version", text: "12.8"},
	}}
	var list []element
	for i, r := range gpus {
		if g, ok := r.(map[string]any); ok {
			list = append(list, s.gpu(i, g))
		}
	}
	log.in = append(log.in, element{name: "attached_gpus", text: fmt.Sprint(len(list))})
	log.in = append(log.in, list...)
	fmt.Fprint(w, "<?xml version=\"1.0\" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\">\n")
	log.print(w, 0)
}

func (s *scene) gpu(i int, g map[string]any) element {
	// value is that of a column. XML has no brackets around words.
	value := func(column, none string) string {
		v, ok := g[column]
		if !ok {
			return none
		}
		return strings.Trim(text(v), "[]")
	}
	with := func(column, unit string) string { return measured(value(column, "N/A"), unit) }
	leaf := func(name, text string) element { return element{name: name, text: text} }
	bus := value("pci.bus_id", fmt.Sprintf("00000000:%02X:00.0", i+1))

	mig := leaf("mig_devices", "None")
	if list := instances(g); len(list) > 0 {
		mig = element{name: "mig_devices"}
		for _, m := range list {
			mig.in = append(mig.in, element{name: "mig_device", in: []element{
				leaf("index", text(m["index"])), leaf("gpu_instance_id", text(m["gi"])), leaf("compute_instance_id", text(m["ci"])),
				memory(number(m["total"]), number(m["reserved"]), number(m["used"])),
			}})
		}
	}
	reasons := element{name: "clocks_event_reasons"}
	for _, r := range []string{"gpu_idle", "sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"} {
		reasons.in = append(reasons.in, leaf("clocks_event_reason_"+r, value("clocks_event_reasons."+r, "Not Active")))
	}
	ecc := func(era string) element {
		return element{name: era, in: []element{
			leaf("sram_correctable", value("ecc."+era+".sram_correctable", "0")),
			leaf("sram_uncorrectable_parity", value("ecc."+era+".sram_uncorrectable_parity", "0")),
			leaf("sram_uncorrectable_secded", value("ecc."+era+".sram_uncorrectable_secded", "0")),
			leaf("dram_correctable", value("ecc."+era+".dram_correctable", "0")),
			leaf("dram_uncorrectable", value("ecc."+era+".dram_uncorrectable", "0")),
		}}
	}
	procs := element{name: "processes", in: []element{}}
	for _, a := range s.Apps {
		if a["gpu_uuid"] != g["uuid"] && a["uuid"] != g["uuid"] {
			continue
		}
		procs.in = append(procs.in, element{name: "process_info", in: []element{
			leaf("gpu_instance_id", or(a["gi"], "N/A")), leaf("compute_instance_id", or(a["ci"], "N/A")),
			leaf("pid", text(a["pid"])), leaf("type", "C"), leaf("process_name", or(a["process_name"], "python3")),
			leaf("used_memory", measured(or(a["used_memory"], "N/A"), "MiB")),
		}})
	}
	return element{name: fmt.Sprintf("gpu id=%q", bus), in: []element{
		leaf("product_name", value("name", "N/A")),
		{name: "mig_mode", in: []element{leaf("current_mig", value("mig.mode.current", "N/A")), leaf("pending_mig", value("mig.mode.current", "N/A"))}},
		mig,
		leaf("uuid", value("uuid", "N/A")), leaf("minor_number", value("index", fmt.Sprint(i))),
		leaf("gpu_recovery_action", value("gpu_recovery_action", "None")),
		{name: "pci", in: []element{leaf("pci_bus_id", bus)}},
		reasons,
		{name: "fb_memory_usage", in: []element{
			leaf("total", with("memory.total", "MiB")), leaf("reserved", with("memory.reserved", "MiB")),
			leaf("used", with("memory.used", "MiB")), leaf("free", with("memory.free", "MiB")),
		}},
		{name: "utilization", in: []element{leaf("gpu_util", with("utilization.gpu", "%"))}},
		{name: "ecc_errors", in: []element{ecc("volatile"), ecc("aggregate")}},
		{name: "remapped_rows", in: []element{
			leaf("remapped_row_corr", value("remapped_rows.correctable", "0")), leaf("remapped_row_unc", value("remapped_rows.uncorrectable", "0")),
			leaf("remapped_row_pending", value("remapped_rows.pending", "No")), leaf("remapped_row_failure", value("remapped_rows.failure", "No")),
		}},
		{name: "temperature", in: []element{leaf("gpu_temp", with("temperature.gpu", "C"))}},
		{name: "gpu_power_readings", in: []element{leaf("average_power_draw", with("power.draw", "W"))}},
		procs,
	}}
}

func memory(total, reserved, used int64) element {
	mib := func(name string, n int64) element {
		return element{name: name, text: fmt.Sprintf("%d MiB", max(0, n))}
	}
	return element{name: "fb_memory_usage", in: []element{
		mib("total", total), mib("reserved", reserved), mib("used", used), mib("free", total-reserved-used),
	}}
}

// measured adds a unit to a number.
func measured(v, unit string) string {
	if v == "" || strings.IndexFunc(v, func(c rune) bool { return c != '.' && c != '-' && (c < '0' || c > '9') }) >= 0 {
		return v
	}
	return v + " " + unit
}

func or(v any, none string) string {
	if v == nil || v == "" {
		return none
	}
	return text(v)
}

func number(v any) int64 {
	switch v := v.(type) {
	case json.Number:
		n, _ := v.Int64()
		return n
	case float64:
		return int64(v)
	}
	return 0
}
