package liveness

import "time"

const (
	// TellAfter is how long the disconnects of one server must continue until they are
	// reported: a server that restarts, or many clients that end together, are done
	// earlier.
	TellAfter = 10 * time.Second
	// TellAgain is the least time between two reports about one server. After the same
	// time without a disconnect, the earlier ones are forgotten.
	TellAgain = time.Minute
)

// Ignored counts the disconnects that were attributed to their server, so that no
// sender is lost for them. The zero value is ready. It is not safe for concurrent use.
type Ignored struct {
	total uint64
	of    map[string]ignored
}

// ignored counts the disconnects of one server.
type ignored struct {
	first, last time.Time
	told        time.Time // time of the last report; zero: none
	n           uint64    // disconnects since then
}

func (s ignored) over(now time.Time) bool { return now.Sub(s.last) >= TellAgain }

// Total returns how many disconnects were counted.
func (i *Ignored) Total() uint64 { return i.total }

// Count counts a disconnect of a server. It returns how many of that server were
// counted since the last report, this one included, if a report is due. It returns 0 if
// the disconnects have not continued for TellAfter, or if the last report is too
// recent.
func (i *Ignored) Count(now time.Time, server string) (tell uint64) {
	i.total++
	s, ok := i.of[server]
	if !ok || s.over(now) {
		s = ignored{first: now}
	}
	s.last = now
	s.n++
	if now.Sub(s.first) >= TellAfter && (s.told.IsZero() || now.Sub(s.told) >= TellAgain) {
		tell, s.told, s.n = s.n, now, 0
	}
	if !ok {
		i.makeRoom(now)
	}
	i.of[server] = s
	return tell
}

// makeRoom forgets servers if there are many, and if their disconnects are over.
func (i *Ignored) makeRoom(now time.Time) {
	if i.of == nil {
		i.of = make(map[string]ignored)
	}
	if len(i.of) < maxServers {
		return
	}
	for id, s := range i.of {
		if s.over(now) {
			delete(i.of, id)
		}
	}
}
