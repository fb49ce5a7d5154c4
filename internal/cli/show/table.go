package show

import "strings"

// Column describes one column of a Table.
type Column struct {
	Title string
	Right bool // numbers align right
	Least int  // it may be cut down to this width when the line is too long; 0: never cut
	Drop  int  // when cutting does not suffice, columns are dropped in this order, lowest first; 0: never
}

// Cell is one text of a table. The text must come from plaintext.Line.
type Cell struct {
	Text  string
	Style Style
}

// Table renders rows below aligned titles. Rows may be added in batches, so that a long
// table needs memory for only one batch: a column is as wide as its widest text so far.
type Table struct {
	Columns []Column
	Paint   Paint
	Width   int // of the terminal; 0: lines of any length

	widest []int
}

// Mark appends a mark to the title of a column, if the table has it.
func (t *Table) Mark(title, mark string) {
	for i := range t.Columns {
		if t.Columns[i].Title == title {
			t.Columns[i].Title += mark
		}
	}
}

const gap = 2 // columns between two columns

// Lines returns the rows, below a line of titles if heading is set.
func (t *Table) Lines(heading bool, rows [][]Cell) []string {
	if t.widest == nil {
		t.widest = make([]int, len(t.Columns))
		for i, c := range t.Columns {
			t.widest[i] = Width(c.Title)
		}
	}
	for _, row := range rows {
		for i, c := range row {
			t.widest[i] = max(t.widest[i], Width(c.Text))
		}
	}
	widths := t.fit()
	lines := make([]string, 0, len(rows)+1)
	if heading {
		titles := make([]Cell, len(t.Columns))
		for i, c := range t.Columns {
			titles[i] = Cell{c.Title, Strong}
		}
		lines = append(lines, t.line(titles, widths))
	}
	for _, row := range rows {
		lines = append(lines, t.line(row, widths))
	}
	return lines
}

// fit returns column widths for lines no longer than t.Width, if that is possible. A
// width of -1 means that the column is not shown.
func (t *Table) fit() []int {
	w := append([]int(nil), t.widest...)
	if t.Width <= 0 {
		return w
	}
	for {
		over := t.length(w) - t.Width
		for over > 0 { // cut the column that exceeds its least width most
			at, most := -1, 0
			for i, c := range t.Columns {
				if spare := w[i] - max(c.Least, Width(c.Title)); c.Least > 0 && w[i] >= 0 && spare > most {
					at, most = i, spare
				}
			}
			if at < 0 {
				break
			}
			w[at]--
			over--
		}
		if over <= 0 {
			return w
		}
		at := -1
		for i, c := range t.Columns {
			if c.Drop > 0 && w[i] >= 0 && (at < 0 || c.Drop < t.Columns[at].Drop) {
				at = i
			}
		}
		if at < 0 {
			return w
		}
		for i := range w { // there is space again: start from whole texts
			if w[i] >= 0 {
				w[i] = t.widest[i]
			}
		}
		w[at] = -1
	}
}

func (t *Table) length(w []int) int {
	n := -gap
	for _, c := range w {
		if c >= 0 {
			n += c + gap
		}
	}
	return n
}

func (t *Table) line(row []Cell, widths []int) string {
	var b strings.Builder
	pad := 0
	for i, c := range row {
		w := widths[i]
		if w < 0 {
			continue
		}
		text := Cut(c.Text, w)
		room := w - Width(text)
		if t.Columns[i].Right {
			pad += room
		}
		if text != "" {
			b.WriteString(strings.Repeat(" ", pad))
			b.WriteString(t.Paint.Text(text, c.Style))
			pad = 0
		}
		if !t.Columns[i].Right {
			pad += room
		}
		pad += gap
	}
	return b.String()
}
