package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
)

// pace holds the timing of streams. The page shows itself as cut off after 12 s of
// silence.
type pace struct {
	gap   time.Duration // between two answers with changes
	beat  time.Duration // an answer is sent after this time even if nothing changed
	ask   time.Duration // how much longer than its wait a request may take
	retry time.Duration // until the next request after an error
	write time.Duration // how long a client may take to read what no buffer holds
}

var defaultPace = pace{gap: 250 * time.Millisecond, beat: 4 * time.Second, ask: 900 * time.Millisecond, retry: time.Second, write: 10 * time.Second}

// watch sends changes until the client disconnects. Nothing is queued per client: the
// server requests the next answer once the last one is written, and the queen collects
// the changes since the cursor.
func (s *Server) watch(w http.ResponseWriter, q *http.Request, r route) {
	req, err := r.request(q)
	if err != nil {
		s.refuse(w, q, http.StatusBadRequest, api.CodeBadRequest, err.Error())
		return
	}
	if id := q.Header.Get("Last-Event-ID"); id != "" {
		req.After = id // when a browser reconnects, its URL is still the original one
	}
	if !s.counts.open() {
		w.Header().Set("Retry-After", "10")
		s.refuse(w, q, http.StatusServiceUnavailable, api.CodeUnavailable, "as many streams as may be are open: "+strconv.Itoa(s.cfg.MaxStreams))
		return
	}
	slow := false
	defer func() { s.counts.close(slow) }()
	ctx, cancel := context.WithCancel(q.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	// The first answer decides whether there is a stream at all.
	a := s.changes(ctx, req, 0)
	if a.Error != nil {
		s.write(w, q, 0, a)
		return
	}
	st := s.newStream(w, q)
	err = st.begin()
	for err == nil {
		if a.Error == nil && a.Next != "" {
			req.After = a.Next
		}
		sent := time.Now()
		if err = st.send(&a); err != nil {
			break
		}
		s.counts.sent(a.Resync != "")
		switch {
		case a.Error != nil:
			pause(ctx, s.pace.retry)
		case !a.More:
			pause(ctx, s.pace.gap-time.Since(sent))
		}
		if ctx.Err() != nil || !s.guard.knows(q) { // the token may have changed
			break
		}
		wait := s.pace.beat
		if a.More {
			wait = 0
		}
		a = s.changes(ctx, req, wait)
		if ctx.Err() != nil {
			break
		}
	}
	if err == nil {
		_ = st.end()
		return
	}
	if slow = errors.Is(err, os.ErrDeadlineExceeded); slow {
		s.log.Warn("a stream is closed: its client does not read", slog.String("client", q.RemoteAddr))
	}
}

// changes asks for the changes after req.After, and waits for them for at most wait.
func (s *Server) changes(ctx context.Context, req api.Request, wait time.Duration) api.Answer {
	req.Wait = hivebeat.MillisOf(wait)
	limit := wait + s.pace.ask
	if wait == 0 {
		limit = s.pace.beat + s.pace.ask
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return s.backend.Answer(ctx, api.VerbWatch, req)
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// stream is an open response of server-sent events.
type stream struct {
	w       io.Writer
	zip     *zip // nil = plain
	control *http.ResponseController
	within  time.Duration
	text    []byte // reused
}

func (s *Server) newStream(w http.ResponseWriter, q *http.Request) *stream {
	st := &stream{w: w, control: http.NewResponseController(w), within: s.pace.write}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // keeps nginx from buffering the stream
	h.Add("Vary", "Accept-Encoding")
	if takesGzip(q) {
		h.Set("Content-Encoding", "gzip")
	}
	w.WriteHeader(http.StatusOK)
	if h.Get("Content-Encoding") != "" {
		st.zip = newZip(w)
		st.w = st.zip
	}
	return st
}

// begin tells the client how soon to reconnect.
func (st *stream) begin() error { return st.put([]byte("retry: 2000\n\n")) }

// send sends one answer. An answer with an error has no id, so the client continues
// from the last id that it has.
func (st *stream) send(a *api.Answer) error {
	b, err := plaintext.Marshal(a) // one line
	if err != nil {
		return err
	}
	t := st.text[:0]
	if a.Error == nil && a.Next != "" && !strings.ContainsAny(a.Next, "\r\n\x00") {
		t = append(append(append(t, "id: "...), a.Next...), '\n')
	}
	t = append(append(append(t, "event: changes\ndata: "...), b...), "\n\n"...)
	err = st.put(t)
	if st.text = t; cap(t) > 64<<10 {
		st.text = nil // do not keep the memory of one large answer for the life of the stream
	}
	return err
}

// put writes and flushes b within the time that a client has to read it.
func (st *stream) put(b []byte) error {
	if err := st.control.SetWriteDeadline(time.Now().Add(st.within)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := st.w.Write(b); err != nil {
		return err
	}
	return st.control.Flush()
}

func (st *stream) end() error {
	if st.zip == nil {
		return nil
	}
	return st.zip.Close()
}
