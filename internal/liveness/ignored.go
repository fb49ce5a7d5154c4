package liveness

import "time"

// TellAgain is how often a person is told of one server, at most.
const TellAgain = time.Minute

// Ignored counts the disconnects that were taken for their server's, by which
// nobody is lost. The zero value is ready. It is not safe for concurrent use.
type Ignored struct {
	total uint64
	of    map[string]ignored
}

// ignored are those of one server.
type ignored struct {
	told time.Time
	n    uint64 // since then
}

// Total returns how many there were.
func (i *Ignored) Total() uint64 { return i.total }

// Count counts one of a server. It returns how many of that server there were since
// a person was told, this one included, or 0 if it is too soon to tell again.
func (i *Ignored) Count(now time.Time, server string) (tell uint64) {
	i.total++
	s, ok := i.of[server]
	s.n++
	if ok && now.Sub(s.told) < TellAgain {
		i.of[server] = s
		return 0
	}
	if len(i.of) >= maxServers {
		for id, other := range i.of {
			if now.Sub(other.told) >= TellAgain {
				delete(i.of, id)
			}
		}
	}
	if i.of == nil {
		i.of = make(map[string]ignored)
	}
	i.of[server] = ignored{told: now}
	return s.n
}
