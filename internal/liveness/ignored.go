package liveness

import "time"

const (
	// TellAfter is how long those of one server must go on until a person is told: a
	// server that restarts, or many clients that end together, are over before.
	TellAfter = 10 * time.Second
	// TellAgain is how often a person is told of one server, at most. After as long
	// without any, those of before are forgotten.
	TellAgain = time.Minute
)

// Ignored counts the disconnects that were taken for their server's, by which
// nobody is lost. The zero value is ready. It is not safe for concurrent use.
type Ignored struct {
	total uint64
	of    map[string]ignored
}

// ignored are those of one server.
type ignored struct {
	first, last time.Time
	told        time.Time // zero if nobody was
	n           uint64    // since then
}

func (s ignored) over(now time.Time) bool { return now.Sub(s.last) >= TellAgain }

// Total returns how many there were.
func (i *Ignored) Total() uint64 { return i.total }

// Count counts one of a server. It returns how many of that server there were since
// a person was told, this one included, or 0 if nobody is to be told: they have not
// gone on for TellAfter, or it is too soon to tell again.
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

// makeRoom forgets servers where there are many, if theirs are over.
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
