package top

import (
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// openLines renders the open hive or worker.
func (m *Model) openLines(p place, room int, now time.Time) []string {
	if p.worker != "" {
		lines := m.workerFacts(now)
		lines = append(lines, "")
		lines = append(lines, m.itsEvents(p, 1000)...)
		return m.scrolled(lines, room)
	}
	if m.facts {
		return m.scrolled(m.hiveFacts(now), room)
	}
	facts, events, _ := m.split(room, now)
	lines := cutLines(m.hiveFacts(now), facts, m.paint)
	lines = append(lines, m.workerTable(&m.mine, now)...)
	for len(lines) < room-events {
		lines = append(lines, "")
	}
	if events > 0 {
		lines = append(lines, m.itsEvents(p, events-1)...)
	}
	return lines
}

// split divides the lines below the crumbs among the facts of a hive, its workers and its
// events. rows excludes the titles of the workers; events includes its heading.
func (m *Model) split(room int, now time.Time) (facts, events, rows int) {
	p, _ := m.at()
	if n := len(m.log.of(&filter{Hive: p.hive})); room >= 14 {
		events = 1 + max(1, min(n, room/5))
	}
	least := max(2, min(5, m.mine.total))
	facts = min(len(m.hiveFacts(now)), max(3, room-events-1-least))
	return facts, events, max(1, room-facts-events-1)
}

// cutLines returns at most n lines. If some are cut, the last line says so.
func cutLines(lines []string, n int, p show.Paint) []string {
	if len(lines) <= n {
		return lines
	}
	lines = slices.Clone(lines[:max(1, n)])
	lines[len(lines)-1] = p.Text("  … f shows all", show.Faint)
	return lines
}

// pending says why there are no facts.
func (m *Model) pending() []string {
	if m.openErr != "" {
		return []string{m.paint.Text(plaintext.Line(m.openErr), show.Bad)}
	}
	return []string{m.paint.Text("asking …", show.Faint)}
}

// past marks facts that are outdated.
func (m *Model) past(lines []string, now time.Time) []string {
	_, _, cut := m.cut(now)
	switch {
	case m.openErr != "":
		lines[0] += m.paint.Text("  "+plaintext.Line(m.openErr)+": this is the last known state", show.Bad)
	case cut:
		lines[0] += m.paint.Text("  last known state", show.Warn)
	}
	return lines
}

// hiveFacts renders the open hive except its workers and events.
func (m *Model) hiveFacts(now time.Time) []string {
	if m.hive == nil {
		return m.pending()
	}
	extra := hivebeat.MillisOf(now.Sub(m.openAt))
	h := *m.hive
	h.Age, h.Since = h.Age+extra, h.Since+extra
	gpus := h.GPUs
	h.GPUs = nil // they have a table, which says what is not known
	h.VRAMStale = 0
	st := m.sure()
	lines := m.past(show.Hive(&h, &st, m.paint), now)
	lines = lead(lines)
	if len(gpus) == 0 {
		return append(lines, "")
	}
	t := show.NewGPUs(m.paint, m.width-2)
	var cells [][]show.Cell
	for i := range gpus {
		cells = append(cells, show.GPURows(&gpus[i], now.Sub(m.openAt), m.paint)...)
	}
	table := t.Lines(true, cells)
	for i := range table {
		table[i] = noMark + table[i]
	}
	// GPUs matter most, so they come after the verdict and before the rest.
	at := min(3, len(lines))
	return append(slices.Concat(lines[:at:at], table, lines[at:]), "")
}

// lead moves lines that change to the front. The first three lines, the name and the
// verdict, stay.
func lead(lines []string) []string {
	var first, rest []string
	for _, line := range lines[min(3, len(lines)):] {
		name, _, _ := strings.Cut(strings.TrimSpace(show.Bare(line)), " ")
		switch name {
		case "host", "cpu", "memory", "workers", "conflict", "vram", "disk":
			first = append(first, line)
		default:
			rest = append(rest, line)
		}
	}
	return slices.Concat(lines[:min(3, len(lines))], first, rest)
}

func (m *Model) workerFacts(now time.Time) []string {
	if m.worker == nil {
		return m.pending()
	}
	extra := hivebeat.MillisOf(now.Sub(m.openAt))
	w := *m.worker
	w.Age, w.Since = w.Age+extra, w.Since+extra
	w.Tr = slices.Clone(w.Tr)
	for i := range w.Tr {
		w.Tr[i].Ago += extra
	}
	st := m.sure()
	return m.past(show.Worker(&w, &st, m.paint, now), now)
}

// itsEvents renders the events of the open hive or worker, newest first.
func (m *Model) itsEvents(p place, most int) []string {
	heading := m.paint.Text("EVENTS", show.Strong)
	events := m.log.of(&filter{Hive: p.hive, Worker: p.worker})
	switch {
	case m.eventErr != "":
		heading += m.paint.Text("  only those since top started: "+plaintext.Line(m.eventErr), show.Warn)
	case len(events) == 0:
		heading += m.paint.Text("  none", show.Faint)
	}
	lines := []string{noMark + heading}
	for i := range min(most, len(events)) {
		lines = append(lines, noMark+strings.TrimRight(show.Event(&events[i], m.zone, m.paint), " "))
	}
	return lines
}
