package show

import (
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Fleet is the newest answer of a queen.
type Fleet struct {
	Status  api.Status
	Summary api.Summary
	Hives   []api.HiveInfo   // the first page
	Workers []api.WorkerInfo // the first page
	// MoreHives and MoreWorkers report that there are more than those.
	MoreHives, MoreWorkers bool
}

// Frame is the content of watch at one moment.
type Frame struct {
	Where   string           // the NATS it is connected to
	Fleet   *Fleet           // nil before the first answer
	Age     time.Duration    // since that answer, or since the start
	Now     time.Time        // by the reader's clock
	Trouble string           // why there is no newer answer; empty if there is one
	Events  []hivebeat.Event // newest last
	Dropped uint64           // events that were lost because they came too fast
	Zone    *time.Location
	Paint   Paint
}

// Lines renders the frame within the width and height of a terminal, and counts what does
// not fit. If there is no current answer, it says so and marks the last one as outdated.
func (f *Frame) Lines(width, height int) []string {
	lines := f.head(width)
	var hives, workers section
	if l := f.Fleet; l != nil {
		hives = section{table: NewHives(f.Paint, width), all: Total(l.Summary.Hives), more: l.MoreHives}
		for i := range l.Hives {
			hives.rows = append(hives.rows, f.was(HiveRow(&l.Hives[i], f.Age), hiveLive))
		}
		workers = section{table: NewWorkers(f.Paint, width), all: Total(l.Summary.Workers), more: l.MoreWorkers}
		for i := range l.Workers {
			workers.rows = append(workers.rows, f.was(WorkerRow(&l.Workers[i], f.Age, f.Now), workerLive))
		}
	}
	// Three sections share the remaining lines. Each has a blank line and a heading above it.
	rows := max(0, height-len(lines)-6)
	nh, nw, ne := share(rows, hives.need(), workers.need(), len(f.Events))
	lines = append(lines, hives.lines(nh, f.Paint)...)
	lines = append(lines, workers.lines(nw, f.Paint)...)
	lines = append(lines, "", f.eventsHeading())
	for i := len(f.Events) - ne; i < len(f.Events); i++ {
		lines = append(lines, Event(&f.Events[i], f.Zone, f.Paint))
	}
	if len(lines) > height {
		lines = lines[:max(0, height)]
	}
	for i := range lines {
		lines[i] = Cut(lines[i], width)
	}
	return lines
}

func (f *Frame) head(width int) []string {
	p := f.Paint
	title := p.Text("hivebeat watch", Strong) + p.Text(" · "+plaintext.Line(f.Where), Faint)
	if f.Fleet != nil && f.Fleet.Status.Queen != "" {
		title += p.Text(" · queen "+plaintext.Line(f.Fleet.Status.Queen), Faint)
	}
	lines := []string{title + p.Text(" · Ctrl-C quits", Faint)}
	switch {
	case f.Trouble != "" && f.Fleet == nil:
		lines = append(lines, p.Text(plaintext.Line(f.Trouble)+", for "+Age(f.Age)+" now", Bad))
	case f.Trouble != "":
		lines = append(lines, p.Text("NO ANSWER for "+Age(f.Age)+": "+plaintext.Line(f.Trouble), Bad),
			p.Text("below is the last known state, which may be outdated", Warn))
	case f.Fleet == nil:
		lines = append(lines, "asking the queen …")
	case Empty(&f.Fleet.Summary):
		lines = append(lines, "The fleet is empty: no hive has reported. "+Sure(&f.Fleet.Status, p))
	default:
		lines = append(lines, Wrap(append(append(counts(&f.Fleet.Summary, p), Brakes(&f.Fleet.Status, p)...), Sure(&f.Fleet.Status, p)), width)...)
	}
	return lines
}

// was marks a row as outdated if there is no newer answer: nothing in it stands out, and
// its verdict gets a question mark.
func (f *Frame) was(row []Cell, live int) []Cell {
	if f.Trouble == "" {
		return row
	}
	return was(row, live)
}

func was(row []Cell, live int) []Cell {
	for i := range row {
		row[i].Style = Faint
		row[i].Text = Bare(row[i].Text)
	}
	row[live].Text += "?"
	return row
}

// WasHive marks the row of a hive as outdated, and its verdict with a question mark.
func WasHive(row []Cell) []Cell { return was(row, hiveLive) }

// WasWorker marks the row of a worker in the same way.
func WasWorker(row []Cell) []Cell { return was(row, workerLive) }

func (f *Frame) eventsHeading() string {
	s := f.Paint.Text("EVENTS", Strong)
	switch {
	case f.Dropped > 0:
		s += f.Paint.Text(fmt.Sprintf("  %d arrived too fast and are not shown", f.Dropped), Warn)
	case len(f.Events) == 0:
		s += f.Paint.Text("  none yet", Faint)
	}
	return s
}

// share divides rows among hives, workers and events. Each gets what it needs if there are
// enough rows. Otherwise events and hives get a quarter each, and workers the rest; rows
// that one section does not need go to the others.
func share(rows, hives, workers, events int) (h, w, e int) {
	e = min(events, max(1, rows/4))
	h = min(hives, max(2, rows/4))
	w = min(workers, max(0, rows-e-h))
	h = min(hives, max(h, rows-w-e))
	e = min(events, max(0, rows-w-h))
	return h, w, e
}

// section is a table that may show only some of its rows.
type section struct {
	table *Table
	rows  [][]Cell
	all   int  // number of rows that exist
	more  bool // than rows
}

// need is the number of lines that the known rows take below the heading.
func (s *section) need() int {
	if s.more {
		return len(s.rows) + 1
	}
	return len(s.rows)
}

// lines renders a blank line, the heading and n lines. The last line counts the rows that
// are not shown.
func (s *section) lines(n int, p Paint) []string {
	if n <= 0 || len(s.rows) == 0 {
		return nil
	}
	shown := len(s.rows)
	if s.need() > n || s.more {
		shown = min(n-1, shown)
	}
	lines := append([]string{""}, s.table.Lines(true, s.rows[:shown])...)
	if left := max(s.all, len(s.rows)) - shown; shown < len(s.rows) || s.more {
		lines = append(lines, p.Text(fmt.Sprintf("… and %s more (hivebeat ls shows all)", count(uint64(max(1, left)))), Faint))
	}
	return lines
}

// Screen returns the output that redraws a terminal of this height with lines, without
// flicker and without scrolling.
func Screen(lines []string, height int) string {
	var b strings.Builder
	b.WriteString("\x1b[?2026h\x1b[H") // begin a synchronized update; cursor to the top left
	for i := range max(height, len(lines)) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("\x1b[K") // before the text: after it, it would clear the last column of a full line
		if i < len(lines) {
			b.WriteString(lines[i])
		}
	}
	b.WriteString("\x1b[?2026l")
	return b.String()
}

// OpenScreen switches to the alternate screen, without a cursor and without line wrapping.
// CloseScreen restores the terminal.
const (
	OpenScreen  = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	CloseScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)
