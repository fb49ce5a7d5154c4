package show

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// detail collects lines of a name and a text.
type detail struct {
	p     Paint
	lines []string
}

func (d *detail) line(name, format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	if text == "" {
		return
	}
	d.lines = append(d.lines, "  "+d.p.Text(Pad(name, 10), Faint)+text)
}

func (d *detail) heading(kind, id string) {
	d.lines = append(d.lines, d.p.Text(kind+" "+plaintext.Line(id), Strong))
}

// join joins the parts that are not empty.
func join(parts ...string) string {
	var kept []string
	for _, s := range parts {
		if s != "" {
			kept = append(kept, plaintext.Line(s))
		}
	}
	return strings.Join(kept, " · ")
}

func pairs(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return plaintext.Line(strings.Join(parts, " "))
}

func began(inc uint64) string {
	return time.UnixMicro(int64(min(inc, hivebeat.MaxInt))).UTC().Format("2006-01-02 15:04:05 UTC")
}

// conflict describes two hives or workers with one id: what to do, and where they run.
func (d *detail) conflict(what string, believed, refused hivebeat.Place) {
	d.line("conflict", "%s", d.p.Text("two "+what+" beat with this id: stop one, or give it another --id", Bad))
	d.line("", "%s", place("accepted", believed))
	if refused.Inc != 0 { // older queens do not report it
		d.line("", "%s", place("refused, and not shown", refused))
	}
}

// place describes where one of the two runs.
func place(which string, at hivebeat.Place) string {
	parts := []string{fmt.Sprintf("%s: began %s (incarnation %d)", which, began(at.Inc), at.Inc)}
	if at.Host != "" {
		parts = append(parts, "host "+at.Host)
	}
	if at.PID > 0 {
		parts = append(parts, "pid "+strconv.FormatUint(at.PID, 10))
	}
	if at.Conn != "" {
		parts = append(parts, "connection "+at.Conn)
	}
	if at.Addr != "" {
		parts = append(parts, "from "+at.Addr)
	}
	return join(parts...)
}

// Hive renders everything that is known about a hive except its workers.
func Hive(h *api.HiveInfo, st *api.Status, p Paint) []string {
	d := &detail{p: p}
	d.heading("hive", h.Hive)
	cause := ""
	if h.Cause != "" {
		cause = "cause " + causeText(h.Cause)
	}
	d.line("live", "%s for %s%s", p.Text(plaintext.Line(string(h.Live)), liveStyle(h.Live)), age(h.Since), dot(join(cause, h.Bye)))
	d.imposed(h.Drained, h.Silenced, "hive")
	if h.Conflict {
		believed, refused := cmp.Or(h.Believed, &hivebeat.Place{Inc: h.Inc}), cmp.Or(h.Refused, &hivebeat.Place{Inc: h.Rival})
		d.conflict("hives", *believed, *refused)
	}
	fresh := ""
	if !h.Fresh {
		fresh = p.Text(" · too old: the facts below are from that time", Warn)
	}
	d.line("heard", "%s ago, promised every %s%s", age(h.Age), h.Every.Duration(), fresh)
	warm := ""
	if !h.Warm && h.Live == hivebeat.Alive { // a hive that is not alive is not expected to warm up
		warm = "still warming up: a missing worker may not have sent a beat yet"
	}
	d.line("snapshot", "%s", join("seq "+count(h.Seq), warm))
	d.line("began", "%s (incarnation %d)", began(h.Inc), h.Inc)
	d.line("zone", "%s", plaintext.Line(h.Zone))
	d.line("labels", "%s", pairs(h.Labels))
	d.line("workers", "%s", lives(h.Workers))
	if m := h.Host; m.Name != "" || m.CPUs > 0 {
		up := ""
		if m.Uptime > 0 {
			up = "up " + Age(time.Duration(min(m.Uptime, 1<<32))*time.Second)
		}
		d.line("host", "%s", join(m.Name, strings.Trim(m.OS+"/"+m.Arch, "/"), up))
		d.line("cpu", "%s of %s · load %.2f", percent(m.CPU), Plural(int(min(m.CPUs, 1<<20)), "CPU"), m.Load1)
		if m.MemTotal > 0 {
			d.line("memory", "%s GiB", usedOf(m.MemUsed, m.MemTotal))
		}
		d.line("system", "%s", join(named("kernel", m.Kernel), named("GPU driver", m.Driver)))
		d.line("disk", "%s", join(disk("model cache", m.CacheFree, m.CacheTotal), disk("store", m.StoreFree, m.StoreTotal)))
	}
	d.line("vram", "%s", hiveVRAM(h, p))
	for i := range h.GPUs {
		for k, line := range gpuLines(&h.GPUs[i], !h.Fresh, p) {
			name := "gpu " + strconv.FormatUint(h.GPUs[i].Index, 10)
			if k > 0 {
				name = ""
			}
			d.line(name, "%s", line)
		}
		if is, ok := h.DrainedGPUs[h.GPUs[i].UUID]; ok {
			d.line("", "%s", p.Text(Imposed(Drained, &is, "gpu", 0), Notice))
		}
	}
	var sources []string
	for _, k := range slices.Sorted(maps.Keys(h.Collect)) {
		text := plaintext.Line(sourceName(k) + " " + h.Collect[k])
		if v := h.Collect[k]; v != hivebeat.CollectOK && v != hivebeat.CollectNone {
			text = p.Text(text, Warn)
		}
		sources = append(sources, text)
	}
	d.line("collect", "%s", strings.Join(sources, " · "))
	d.line("counters", "%s", stats(&h.Stats))
	d.line("answer", "%s", answer(st, p))
	return d.lines
}

// hiveVRAM renders what is free on a hive, and what reduces it.
func hiveVRAM(h *api.HiveInfo, p Paint) string {
	of := func(bytes uint64, what string) string {
		if bytes == 0 {
			return ""
		}
		return size(bytes) + " " + what
	}
	text := join(of(h.FreeVRAM, "free at one place"), of(h.Held, "held for askers"), of(h.Loading, "announced by loading workers"),
		of(h.VRAMBudget, "allowed for all workers together"))
	sum := sumUp(h.GPUs)
	if unknown := notKnown(max(h.VRAMStale, sum.staleBytes), sum.stale); unknown != "" {
		text = strings.TrimPrefix(text+" · "+p.Text(unknown, Warn), " · ")
	}
	return text
}

// named renders a name and its text, if there is one.
func named(name, text string) string {
	if text == "" {
		return ""
	}
	return name + " " + text
}

// disk renders the space of a file system.
func disk(name string, free, total uint64) string {
	if total == 0 {
		return ""
	}
	return name + " " + GiB(free) + " of " + GiB(total) + " GiB free"
}

func stats(s *hivebeat.Stats) string {
	part := func(n uint64, what string) string {
		if n == 0 {
			return ""
		}
		return count(n) + " " + what
	}
	pause := ""
	if s.SelfPause > 0 {
		pause = "paused for " + s.SelfPause.Duration().String()
	}
	return join(count(s.Beats)+" beats", part(s.Refused, "refused"), part(s.Stale, "stale"), part(s.WireLost, "lost on the wire"),
		part(s.FalseDead, "falsely dead"), part(s.CutOff, "cut off"), pause)
}

// Worker renders everything that is known about a worker. now is the time of the reader's
// clock.
func Worker(w *api.WorkerInfo, st *api.Status, p Paint, now time.Time) []string {
	d := &detail{p: p}
	d.heading("worker", w.Hive+"/"+w.Worker)
	cause := ""
	if w.Cause != "" {
		cause = "cause " + causeText(w.Cause)
	}
	stalled, loops := "", ""
	if w.Stalled {
		stalled = "stalled"
	}
	if w.Looping {
		loops = "looping"
	}
	live, announced := workerLiveCell(w, 0), ""
	if left := quietLeft(w, 0); left > 0 {
		announced = quietText(left, now)
	}
	d.line("live", "%s for %s%s", p.Text(live.Text, live.Style), age(w.Since), dot(join(announced, cause, stalled, loops)))
	if w.Live == hivebeat.Lost && w.Exit != "" { // the state of its last beat was the end
		d.line("ended", "%s", plaintext.Line(cmp.Or(w.Reason, "its process has ended")))
	} else {
		d.line("state", "%s%s", p.Text(plaintext.Line(cmp.Or(string(w.State), none)), stateStyle(w.State)), dot(join(w.Reason)))
	}
	d.imposed(w.Drained, w.Silenced, "worker")
	if w.Rival != 0 {
		refused := w.RivalAt
		refused.Inc = w.Rival
		d.conflict("processes", hivebeat.Place{Inc: w.Inc, Host: w.Host, PID: w.PID, Conn: w.Conn, Addr: w.Addr}, refused)
	}
	missed, quiet, fresh := "", "", ""
	if w.Missed > 0 {
		missed = Plural(int(min(w.Missed, 1<<30)), "beat") + " missed"
	}
	if w.Quiet > 0 {
		quiet = "announced silence of up to " + w.Quiet.Duration().String()
	}
	if !w.Fresh {
		fresh = p.Text(" · too old: the facts below are from that time", Warn)
	}
	d.line("heard", "%s ago, promised every %s%s%s", age(w.Age), w.Every.Duration(), dot(join(missed, quiet)), fresh)
	d.line("model", "%s", plaintext.Line(w.Model))
	d.line("endpoint", "%s", plaintext.Line(w.Endpoint))
	d.engine(w)
	if w.Exit != "" && w.Exit != hivebeat.ExitEnded {
		d.line("exit", "%s", p.Text(plaintext.Line(w.Exit), Bad))
	}
	if w.LoadUnknown() {
		d.line("work", "not reported by the engine")
	} else if w.Slots > 0 || w.Queue > 0 || w.Done > 0 || w.Busy > 0 {
		busy := count(w.Busy)
		if w.Slots > 0 {
			busy += " of " + Plural(int(min(w.Slots, 1<<30)), "slot")
		}
		held := ""
		if w.Held > 0 {
			held = " · " + count(w.Held) + " held"
		}
		d.line("work", "%s busy · %s waiting · %s done%s", busy, count(w.Queue), count(w.Done), held)
	}
	d.workerGPUs(w)
	d.line("zone", "%s", plaintext.Line(w.Zone))
	d.line("labels", "%s", pairs(w.Labels))
	if len(w.Data) > 0 {
		d.line("data", "%d bytes (-o json shows them)", len(w.Data))
	}
	d.process(w)
	up, again := "", ""
	if w.Up > 0 {
		up = "up " + age(w.Up)
	}
	if w.Restarts > 0 {
		again = restarts(w.Restarts)
	}
	d.line("began", "%s (incarnation %d)%s", began(w.Inc), w.Inc, dot(join(up, again)))
	d.line("beats", "seq %s", count(w.Seq))
	for i := range w.Tr {
		name := ""
		if i == 0 {
			name = "history"
		}
		d.line(name, "%s", transition(&w.Tr[i]))
	}
	d.line("more", "hivebeat events --hive %s --worker %s", plaintext.Line(w.Hive), plaintext.Line(w.Worker)) // transitions are those of the last minute
	d.line("judged", "by its %s", plaintext.Line(cmp.Or(w.Via, hivebeat.ViaHive)))
	d.line("answer", "%s", answer(st, p))
	return d.lines
}

// engine shows the facts of an inference engine.
func (d *detail) engine(w *api.WorkerInfo) {
	asked := ""
	if w.Probed > 0 {
		asked = "answered " + age(w.Probed+w.Age) + " ago"
	}
	context := ""
	if w.Ctx > 0 {
		context = "context of " + count(w.Ctx) + " tokens"
	}
	d.line("engine", "%s", plaintext.Line(join(strings.TrimSpace(w.Engine+" "+w.Ver), context, asked)))
	cache := ""
	switch {
	case w.KV != nil && w.KVCap > 0:
		cache = fmt.Sprintf("%.0f%% of %s tokens in use", *w.KV*100, count(w.KVCap))
	case w.KV != nil:
		cache = fmt.Sprintf("%.0f%% in use", *w.KV*100)
	case w.KVCap > 0:
		cache = count(w.KVCap) + " tokens"
	}
	d.line("KV cache", "%s", cache)
	pace := ""
	if w.Rate > 0 {
		pace = fmt.Sprintf("%.3g requests a second", w.Rate)
	}
	if w.TPS > 0 {
		pace = join(pace, fmt.Sprintf("%.4g tokens a second", w.TPS))
	}
	d.line("pace", "%s", pace)
	if l := w.LoRA; !l.IsZero() {
		most, wait := "", ""
		if l.Max > 0 {
			most = "at most " + count(l.Max)
		}
		if len(l.Wait) > 0 {
			wait = "requests wait for " + strings.Join(l.Wait, ", ")
		}
		d.line("adapters", "%s", plaintext.Line(join(strings.Join(l.On, ", "), wait, most)))
	}
	d.line("on disk", "%s", plaintext.Line(strings.Join(w.Cold, ", ")))
}

func transition(t *hivebeat.Transition) string {
	s := Pad(age(t.Ago)+" ago", 9) + " " + plaintext.Line(string(t.Kind))
	if what := step(t.From, t.To); what != "" {
		s += " " + plaintext.Line(what)
	}
	return s + dot(join(string(t.Cause)))
}

func dot(s string) string {
	if s == "" {
		return ""
	}
	return " · " + s
}

func answer(st *api.Status, p Paint) string {
	by := ""
	if st.Queen != "" {
		by = " · by " + plaintext.Line(st.Queen)
	}
	return Sure(st, p) + p.Text(by, Faint)
}
