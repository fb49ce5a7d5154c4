package runner

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/beatfabric/hivebeat/internal/plaintext"
)

const (
	tailKept  = 4 << 10 // bytes of stderr that are kept
	tailLines = 3       // lines that a reason quotes at most
	tailBytes = 140     // and their length: a reason has 256 bytes, and says more
)

// tail keeps the end of a stream. It is safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-tailKept):]...)
	if over := len(t.b) - tailKept; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

// String returns the last lines, on one line.
func (t *tail) String() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	text := string(t.b)
	t.mu.Unlock()
	return lastLines(text)
}

// lastLines returns the last lines of text that are not empty, without colours, and with the
// last version of a line that was written over.
func lastLines(text string) string {
	var out []string
	room := tailBytes
	lines := strings.Split(text, "\n")
	for i := len(lines) - 1; i >= 0 && len(out) < tailLines; i-- {
		line := strings.TrimRight(lines[i], "\r \t")
		if at := strings.LastIndexByte(line, '\r'); at >= 0 {
			line = line[at+1:]
		}
		line = strings.TrimSpace(plaintext.Line(ansi.Strip(line)))
		if line == "" {
			continue
		}
		if len(out) > 0 && len(line)+3 > room {
			break
		}
		line = plaintext.Clip(line, room)
		room -= len(line) + 3
		out = append([]string{line}, out...)
	}
	return strings.Join(out, " | ")
}

// left are processes that a program left behind.
type left []uint64

func (l left) String() string {
	if len(l) == 0 {
		return ""
	}
	const most = 3
	var pids []string
	for _, pid := range l[:min(len(l), most)] {
		pids = append(pids, fmt.Sprint(pid))
	}
	if len(l) > most {
		pids = append(pids, "…")
	}
	return fmt.Sprintf("left %s behind: %s", counted(len(l), "child"), strings.Join(pids, " "))
}

func counted(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case what == "child":
		return fmt.Sprint(n, " children")
	}
	return fmt.Sprint(n, " ", what, "s")
}

// reason joins the parts of a reason that are not empty.
func reason(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, "; ")
}

// rounded is d as people read it.
func rounded(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	default:
		d = d.Round(time.Millisecond)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}
