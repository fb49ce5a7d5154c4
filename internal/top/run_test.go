package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/top/toptest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// stage is Run on a pipe instead of a terminal.
type stage struct {
	keys  *os.File
	drawn *output
	done  chan error
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func begin(ctx context.Context, t *testing.T, q Queen) *stage {
	t.Helper()
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		keys.Close()
	})
	m, err := New(Config{Where: "here"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{keys: keys, drawn: new(output), done: make(chan error, 1)}
	restore := func(func()) {}
	go func() {
		s.done <- Run(ctx, m, q, Terminal{In: in, Out: s.drawn, Width: 100, Height: 30, Take: restore})
	}()
	return s
}

func (s *stage) ends(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

func (s *stage) draws(t *testing.T, text string) {
	t.Helper()
	bustest.Eventually(t, 20*time.Second, func() (bool, string) {
		drawn := s.drawn.String()
		return strings.Contains(drawn, text), fmt.Sprintf("%q was never drawn, but %q", text, drawn)
	})
}

func quiet(ctx context.Context) ([]hivebeat.Event, int) {
	<-ctx.Done()
	return nil, 0
}

func TestRunAsksDrawsAndQuits(t *testing.T) {
	q := &toptest.Queen{Hives: 3, Each: 2}
	ask := func(_ context.Context, verb string, r api.Request) (*api.Answer, error) {
		return q.Answer(verb, r), nil
	}
	told := false
	events := func(ctx context.Context) ([]hivebeat.Event, int) {
		if told {
			return quiet(ctx)
		}
		told = true
		return []hivebeat.Event{(hivebeat.Subjects{}).NewEvent("x", time.Now().Add(time.Hour), hivebeat.EventData{Hive: "far-away", Kind: hivebeat.KindJoined})}, 0
	}
	s := begin(t.Context(), t, Queen{ask, events})
	s.draws(t, "gpu-00002")
	if _, err := s.keys.WriteString("3"); err != nil {
		t.Fatal(err)
	}
	s.draws(t, "far-away")
	if _, err := s.keys.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	s.ends(t)
}

// Run returns when its context ends, even during a question without an answer, and leaves no
// goroutine behind (TestMain).
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 10)
	s := begin(ctx, t, Queen{func(ctx context.Context, _ string, _ api.Request) (*api.Answer, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, errors.New("nobody")
	}, quiet})
	<-asked
	cancel()
	s.ends(t)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	begin(ended, t, Queen{func(context.Context, string, api.Request) (*api.Answer, error) { return nil, errors.New("nobody") }, quiet}).ends(t)
}
