package top

import "time"

// key handles a key press.
func (m *Model) key(k Key, do *Effect, now time.Time) {
	if k.Name == "ctrl+c" {
		do.Quit = true
		return
	}
	if m.typing {
		m.typeKey(k, do, now)
		return
	}
	switch k.Name {
	case "q":
		do.Quit = true
	case "ctrl+z":
		do.Suspend = true
	case "?":
		m.help, m.scroll = !m.help, 0
	case "esc", "backspace", "left":
		m.back(do, now, k.Name)
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup", "ctrl+b":
		m.move(-max(1, m.page()-1))
	case "pgdown", "ctrl+f", "space":
		m.move(max(1, m.page()-1))
	case "home", "g":
		m.edge(false)
	case "end", "G":
		m.edge(true)
	}
	if m.help {
		return
	}
	switch k.Name {
	case "tab":
		m.show((m.tab+1)%tabs, do, now)
	case "shift+tab":
		m.show((m.tab+tabs-1)%tabs, do, now)
	case "1", "2", "3":
		m.show(tab(k.Name[0]-'1'), do, now)
	case "enter", "right":
		m.enter(do, now)
	case "h":
		m.hiveOf(do, now)
	case "/":
		if len(m.open) == 0 {
			m.typing, m.typed, m.wrong = true, []rune(m.filters[m.tab]), ""
		}
	case "s":
		m.order(1, false, do, now)
	case "S":
		m.order(-1, false, do, now)
	case "r":
		m.order(0, true, do, now)
	case "f":
		if p, ok := m.at(); ok && p.worker == "" {
			m.facts, m.scroll = !m.facts, 0
		}
	}
}

// typeKey edits the filter.
func (m *Model) typeKey(k Key, do *Effect, now time.Time) {
	switch k.Name {
	case "esc":
		m.typing = false
	case "enter":
		if err := m.setFilter(string(m.typed)); err != nil {
			m.wrong = err.Error()
			return
		}
		m.typing = false
		m.ask(do, now)
	case "backspace":
		if len(m.typed) > 0 {
			m.typed = m.typed[:len(m.typed)-1]
		}
		m.wrong = ""
	case "ctrl+u":
		m.typed, m.wrong = nil, ""
	default:
		if len(m.typed) < 500 {
			m.typed = append(m.typed, []rune(k.Text)...)
		}
		m.wrong = ""
	}
}

// back closes the last opened page. If nothing is open, Esc clears the filter.
func (m *Model) back(do *Effect, now time.Time, name string) {
	switch {
	case m.help:
		m.help, m.scroll = false, 0
	case m.facts:
		m.facts, m.scroll = false, 0
	case len(m.open) > 0:
		m.open = m.open[:len(m.open)-1]
		m.opened(do, now)
	case name == "esc" && m.filters[m.tab] != "":
		_ = m.setFilter("") // an empty filter is valid
		m.ask(do, now)
	}
}

// opened resets the state for the hive or worker that is open now.
func (m *Model) opened(do *Effect, now time.Time) {
	m.hive, m.worker, m.openAt, m.openErr, m.scroll, m.facts = nil, nil, time.Time{}, "", 0, false
	m.mine.reset()
	m.eventsAnew()
	for _, s := range []slot{slotHive, slotMine, slotWorker, slotEvents} {
		delete(m.status, s)
	}
	m.ask(do, now)
}

func (m *Model) show(t tab, do *Effect, now time.Time) {
	m.tab, m.open = t, nil
	m.opened(do, now)
}

// enter opens the selected row.
func (m *Model) enter(do *Effect, now time.Time) {
	var to place
	if p, ok := m.at(); ok {
		w := m.mine.selected()
		if p.worker != "" || m.facts || w == nil {
			return
		}
		to = place{w.Hive, w.Worker}
	} else {
		switch m.tab {
		case tabHives:
			if h := m.hives.selected(); h != nil {
				to.hive = h.Hive
			}
		case tabWorkers:
			if w := m.workers.selected(); w != nil {
				to = place{w.Hive, w.Worker}
			}
		case tabEvents:
			if e := m.events.selected(); e != nil {
				to = place{e.Data.Hive, e.Data.Worker}
			}
		}
	}
	if to.hive != "" {
		m.open = append(m.open, to)
		m.opened(do, now)
	}
}

// hiveOf opens the hive of the selected worker or event.
func (m *Model) hiveOf(do *Effect, now time.Time) {
	p, ok := m.at()
	switch {
	case ok && p.worker == "":
		return
	case ok:
		m.open = m.open[:len(m.open)-1]
	case m.tab == tabWorkers && m.workers.selected() != nil:
		p.hive = m.workers.selected().Hive
	case m.tab == tabEvents && m.events.selected() != nil:
		p.hive = m.events.selected().Data.Hive
	}
	if p.hive == "" {
		return
	}
	if up, ok := m.at(); !ok || up != (place{hive: p.hive}) {
		m.open = append(m.open, place{hive: p.hive})
	}
	m.opened(do, now)
}

// text reports whether a page of text is shown. It scrolls and has no rows to select.
func (m *Model) text() bool {
	p, ok := m.at()
	return m.help || m.facts || ok && p.worker != ""
}

// table is what the keys do with a list, whatever its rows.
type table interface {
	move(by int)
	home()
	end()
	page() int
	covered() bool
	reorder(by int, turn bool) bool
	sorted() (key string, down bool)
	placed() string
}

// current returns the list on the screen.
func (m *Model) current() table {
	switch {
	case len(m.open) > 0:
		return &m.mine
	case m.tab == tabHives:
		return &m.hives
	case m.tab == tabWorkers:
		return &m.workers
	}
	return &m.events
}

func (m *Model) move(by int) {
	if m.text() {
		m.scroll = max(0, m.scroll+by)
	} else {
		m.current().move(by)
	}
}

// edge moves to the first or the last row.
func (m *Model) edge(last bool) {
	switch {
	case m.text() && last:
		m.scroll = 1 << 20
	case m.text():
		m.scroll = 0
	case last:
		m.current().end()
	default:
		m.current().home()
	}
}

// page is the number of rows of a page.
func (m *Model) page() int {
	if m.text() {
		return m.height - 3
	}
	return m.current().page()
}

// order selects another sort key, or reverses the order.
func (m *Model) order(by int, turn bool, do *Effect, now time.Time) {
	if !m.text() && m.current().reorder(by, turn) {
		m.ask(do, now)
	}
}
