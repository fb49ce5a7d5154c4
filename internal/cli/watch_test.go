package cli

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/cli/show"
)

// tty records everything that is written to a terminal.
type tty struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tty) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(b)
}

func (t *tty) all() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// screen returns the last frame.
func (t *tty) screen() string {
	s := t.all()
	if i := strings.LastIndex(s, "\x1b[H"); i >= 0 {
		return s[i:]
	}
	return s
}

// startWatch runs watch on a new terminal until stop is called.
func startWatch(t *testing.T, url string) (*tty, func() error) {
	t.Helper()
	term := new(tty)
	c := newConsole(Streams{Out: term, Err: term, Exit: func(int) { t.Error("left at once") }})
	c.outTerm, c.size = 0, func() (int, int) { return 120, 30 }
	cmd := &watchCmd{AskFlags{AskerFlags: AskerFlags{ConnFlags: ConnFlags{NATS: url}}, OutFlag: OutFlag{"text"}, ColorFlag: ColorFlag{"never"}, Timeout: 300 * time.Millisecond}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Run(ctx, c) }()
	return term, sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("watch does not end")
			return nil
		}
	})
}

func awaitScreen(t *testing.T, term *tty, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	bustest.Eventually(t, 20*time.Second, func() (bool, string) { return re.MatchString(term.screen()), term.screen() })
}

func TestWatchRedraws(t *testing.T) {
	url, nc, q := serveFake(t, 200_000)
	term, stop := startWatch(t, url)
	defer func() { _ = stop() }()
	awaitScreen(t, term, `200,000 workers: 200,000 alive · `)
	awaitScreen(t, term, `h/w000003 +alive +ready `)
	awaitScreen(t, term, `… and 199,9\d\d more`)

	// An event is shown.
	var s hivebeat.Subjects
	event := func(id string, d hivebeat.EventData) {
		b, err := s.NewEvent(id, time.Now(), d).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish(s.Event(d.Hive, d.Worker, d.Kind), b); err != nil {
			t.Fatal(err)
		}
	}
	event("1", hivebeat.EventData{Hive: "h", Worker: "w000001", Kind: hivebeat.KindLost, Cause: hivebeat.CauseMissed})
	event("1", hivebeat.EventData{Hive: "h", Worker: "w000001", Kind: hivebeat.KindLost, Cause: hivebeat.CauseMissed}) // from another queen
	if err := nc.Publish(s.Event("h", "", hivebeat.KindLost), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	event("2", hivebeat.EventData{Hive: "h", Worker: "w000002", Kind: hivebeat.KindRestarted})
	awaitScreen(t, term, `restarted +h/w000002`)
	if n := strings.Count(term.screen(), "lost "); n != 1 {
		t.Errorf("the event is shown %d times:\n%s", n, term.screen())
	}

	// The queen does not answer: watch says so, and nothing looks current.
	q.hush(true)
	awaitScreen(t, term, `NO ANSWER for \d+s: no queen answers`)
	if s := term.screen(); !strings.Contains(s, "alive?") || regexp.MustCompile(`alive +ready`).MatchString(s) {
		t.Errorf("old verdicts look new:\n%s", s)
	}
	q.hush(false)
	awaitScreen(t, term, `h/w000003 +alive +ready `)
	if strings.Contains(term.screen(), "NO ANSWER") {
		t.Errorf("it still says so:\n%s", term.screen())
	}

	// The terminal is restored.
	if err := stop(); err != nil {
		t.Error(err)
	}
	if all := term.all(); strings.Count(all, show.OpenScreen) != 1 || strings.Count(all, show.CloseScreen) != 1 || !strings.HasSuffix(all, show.CloseScreen) {
		t.Errorf("the terminal is left as %q", all[max(0, len(all)-40):])
	}
}

// watch survives the end of NATS, and reports it.
func TestWatchWithoutNATS(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	term, stop := startWatch(t, srv.URL())
	defer func() { _ = stop() }()
	awaitScreen(t, term, `no queen answers on nats://127\.0\.0\.1:\d+, for \d+s now`)
	bustest.Stop(t, srv)
	awaitScreen(t, term, `the connection to NATS is lost`)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A user who may not read events gets an error.
func TestWatchWithoutPermission(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.User("app", []string{">"}, []string{"_INBOX.>"}))
	url := strings.Replace(srv.URL(), "://", "://app:app@", 1)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	term, stop := startWatch(t, url)
	defer func() { _ = stop() }()
	awaitScreen(t, term, `(?i)permissions violation for subscription to "queen\.events\.>"`)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A user who may not ask whether a queen is starting gets no error.
func TestWatchMayNotAskWhetherAQueenStarts(t *testing.T) {
	w := &watch{asker: new(asker), deaf: make(chan error, 1)}
	w.refused(fmt.Errorf(`%w for Publish to "$SRV.PING.queen"`, nats.ErrPermissionViolation))
	if got := w.lastDenied(); got != "" {
		t.Errorf("%s", got)
	}
	w.refused(fmt.Errorf(`%w for Publish to "queen.api.summary"`, nats.ErrPermissionViolation))
	if got := w.lastDenied(); got == "" {
		t.Error("nothing is told of what matters")
	}
}
