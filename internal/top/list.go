package top

import "time"

// list is a window over rows that lie with the queen, of which it holds those that
// are shown and some around them.
type list[T any] struct {
	id func(*T) string

	rows   []T
	from   int       // place of rows[0] among all
	total  int       // how many there are
	exact  bool      // total is all; otherwise there are more
	short  bool      // the last answer held fewer rows than were asked for, and there were more
	taken  time.Time // when rows came; zero = never
	err    string    // why there are no newer ones
	cursor int       // place of the chosen row
	chosen string    // its id
	top    int       // place of the first row that is shown
	height int       // how many are shown

	last  bool // the last row is to be chosen as soon as it is known where that is
	moved bool // that was done, and its rows are not here

	sort int  // index of the sort key
	down bool // the other way round
}

// want returns which rows to ask for: those that are shown, and half a screen on
// each side, so that a step needs no question. An answer that was cut short did not
// fit into a message: then only those that are shown.
func (l *list[T]) want() (offset, limit int) {
	h := max(1, l.height)
	if l.short {
		return l.top, h
	}
	offset = max(0, l.top-h/2)
	return offset, min(1000, l.top-offset+h+h/2+1)
}

// covered reports whether all rows that are to be shown are here.
func (l *list[T]) covered() bool {
	end := l.top + l.height
	if l.exact {
		end = min(end, l.reach())
	}
	return !l.taken.IsZero() && l.from <= l.top && end <= l.from+len(l.rows)
}

// take takes an answer over: rows from offset on, how many there are if the queen
// said so or somebody else knows, and whether more follow.
func (l *list[T]) take(rows []T, offset, limit int, total *int, more bool, now time.Time) {
	l.rows, l.from, l.taken, l.err = rows, offset, now, ""
	l.short = more && len(rows) < limit
	switch end := offset + len(rows); {
	case total != nil:
		l.total, l.exact = max(*total, end), true
	case more:
		l.total, l.exact = max(l.total, end+1), false
	case len(rows) > 0 || offset == 0:
		l.total, l.exact = end, true
	default: // all that was there before it is gone, nobody knows how much
		l.total, l.exact = offset, true
	}
	// The cursor stays on what it is on, as long as that is on the screen.
	for i := range l.rows {
		if at := l.from + i; l.chosen != "" && l.id(&l.rows[i]) == l.chosen && at >= l.top && at < l.top+l.height {
			l.cursor = at
			break
		}
	}
	l.fix()
	if l.last {
		l.end()
		l.moved = !l.covered()
	}
}

// reach is how many rows can be gone to: the queen finds row 100,000 of a list that
// is sorted by something else than ids, and refuses to look for later ones.
func (l *list[T]) reach() int {
	if l.sort == 0 {
		return l.total
	}
	return min(l.total, 100_000)
}

// fix puts the cursor among the rows and the window around the cursor.
func (l *list[T]) fix() {
	l.cursor = max(0, min(l.cursor, l.reach()-1))
	h := max(1, l.height)
	l.top = min(l.top, l.cursor)
	l.top = max(l.top, l.cursor-h+1)
	l.top = max(0, min(l.top, l.reach()-h))
	l.note()
}

func (l *list[T]) note() {
	l.chosen = ""
	if r := l.at(l.cursor); r != nil {
		l.chosen = l.id(r)
	}
}

// at returns the row at a place, or nil if it is not here.
func (l *list[T]) at(place int) *T {
	if i := place - l.from; i >= 0 && i < len(l.rows) {
		return &l.rows[i]
	}
	return nil
}

// selected returns the row that is chosen, or nil if it is not here.
func (l *list[T]) selected() *T { return l.at(l.cursor) }

// move moves the cursor.
func (l *list[T]) move(by int) {
	l.cursor += by
	l.fix()
}

func (l *list[T]) home() {
	l.last = false
	l.move(-l.cursor)
}

func (l *list[T]) end() {
	l.last = l.taken.IsZero()
	l.move(l.reach() - l.cursor)
}

// resize says how many rows are shown.
func (l *list[T]) resize(height int) {
	if height = max(0, height); height != l.height {
		l.height = height
		l.fix()
	}
}

// anew forgets the rows: the question is another one.
func (l *list[T]) anew() {
	*l = list[T]{id: l.id, height: l.height, sort: l.sort, down: l.down}
}

// shown returns the places of the rows that are shown: from, and up to but not to.
func (l *list[T]) shown() (from, to int) {
	return l.top, min(l.top+l.height, l.reach())
}
