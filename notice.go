package hivebeat

import (
	"bytes"
	"strconv"
	"strings"
)

// Notice tells a sender that its messages are refused, or were, as another one uses its
// id. It stands on the subject of its roll call: a credential that may publish
// there can make the sender log a line, and nothing else.
type Notice struct {
	ID       string // of the worker or hive
	Inc      uint64 // the incarnation that is refused
	Believed uint64 // the one that is not; the same, where something else was sent as that
}

const noticeWord = "refused"

// Append appends the payload of n to b.
func (n Notice) Append(b []byte) []byte {
	b = append(append(b, noticeWord+" "...), n.ID...)
	b = strconv.AppendUint(append(b, ' '), n.Inc, 10)
	return strconv.AppendUint(append(b, ' '), n.Believed, 10)
}

// ParseNotice reads the payload of a message to the subject of a roll call. It reports
// whether that is a Notice.
func ParseNotice(payload []byte) (Notice, bool) {
	if !bytes.HasPrefix(payload, []byte(noticeWord+" ")) || len(payload) > len(noticeWord)+MaxID+3+2*16 {
		return Notice{}, false
	}
	words := strings.Split(string(payload), " ")
	if len(words) != 4 || !ValidID(words[1]) {
		return Notice{}, false
	}
	inc, err := strconv.ParseUint(words[2], 10, 64)
	believed, err2 := strconv.ParseUint(words[3], 10, 64)
	n := Notice{ID: words[1], Inc: inc, Believed: believed}
	return n, err == nil && err2 == nil && inc > 0 && inc <= MaxInt && believed > 0 && believed <= MaxInt
}

// Text says in words what n tells, to the log of the sender itself, a "hive" or "worker",
// and what to do about it.
func (n Notice) Text(sender string) (text, hint string) {
	if n.Believed == n.Inc {
		return "messages of this " + sender + " were refused: something else sends in its name",
			"look at who may publish on its subject"
	}
	return "messages of this " + sender + " are refused: another process has its id, and is believed",
		"stop one of the two, or give it another id"
}
