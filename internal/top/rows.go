package top

import (
	"time"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// The cursor column of a row.
const (
	mark   = "▸ "
	noMark = "  "
)

// hiveColumns and workerColumns map a sort key to the title of its column.
var (
	hiveColumns   = map[string]string{"id": "HIVE", "live": "LIVE", "age": "AGE", "workers": "WORKERS", "vram_free": "VRAM GiB", "cpu": "CPU"}
	workerColumns = map[string]string{
		"id": "WORKER", "live": "LIVE", "state": "STATE", "age": "AGE", "model": "MODEL", "busy": "BUSY", "queue": "QUEUE", "vram": "VRAM GiB", "done": "DONE",
	}
)

// tabRows renders the rows of the tab.
func (m *Model) tabRows(now time.Time) []string {
	switch m.tab {
	case tabHives:
		t := show.NewHives(m.paint, m.width-2)
		return m.table(t, hiveColumns[m.hives.keys[m.hives.sort]], m.hives.down, now, rowsOf(m, &m.hives, now,
			func(h *api.HiveInfo, extra time.Duration) []show.Cell { return show.HiveRow(h, extra) }, show.WasHive))
	case tabWorkers:
		return m.workerTable(&m.workers, now)
	}
	return m.eventLines()
}

func (m *Model) workerTable(l *list[api.WorkerInfo], now time.Time) []string {
	t := show.NewWorkers(m.paint, m.width-2)
	return m.table(t, workerColumns[l.keys[l.sort]], l.down, now, rowsOf(m, l, now,
		func(w *api.WorkerInfo, extra time.Duration) []show.Cell { return show.WorkerRow(w, extra, now) }, show.WasWorker))
}

// rows is the content of a table. A nil entry of cells is a row that is not loaded.
type rows struct {
	cells  [][]show.Cell
	cursor int    // index of the selected row
	err    string // why there are no newer rows
	begun  bool   // an answer arrived
	none   string // text for an empty table
	at     time.Time
}

// rowsOf renders the rows on the screen, with their ages at now.
func rowsOf[T any](m *Model, l *list[T], now time.Time, row func(*T, time.Duration) []show.Cell, was func([]show.Cell) []show.Cell) rows {
	from, to := l.shown()
	r := rows{cursor: l.cursor - from, err: l.err, begun: !l.taken.IsZero(), at: l.taken, none: "none"}
	if len(m.open) == 0 && m.filters[m.tab] != "" {
		r.none = "nothing matches the filter; Esc clears it"
	}
	_, _, cut := m.cut(now)
	for i := from; i < to; i++ {
		var cells []show.Cell
		if x := l.at(i); x != nil {
			cells = row(x, now.Sub(l.taken))
			if cut || l.err != "" {
				cells = was(cells)
			}
		}
		r.cells = append(r.cells, cells)
	}
	return r
}

// table renders rows below their titles.
func (m *Model) table(t *show.Table, sorted string, down bool, now time.Time, r rows) []string {
	t.Mark(sorted, arrow(down)[1:])
	var have [][]show.Cell
	for _, c := range r.cells {
		if c != nil {
			have = append(have, c)
		}
	}
	lines := t.Lines(true, have)
	out := []string{noMark + lines[0]}
	rest := lines[1:]
	for i, c := range r.cells {
		line := m.paint.Text("…", show.Faint)
		if c != nil {
			line, rest = rest[0], rest[1:]
		}
		out = append(out, m.pointed(line, i == r.cursor))
	}
	switch {
	case len(r.cells) > 0:
	case r.begun:
		out = append(out, noMark+m.paint.Text(r.none, show.Faint))
	default:
		out = append(out, noMark+m.paint.Text("asking …", show.Faint))
	}
	if r.err != "" { // replaces the last row: the screen may be full
		what := plaintext.Line(r.err)
		if len(r.cells) > 0 {
			what += "; these rows are " + show.Age(now.Sub(r.at)) + " old"
		}
		out[len(out)-1] = noMark + m.paint.Text(what, show.Bad)
	}
	return out
}

// pointed renders a line, marked if the cursor is on it.
func (m *Model) pointed(line string, chosen bool) string {
	if !chosen {
		return noMark + line
	}
	return m.paint.Text(show.Pad(show.Cut(mark+show.Bare(line), m.width), m.width), show.Chosen)
}

func (m *Model) eventLines() []string {
	l := &m.events
	from, to := l.shown()
	var out []string
	for i := from; i < to; i++ {
		out = append(out, m.pointed(show.Event(&l.rows[i], m.zone, m.paint), i == l.cursor))
	}
	if len(out) == 0 {
		what := "no events yet"
		if m.filters[tabEvents] != "" {
			what = "no event matches"
		}
		if m.asked.IsZero() {
			what = "asking …"
		}
		out = append(out, noMark+m.paint.Text(what, show.Faint))
	}
	if m.eventErr != "" {
		out[len(out)-1] = noMark + m.paint.Text("only those since top started: "+plaintext.Line(m.eventErr), show.Warn)
	}
	return out
}
