package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Errors of [Prober.Read] and [Detect], for errors.Is. Their texts are for people.
var (
	ErrRefused      = errors.New("connection refused")
	ErrTimeout      = errors.New("no answer in time")
	ErrUnauthorized = errors.New("credentials refused")     // 401 or 403
	ErrBusy         = errors.New("too many requests (429)") // the engine refuses probes because it is busy
	ErrAnswer       = errors.New("not the answer of this engine")
)

// StatusError is an answer with a status that is none of the above, such as 500.
type StatusError struct {
	Code int
	Line string // the first line of the answer, short and printable; may be empty
}

func (e *StatusError) Error() string {
	if e.Line == "" {
		return fmt.Sprintf("%d %s", e.Code, http.StatusText(e.Code))
	}
	return fmt.Sprintf("%d: %s", e.Code, e.Line)
}

// missing is an endpoint that the engine does not have.
type missing struct {
	path string
	code int
}

func (e *missing) Error() string {
	return fmt.Sprintf("%s: GET %s: status %d", ErrAnswer, e.path, e.code)
}

// Is makes an endpoint that a reading needs an [ErrAnswer]: another engine is there.
func (e *missing) Is(target error) bool { return target == ErrAnswer }

// absent reports whether err says that an endpoint is not there.
func absent(err error) bool {
	_, ok := errors.AsType[*missing](err)
	return ok
}

const maxLine = 160 // bytes of a line of an answer that an error quotes

// answerError returns an [ErrAnswer] that says why.
func answerError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrAnswer, plaintext.Clip(plaintext.Line(fmt.Sprintf(format, args...)), maxLine))
}

// statusError returns the error of an answer that is not 200.
func statusError(path string, code int, body []byte) error {
	line := firstLine(body)
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		if line == "" {
			line = http.StatusText(code)
		}
		return fmt.Errorf("%w (%d): %s", ErrUnauthorized, code, line)
	case http.StatusTooManyRequests:
		return ErrBusy
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return &missing{path, code}
	}
	return &StatusError{code, line}
}

// classify returns err, which a request or a connection ended with, as one of the errors above
// where it is one. ctx is the caller's, without the timeout of the reading.
func classify(ctx context.Context, err error) error {
	var errno syscall.Errno
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrAnswer):
		return err
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return ErrTimeout
	case errors.Is(err, syscall.ECONNREFUSED),
		errors.As(err, &errno) && runtime.GOOS == "windows" && errno == 10061: // WSAECONNREFUSED
		return ErrRefused
	}
	return err
}

// loading returns a reading of an engine that refused a request because it loads. llama-server
// answers 503 "Loading model" (tools/server/README.md @00dc8057), and other servers and the
// proxies before them say similar things.
func loading(kind Kind, err error) (Reading, error) {
	if kind == Auto {
		kind = ""
	}
	e, ok := errors.AsType[*StatusError](err)
	if !ok || e.Code != http.StatusServiceUnavailable {
		return Reading{}, err
	}
	line := strings.ToLower(e.Line)
	for _, word := range []string{"loading", "starting", "warming up", "initializing", "not ready"} {
		if strings.Contains(line, word) {
			return Reading{State: hivebeat.Loading, Reason: e.Line, Engine: string(kind)}, nil
		}
	}
	return Reading{}, err
}

var title = regexp.MustCompile(`(?is)<title>([^<]*)</title>`)

// firstLine returns the part of an answer that says most to a person, on one short line: the
// message of a JSON error, the title of a page, or the first line of text.
func firstLine(body []byte) string {
	text := strings.TrimSpace(string(body[:min(len(body), 64<<10)]))
	switch {
	case strings.HasPrefix(text, "{"):
		if m := message([]byte(text)); m != "" {
			text = m
		}
	case strings.HasPrefix(text, "<"):
		m := title.FindStringSubmatch(text)
		if m == nil {
			return "a page of HTML"
		}
		text = m[1]
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	return plaintext.Clip(plaintext.Line(text), maxLine)
}

// message returns the text of a JSON error, in one of the shapes that engines use:
// {"error":{"message":…}} (OpenAI, vLLM, llama.cpp), {"error":…} (TGI, Ollama), {"detail":…}
// (FastAPI) and {"message":…}.
func message(text []byte) string {
	var all struct{ Error, Detail, Message json.RawMessage }
	if json.Unmarshal(text, &all) != nil {
		return ""
	}
	for _, raw := range []json.RawMessage{all.Error, all.Detail, all.Message} {
		var s string
		if json.Unmarshal(raw, &s) == nil && s != "" {
			return s
		}
		var inner struct{ Message string }
		if json.Unmarshal(raw, &inner) == nil && inner.Message != "" {
			return inner.Message
		}
	}
	return ""
}
