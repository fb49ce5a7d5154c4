package hivebeat

import (
	"bytes"
	"strconv"
	"strings"
)

// Notice informs a sender that its messages are or were refused, because another sender
// uses its id. It is published on the sender's roll call subject. A credential that may
// publish there can make the sender log a line, and nothing else.
type Notice struct {
	ID       string // of the worker or hive
	Inc      uint64 // the refused incarnation
	Believed uint64 // the accepted incarnation; equal to Inc if another sender used that same incarnation
}

const noticeWord = "refused"

// Append appends the payload of n to b.
func (n Notice) Append(b []byte) []byte {
	b = append(append(b, noticeWord+" "...), n.ID...)
	b = strconv.AppendUint(append(b, ' '), n.Inc, 10)
	return strconv.AppendUint(append(b, ' '), n.Believed, 10)
}

// ParseNotice parses the payload of a message on a roll call subject. It reports
// whether the payload is a Notice.
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

// Text describes n for the log of the sender, which is a "hive" or a "worker", and
// returns a hint on what to do about it.
func (n Notice) Text(sender string) (text, hint string) {
	if n.Believed == n.Inc {
		return "messages of this " + sender + " were refused: another process sends under its id",
			"check which users may publish on its subject"
	}
	return "messages of this " + sender + " are refused: another process uses its id and is accepted",
		"stop one of the two, or give it another id"
}

// Forget asks a hive to remove a GPU that is gone. A queen publishes it on the hive's roll
// call subject. A hive of an older version ignores it.
type Forget struct {
	GPU   string // UUID
	Asker string // the client that asked the queen
}

const forgetWord = "forget"

// Append appends the payload of f to b. ParseForget reads it only if ValidGPU holds for
// f.GPU and ValidID for f.Asker.
func (f Forget) Append(b []byte) []byte {
	b = append(append(b, forgetWord+" "...), f.GPU...)
	return append(append(b, ' '), f.Asker...)
}

// ParseForget parses the payload of a message on the roll call subject of a hive. It
// reports whether the payload is a Forget.
func ParseForget(payload []byte) (Forget, bool) {
	if !bytes.HasPrefix(payload, []byte(forgetWord+" ")) || len(payload) > len(forgetWord)+MaxGPUID+MaxID+2 {
		return Forget{}, false
	}
	words := strings.Split(string(payload), " ")
	if len(words) != 3 || !ValidGPU(words[1]) || !ValidID(words[2]) {
		return Forget{}, false
	}
	return Forget{GPU: words[1], Asker: words[2]}, true
}

// ValidGPU reports whether s can name a GPU in a Forget: 1 to MaxGPUID printable ASCII
// characters, and no space.
func ValidGPU(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= MaxGPUID
}
