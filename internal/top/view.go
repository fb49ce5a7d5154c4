package top

import (
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Lines renders the state at now, within the terminal.
func (m *Model) Lines(now time.Time) []string {
	m.layout(now)
	lines := m.head(now)
	switch p, ok := m.at(); {
	case m.help:
		lines = append(lines, m.crumbs("help"))
		lines = append(lines, m.scrolled(m.helpLines(), m.room(len(lines)))...)
	case ok:
		lines = append(lines, m.crumbs(""))
		lines = append(lines, m.openLines(p, m.room(len(lines)), now)...)
	default:
		lines = append(lines, m.tabLine())
		lines = append(lines, m.tabRows(now)...)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(0, m.height-1)], m.foot())
	for i := range lines {
		lines[i] = show.Cut(lines[i], m.width)
	}
	return lines
}

// room is the number of lines left below the used ones, without the last line.
func (m *Model) room(used int) int { return max(0, m.height-used-1) }

// layout sets the heights of the lists.
func (m *Model) layout(now time.Time) {
	room := m.room(len(m.head(now)) + 1)
	m.events.rows = m.log.of(&m.parsed[tabEvents])
	m.events.total, m.events.exact, m.events.taken = len(m.events.rows), true, now
	m.hives.resize(room - 1)
	m.workers.resize(room - 1)
	m.events.resize(room)
	if p, ok := m.at(); ok && p.worker == "" {
		_, _, rows := m.split(room, now)
		m.mine.resize(rows)
	}
}

// head renders the state of the whole fleet.
func (m *Model) head(now time.Time) []string {
	p := m.paint
	title := p.Text("hivebeat top", show.Strong) + p.Text(" · "+plaintext.Line(m.where), show.Faint)
	st := m.sure()
	if st.Queen != "" {
		title += p.Text(" · queen "+plaintext.Line(st.Queen), show.Faint)
	}
	since, why, cut := m.cut(now)
	age := "no answer yet"
	if !m.answered.IsZero() {
		age = "answer " + show.Age(since) + " old"
	}
	if cut {
		age = p.Text(age, show.Bad)
	}
	if room := m.width - show.Width(age) - 2; room >= 12 {
		title = show.Pad(show.Cut(title, room), room) + "  " + age
	}
	lines := []string{title}
	switch {
	case cut:
		lines = append(lines, m.alarm(since, why)...)
	case m.summary == nil:
		return append(lines, "asking the queen …")
	}
	if m.summary == nil {
		return lines
	}
	if m.height < 12 { // too small: rows matter more
		if !cut {
			lines = append(lines, strings.Join(append(show.Brakes(&st, p), show.Sure(&st, p)), " · "))
		}
		return lines
	}
	var parts []string
	if !cut {
		parts = append(show.Brakes(&st, p), show.Sure(&st, p))
	}
	if show.Empty(m.summary) {
		return append(lines, show.Wrap(append([]string{"The fleet is empty: no hive has reported."}, parts...), m.width)...)
	}
	lines = append(lines, show.Wrap(append(parts, show.Counts(m.summary, p)...), m.width)...)
	if vram := show.VRAM(m.summary, m.width, p); vram != "" && m.height >= 16 {
		lines = append(lines, vram)
	}
	return lines
}

// alarm renders the warning that no queen answers. It must not be overlooked.
func (m *Model) alarm(since time.Duration, why string) []string {
	what := "  CUT OFF for " + show.Age(since) + ": " + plaintext.Line(why)
	then := "  Below is the last known state, which may be outdated. Ages keep counting."
	if m.summary == nil {
		then = "  Nothing is known about the fleet. hivebeat keeps trying."
	}
	var lines []string
	for _, text := range []string{"", what, then, ""} {
		if text == "" && m.height < 20 {
			continue
		}
		if !m.paint { // without colour: a frame
			text = "!!" + text
			if text == "!!" {
				text = strings.Repeat("!", m.width)
			}
		}
		lines = append(lines, m.paint.Text(show.Pad(show.Cut(text, m.width), m.width), show.Alarm))
	}
	return lines
}

// tabLine renders the tabs, the order and the filter.
func (m *Model) tabLine() string {
	p := m.paint
	var b strings.Builder
	for t := range tabs {
		name := string(rune('1'+t)) + " " + tabNames[t]
		if t == m.tab {
			name = p.Text("["+name+"]", show.Strong)
		} else {
			name = p.Text(" "+name+" ", show.Faint)
		}
		b.WriteString(name)
	}
	parts := []string{b.String()}
	if m.tab != tabEvents {
		parts = append(parts, "sort "+m.sortName())
	}
	if f := m.filters[m.tab]; f != "" && !m.typing {
		parts = append(parts, "filter "+p.Text(plaintext.Line(f), show.Notice))
	}
	if n := m.counted(); n != "" {
		parts = append(parts, n)
	}
	return strings.Join(parts, "  ")
}

func (m *Model) sortName() string {
	key, down := "", false
	if m.tab == tabHives {
		key, down = api.HiveSortKeys[m.hives.sort], m.hives.down
	} else {
		key, down = api.WorkerSortKeys[m.workers.sort], m.workers.down
	}
	return key + arrow(down)
}

func arrow(down bool) string {
	if down {
		return " ▼"
	}
	return " ▲"
}

// counted renders which rows are shown, and of how many.
func (m *Model) counted() string {
	switch m.tab {
	case tabHives:
		return placed(&m.hives)
	case tabWorkers:
		return placed(&m.workers)
	}
	n := show.Count(m.events.total) + " events"
	if m.more {
		n += ", and older ones"
	}
	if m.dropped > 0 {
		n += m.paint.Text("  "+show.Count(m.dropped)+" arrived too fast, some may be missing", show.Warn)
	}
	return n
}

func placed[T any](l *list[T]) string {
	if l.taken.IsZero() {
		return ""
	}
	if l.total == 0 {
		return "none"
	}
	from, to := l.shown()
	of := show.Count(l.total)
	if !l.exact {
		of = "more than " + show.Count(l.total-1)
	}
	text := show.Count(from+1) + "–" + show.Count(to) + " of " + of
	if l.reach() < l.total {
		text += ", the first " + show.Count(l.reach()) + " can be reached"
	}
	return text
}

// crumbs renders the path to the page that is shown.
func (m *Model) crumbs(page string) string {
	parts := []string{tabNames[m.tab]}
	for _, p := range m.open {
		if p.worker != "" {
			parts = append(parts, p.hive+"/"+p.worker)
		} else {
			parts = append(parts, p.hive)
		}
	}
	if m.facts {
		parts = append(parts, "facts")
	}
	if page != "" {
		parts = append(parts, page)
	}
	return m.paint.Text(plaintext.Line(strings.Join(parts, " › ")), show.Strong)
}

// foot renders the last line: keys, or the filter that is being typed.
func (m *Model) foot() string {
	p := m.paint
	if m.typing {
		line := p.Text("filter: ", show.Strong) + plaintext.Line(string(m.typed)) + p.Text(" ", show.Chosen)
		switch {
		case m.wrong != "":
			return line + "  " + p.Text(plaintext.Line(m.wrong), show.Bad)
		case m.tab == tabEvents:
			return line + p.Text("  text hive=ID worker=ID kind=lost,left", show.Faint)
		case m.tab == tabWorkers:
			return line + p.Text("  text hive=ID model=GLOB live=WORD state=WORD zone=Z free=8GiB slots=1 age=10s stalled LABEL!=VALUE", show.Faint)
		}
		return line + p.Text("  text model=GLOB live=WORD state=WORD zone=Z free=8GiB slots=1 age=10s stalled LABEL!=VALUE", show.Faint)
	}
	var keys []string
	at, ok := m.at()
	switch {
	case m.help:
		keys = []string{"Esc close", "↑↓ scroll"}
	case ok && at.worker != "":
		keys = []string{"Esc back", "h its hive", "↑↓ scroll"}
	case m.facts:
		keys = []string{"Esc back", "↑↓ scroll"}
	case ok:
		keys = []string{"Esc back", "Enter open", "f all facts", "s sort", "r reverse"}
	case m.tab == tabEvents:
		keys = []string{"Enter open", "Tab next", "/ filter", "h hive"}
	default:
		keys = []string{"Enter open", "Tab next", "/ filter", "s sort", "r reverse"}
	}
	first := []string{"q quit", "? help"} // these remain if the line is too long
	if m.help {
		first = first[:1]
	}
	return p.Text(strings.Join(append(first, keys...), " · "), show.Faint)
}

// scrolled returns the visible part of a page of text.
func (m *Model) scrolled(lines []string, room int) []string {
	m.scroll = max(0, min(m.scroll, len(lines)-room))
	return lines[m.scroll:min(len(lines), m.scroll+room)]
}

func (m *Model) helpLines() []string {
	p := m.paint
	var lines []string
	for _, section := range [][]string{
		{
			"Everywhere", "↑ ↓ PgUp PgDn Home End, k j g G", "move", "Enter", "open the selected row", "Esc", "back; at the top, clear the filter",
			"1 2 3, Tab", "hives, workers, events", "?", "this help", "Ctrl-Z", "to the shell; fg comes back", "q, Ctrl-C", "quit",
		},
		{
			"Hives and workers", "s S", "sort by the next key, the previous one", "r", "reverse the order", "/", "filter, by the queen",
			"h", "open the hive of a worker or event", "f", "in a hive: all its facts",
		},
		{
			"Filter: a row must match all of it", "llama", "text in an id, a zone or a model", "model=*llama-3*", "model; * is any text, ? one character",
			"live=late,lost  state=ready", "verdict, and state that workers report", "zone=a  tier=prod  tier!=dev  !gpu", "zone; labels",
			"free=20GiB  slots=2", "VRAM free on one GPU, free slots", "disk=20GiB  driver=550.*  kernel=6*", "free on the model cache; GPU driver, kernel", "age=10s", "facts are at most this old", "stalled", "busy, but makes no progress",
			"hive=ID  worker=ID  kind=lost", "for events; hive= for workers too",
		},
		{
			"What it shows", "answer 1s old", "when a queen answered last; ages below keep counting", "CUT OFF", "no queen answers: the last known state is shown",
			"sure, not sure", "whether the queen has heard from every hive", "alive late lost left", "the verdict; with a ?: facts too old",
			"█ ▒ ·", "VRAM of workers, of others, free",
		},
	} {
		if len(lines) > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, p.Text(section[0], show.Strong))
		for i := 1; i < len(section); i += 2 {
			lines = append(lines, "  "+show.Pad(section[i], 36)+section[i+1])
		}
	}
	return lines
}
