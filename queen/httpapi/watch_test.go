package httpapi

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
)

// pipes is an in-process listener, for bubbles. Unread data blocks the writer at once,
// because a pipe has no buffer.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7833} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- local{b}:
		return a, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// local is a connection on loopback.
type local struct{ net.Conn }

func (local) LocalAddr() net.Addr { return (*pipes)(nil).Addr() }

// bubble runs f with a server under a virtual clock.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, s *Server, q *fake, p *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := newFake()
		s, err := New(q, cfg)
		if err != nil {
			t.Fatal(err)
		}
		p := newPipes()
		run(t, s, p)
		f(t, s, q, p)
	})
}

// event is one received event, with its time.
type event struct {
	id     string
	answer api.Answer
	at     time.Duration // since the watcher began
}

// watcher reads a stream.
type watcher struct {
	t      *testing.T
	reply  *http.Response
	lines  *bufio.Scanner
	began  time.Time
	cancel context.CancelFunc
}

func (p *pipes) watch(t *testing.T, query string, headers ...string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/watch?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		q.Header.Set(name, value)
	}
	tr := &http.Transport{DialContext: p.dial, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	w := &watcher{t: t, began: time.Now(), cancel: cancel}
	if w.reply, err = (&http.Client{Transport: tr}).Do(q); err != nil { //nolint:bodyclose // it is, with the test
		t.Fatal(err)
	}
	t.Cleanup(func() { w.reply.Body.Close() })
	var body io.Reader = w.reply.Body
	if w.reply.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	}
	w.lines = bufio.NewScanner(body)
	w.lines.Buffer(nil, 1<<24)
	return w
}

// next returns the next event, or false at the end of the stream.
func (w *watcher) next() (e event, ok bool) {
	w.t.Helper()
	name := ""
	for w.lines.Scan() {
		key, value, _ := strings.Cut(w.lines.Text(), ": ")
		switch key {
		case "id":
			e.id = value
		case "event":
			name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.answer); err != nil {
				w.t.Fatalf("%v in %.200q", err, value)
			}
		case "":
			if name != "" {
				e.at = time.Since(w.began)
				return e, true
			}
		}
	}
	return e, false
}

func (w *watcher) must() event {
	w.t.Helper()
	e, ok := w.next()
	if !ok {
		w.t.Fatalf("the stream ended: %v", w.lines.Err())
	}
	return e
}

func hivesOf(a api.Answer) string {
	var ids []string
	for _, h := range a.Hives {
		ids = append(ids, h.Hive)
	}
	return strings.Join(ids, " ")
}

// First comes everything, then the changes, with a cursor to continue from.
func TestStream(t *testing.T) {
	for _, encoding := range []string{"identity", "gzip"} {
		bubble(t, Config{}, func(t *testing.T, s *Server, q *fake, p *pipes) {
			q.touch("a")
			q.touch("b")
			w := p.watch(t, "", "Accept-Encoding: "+encoding)
			if h := w.reply.Header; w.reply.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v", w.reply.StatusCode, h)
			}
			if e := w.must(); hivesOf(e.answer) != "a b" || e.id != "fake.2" || e.answer.Next != e.id || e.at != 0 {
				t.Errorf("first %+v", e)
			}
			time.Sleep(time.Second)
			q.touch("b")
			if e := w.must(); hivesOf(e.answer) != "b" || e.id != "fake.3" || e.at != time.Second {
				t.Errorf("then %+v", e)
			}
			synctest.Wait()
			if st := s.Stats(); st.Streams != 1 || st.Changes != 2 || st.Resyncs != 0 {
				t.Errorf("%+v", st)
			}

			// A client that reconnects continues where it was, with its original URL.
			w.cancel()
			synctest.Wait()
			if st := s.Stats(); st.Streams != 0 {
				t.Errorf("%d streams are open", st.Streams)
			}
			q.touch("c")
			w = p.watch(t, "after=fake.0", "Last-Event-ID: fake.3", "Accept-Encoding: "+encoding)
			if e := w.must(); hivesOf(e.answer) != "c" {
				t.Errorf("after a return %+v", e)
			}
			w.cancel()
			synctest.Wait()
			w = p.watch(t, "after=fake.2", "Accept-Encoding: "+encoding)
			if e := w.must(); hivesOf(e.answer) != "b c" {
				t.Errorf("after a cursor %+v", e)
			}

			// Another queen does not know this cursor: everything sent before is void.
			q.become("other")
			q.touch("a")
			if e := w.must(); e.answer.Resync == "" || hivesOf(e.answer) != "b c a" || e.id != "other.5" {
				t.Errorf("another queen %+v", e)
			}
			synctest.Wait()
			if st := s.Stats(); st.Resyncs != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// However much changes, a stream sends at most four answers a second. If nothing
// changes, it sends one within 5 s. It outlives the time limits of other requests.
func TestStreamKeepsItsPace(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *Server, q *fake, p *pipes) {
		w := p.watch(t, "")
		w.must()
		stop := make(chan struct{})
		go func() {
			for i := 0; ; i++ {
				select {
				case <-time.After(time.Millisecond):
					q.touch("h" + strconv.Itoa(i%100))
				case <-stop:
					return
				}
			}
		}()
		const seconds = 10
		n, last := 0, time.Duration(0)
		for {
			e := w.must()
			if e.at-last < 250*time.Millisecond && n > 0 {
				t.Fatalf("%v after the one before", e.at-last)
			}
			last = e.at
			if n++; e.at >= seconds*time.Second {
				break
			}
		}
		if n < 4*seconds-2 || n > 4*seconds+1 {
			t.Errorf("%d answers in %d s", n, seconds)
		}
		close(stop)
		w.must() // the last change
		last = time.Since(w.began)
		for range 20 {
			e := w.must()
			if quiet := e.at - last; quiet > 5*time.Second || quiet < 3*time.Second || len(e.answer.Hives) > 0 || !e.answer.Status.Warm || e.id == "" {
				t.Fatalf("after %v: %+v", quiet, e)
			}
			last = e.at
		}
		if st := s.Stats(); st.Streams != 1 || st.StreamsSlow != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A new client gets page after page without a pause between them.
func TestStreamBeginsWithPages(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, _ *Server, q *fake, p *pipes) {
		for i := range 25 {
			q.touch(fmt.Sprintf("h%02d", i))
		}
		w := p.watch(t, "limit=10")
		for i, want := range []int{10, 10, 5} {
			if e := w.must(); len(e.answer.Hives) != want || e.at != 0 || e.answer.More != (i < 2) {
				t.Errorf("page %d: %d hives after %v, more %v", i, len(e.answer.Hives), e.at, e.answer.More)
			}
		}
	})
}

// A client that does not read is disconnected and counted. One that is only slow misses
// nothing: the changes it has not read come in one answer. Neither delays the others.
func TestSlowClients(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, s *Server, q *fake, p *pipes) {
		dead, slow, quick := p.watch(t, ""), p.watch(t, ""), p.watch(t, "")
		slow.must()
		var mu sync.Mutex
		came := map[string]int{}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				e, ok := quick.next()
				if !ok {
					return
				}
				mu.Lock()
				for _, h := range e.answer.Hives {
					came[h.Hive]++
				}
				mu.Unlock()
			}
		}()
		for i := range 16 { // 8 s, in which the slow client reads nothing
			q.touch(fmt.Sprintf("h%02d", i))
			time.Sleep(500 * time.Millisecond)
		}
		mu.Lock()
		if len(came) != 16 {
			t.Errorf("the quick one was told of %v", came)
		}
		mu.Unlock()
		told := map[string]bool{}
		answers := 0
		for len(told) < 16 {
			answers++
			for _, h := range slow.must().answer.Hives {
				told[h.Hive] = true
			}
		}
		if answers > 3 {
			t.Errorf("the slow one was queued for: %d answers", answers)
		}
		for range 5 {
			time.Sleep(time.Second)
			slow.must()
		}
		if st := s.Stats(); st.StreamsSlow != 1 || st.Streams != 2 {
			t.Errorf("%+v", st)
		}
		if _, err := io.ReadAll(dead.reply.Body); err == nil {
			t.Error("the stream of the dead one ended in order")
		}
		slow.cancel()
		quick.cancel()
		<-done
	})
}

// A queen that does not answer for a while ends no stream. The client receives the
// error, and continues from the cursor that it has.
func TestStreamOfAQueenThatDoesNotAnswer(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, _ *Server, q *fake, p *pipes) {
		q.touch("a")
		w := p.watch(t, "")
		w.must()
		var mu sync.Mutex
		away := true
		q.answer = func(string, api.Request) *api.Answer {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return &api.Answer{Next: "fake.99", Error: &api.Error{Code: api.CodeUnavailable, Message: "busy"}}
			}
			return nil
		}
		q.touch("b")
		for range 3 {
			if e := w.must(); e.answer.Error == nil || e.id != "" {
				t.Errorf("%+v", e)
			}
		}
		mu.Lock()
		away = false
		mu.Unlock()
		q.touch("c")
		var e event
		for e = w.must(); e.answer.Error != nil; e = w.must() {
		}
		if hivesOf(e.answer) != "b c" || e.id != "fake.3" {
			t.Errorf("%+v", e)
		}
	})
}

// MaxStreams bounds the streams; beyond it a client is told to come back later.
func TestAtMostSoManyStreams(t *testing.T) {
	bubble(t, Config{MaxStreams: 2}, func(t *testing.T, s *Server, _ *fake, p *pipes) {
		first := p.watch(t, "")
		p.watch(t, "")
		third := p.watch(t, "")
		if third.reply.StatusCode != http.StatusServiceUnavailable || third.reply.Header.Get("Retry-After") == "" {
			t.Errorf("%d %v", third.reply.StatusCode, third.reply.Header)
		}
		if st := s.Stats(); st.Streams != 2 || st.StreamsRefused != 1 {
			t.Errorf("%+v", st)
		}
		first.cancel()
		synctest.Wait()
		if again := p.watch(t, ""); again.reply.StatusCode != http.StatusOK {
			t.Errorf("%d", again.reply.StatusCode)
		}
	})
}

// Stop ends streams in order, at once.
func TestStopEndsStreams(t *testing.T) {
	for _, encoding := range []string{"identity", "gzip"} {
		bubble(t, Config{}, func(t *testing.T, s *Server, _ *fake, p *pipes) {
			w := p.watch(t, "", "Accept-Encoding: "+encoding)
			w.must()
			stopped := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				stopped <- s.Stop(ctx)
			}()
			e, ok := w.next()
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if ok || w.lines.Err() != nil {
				t.Errorf("%+v, %v", e, w.lines.Err())
			}
			if st := s.Stats(); st.Streams != 0 || st.StreamsSlow != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Stop and Serve may come in any order, and more than once.
func TestStopInAnyOrder(t *testing.T) {
	s, err := New(newFake(), Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Serve(t.Context(), ln); err != nil {
		t.Errorf("after Stop: %v", err)
	}
	if _, err := ln.Accept(); err == nil {
		t.Error("the listener is open")
	}

	s, base := serve(t, newFake(), Config{})
	if a := ask(t, "GET", base+"/healthz", ""); a.code != 200 {
		t.Errorf("%d", a.code)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := s.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()

	// The end of the context has the same effect.
	s, err = New(newFake(), Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if ln, err = s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx, ln); err != nil {
		t.Error(err)
	}
}
