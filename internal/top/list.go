package top

import "time"

// list is a window over rows that the queen holds. It holds the rows on the screen and some
// around them.
type list[T any] struct {
	id   func(*T) string
	keys []string // to sort by; none for events

	rows   []T
	from   int       // position of rows[0] in the whole list
	total  int       // number of rows in the whole list
	exact  bool      // total is exact; otherwise there are more
	short  bool      // the last answer had fewer rows than requested although there were more
	taken  time.Time // when rows arrived; zero: never
	err    string    // why there are no newer rows
	cursor int       // position of the selected row
	chosen string    // its id
	top    int       // position of the first row on the screen
	height int       // number of rows on the screen

	last  bool // select the last row as soon as its position is known
	moved bool // that has been done, and the rows there are not loaded

	sort int  // index in keys
	down bool // reverse order
}

// want returns the rows to ask for: those on the screen and half a screen on each side, so
// that a step needs no question. If the last answer was cut short because it did not fit
// into a message, want returns only those on the screen.
func (l *list[T]) want() (offset, limit int) {
	h := max(1, l.height)
	if l.short {
		return l.top, h
	}
	offset = max(0, l.top-h/2)
	return offset, min(1000, l.top-offset+h+h/2+1)
}

// covered reports whether all rows on the screen are loaded.
func (l *list[T]) covered() bool {
	end := l.top + l.height
	if l.exact {
		end = min(end, l.reach())
	}
	return !l.taken.IsZero() && l.from <= l.top && end <= l.from+len(l.rows)
}

// take stores an answer: the rows from offset on, the total if the queen or the summary
// reported it, and whether more rows follow.
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
	default: // everything before offset may be gone too; how much is unknown
		l.total, l.exact = offset, true
	}
	// The cursor stays on its row while that is on the screen.
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

// reach is the number of rows that the cursor can reach. The queen finds row 100,000 of a
// list that is not sorted by id, and refuses to look for later ones.
func (l *list[T]) reach() int {
	if l.sort == 0 {
		return l.total
	}
	return min(l.total, 100_000)
}

// fix moves the cursor into the list and the window around the cursor.
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

// at returns the row at a position, or nil if it is not loaded.
func (l *list[T]) at(place int) *T {
	if i := place - l.from; i >= 0 && i < len(l.rows) {
		return &l.rows[i]
	}
	return nil
}

// selected returns the selected row, or nil if it is not loaded.
func (l *list[T]) selected() *T { return l.at(l.cursor) }

// move moves the cursor by a number of rows.
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

// resize sets the number of rows on the screen.
func (l *list[T]) resize(height int) {
	if height = max(0, height); height != l.height {
		l.height = height
		l.fix()
	}
}

// reset drops the rows, because the question has changed.
func (l *list[T]) reset() {
	*l = list[T]{id: l.id, keys: l.keys, height: l.height, sort: l.sort, down: l.down}
}

// page is the number of rows of a page.
func (l *list[T]) page() int { return l.height }

// reorder selects another sort key, or reverses the order. It reports false if the order
// cannot be changed.
func (l *list[T]) reorder(by int, turn bool) bool {
	n := len(l.keys)
	if n == 0 {
		return false
	}
	l.sort = (l.sort + by + n) % n
	if by != 0 {
		l.down = false
	}
	l.down = l.down != turn
	l.reset()
	return true
}

// sorted returns the sort key, and whether the order is reversed.
func (l *list[T]) sorted() (key string, down bool) { return l.keys[l.sort], l.down }

// sortKey returns the order in the protocol.
func (l *list[T]) sortKey() string {
	switch {
	case l.down:
		return "-" + l.keys[l.sort]
	case l.sort == 0:
		return "" // the default: an older queen may not know the key
	}
	return l.keys[l.sort]
}

// shown returns the positions of the rows on the screen: from, up to but excluding to.
func (l *list[T]) shown() (from, to int) {
	return l.top, min(l.top+l.height, l.reach())
}
