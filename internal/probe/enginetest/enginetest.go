// Package enginetest has inference engines for tests: servers that answer the requests of package
// probe as the real engines do, without a model. What they answer can be changed while they run,
// and they can fail in the ways that engines fail. The program in fakeengine is one as a process
// of its own.
package enginetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat/internal/probe"
)

// TB is the part of testing.TB that New uses.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(f func())
}

// State is what an engine answers from. A test changes it with [Engine.Set].
type State struct {
	Models   []probe.Model // Loaded tells those in memory from those on disk
	Adapters []string      // LoRA adapters that run, of vLLM
	Version  string
	Slots    uint64
	Busy     uint64
	Queue    uint64
	Done     uint64
	Tokens   uint64
	KV       float64
	Context  uint64
	Loading  bool // llama.cpp: 503 "Loading model"; others would not listen, see [Engine.Refuse]
	Sleeping bool
	Router   bool // llama.cpp: several models behind a router

	Token   string            // required of requests, except those that the real engine leaves open
	Bare    bool              // without the flags that switch metrics on; vLLM: without its own metrics
	Old     bool              // the endpoints and names of older versions
	Engines int               // data-parallel engines of vLLM and SGLang, among which busy and so on are divided; 0 is 1
	Answers map[string]string // what a path answers instead: tests of wrong answers
	Status  int               // of every answer, with Body; 0: the engine works
	Body    string
	Hang    bool // accepts requests, and never answers
}

// Engine is an engine that listens on a port of loopback. Its methods may be called from any
// goroutine.
type Engine struct {
	Kind probe.Kind
	URL  string // http://127.0.0.1:port

	mu     sync.Mutex
	state  State
	woken  chan struct{} // closed and replaced at each change: ends hanging requests
	asked  map[string]int
	server *http.Server
	addr   string
	tls    *tls.Config
	closed bool
}

// Option changes how an engine begins.
type Option func(*Engine)

// With changes the state before the engine listens.
func With(change func(*State)) Option { return func(e *Engine) { change(&e.state) } }

// Addr sets where the engine listens; by default on a free port of loopback.
func Addr(addr string) Option { return func(e *Engine) { e.addr = addr } }

// TLS makes the engine speak HTTPS with a certificate for example.com and 127.0.0.1.
func TLS() Option {
	return func(e *Engine) {
		s := httptest.NewUnstartedServer(nil)
		s.StartTLS()
		e.tls = &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS12}
		s.Close()
	}
}

// New starts an engine with one model and, if tb is not nil, closes it at the end of the test.
func New(tb TB, kind probe.Kind, options ...Option) *Engine {
	e := Make(kind, options...)
	err := e.Listen()
	if tb == nil {
		if err != nil {
			panic(err)
		}
		return e
	}
	tb.Helper()
	if err != nil {
		tb.Fatalf("fake engine: %v", err)
	}
	tb.Cleanup(e.Close)
	return e
}

// Make returns an engine that does not listen yet.
func Make(kind probe.Kind, options ...Option) *Engine {
	e := &Engine{
		Kind: kind, addr: "127.0.0.1:0", woken: make(chan struct{}), asked: make(map[string]int),
		state: State{
			Models:  []probe.Model{{Name: "fake-8b", Loaded: true}},
			Version: "1.2.3", Slots: 8, Context: 4096,
		},
	}
	for _, o := range options {
		o(e)
	}
	return e
}

// Listen opens the port, again after Refuse.
func (e *Engine) Listen() error {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", e.addr)
	if err != nil {
		return err
	}
	e.ServeOn(l)
	return nil
}

// ServeOn answers on a listener that is open already.
func (e *Engine) ServeOn(l net.Listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.addr, e.URL = l.Addr().String(), "http://"+l.Addr().String()
	if e.tls != nil {
		e.URL = "https://" + e.addr
		l = tls.NewListener(l, e.tls)
	}
	e.server = &http.Server{
		Handler: e, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go func(s *http.Server) { _ = s.Serve(l) }(e.server)
}

// Refuse closes the port, so that connections are refused until Listen.
func (e *Engine) Refuse() {
	e.mu.Lock()
	s := e.server
	e.server = nil
	e.mu.Unlock()
	if s != nil {
		_ = s.Close()
	}
	e.Set(func(*State) {})
}

// Close ends the engine. It may be called more than once.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.Refuse()
}

// Set changes what the engine answers, and wakes the requests that hang if it no longer hangs.
func (e *Engine) Set(change func(*State)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.state)
	close(e.woken)
	e.woken = make(chan struct{})
}

// SetModels replaces the models.
func (e *Engine) SetModels(models ...probe.Model) { e.Set(func(s *State) { s.Models = models }) }

// SetBusy sets how many requests run.
func (e *Engine) SetBusy(n uint64) { e.Set(func(s *State) { s.Busy = n }) }

// SetQueue sets how many requests wait.
func (e *Engine) SetQueue(n uint64) { e.Set(func(s *State) { s.Queue = n }) }

// AddDone finishes n requests of 100 tokens each.
func (e *Engine) AddDone(n uint64) { e.Set(func(s *State) { s.Done += n; s.Tokens += 100 * n }) }

// Fail makes every answer one with that status and body; 0 ends that.
func (e *Engine) Fail(status int, body string) {
	e.Set(func(s *State) { s.Status, s.Body = status, body })
}

// Hang makes the engine accept requests and not answer them, or ends that.
func (e *Engine) Hang(on bool) { e.Set(func(s *State) { s.Hang = on }) }

// Sleep lets the engine fall asleep, or wakes it.
func (e *Engine) Sleep(on bool) { e.Set(func(s *State) { s.Sleeping = on }) }

// Restart makes the engine count from zero, as another version if version is not empty.
func (e *Engine) Restart(version string) {
	e.Set(func(s *State) {
		s.Busy, s.Queue, s.Done, s.Tokens = 0, 0, 0, 0
		if version != "" {
			s.Version = version
		}
	})
}

// Asked returns how often each path was asked for.
func (e *Engine) Asked() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.asked)
}

// ServeHTTP answers one request.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/_control" {
		e.control(w, r)
		return
	}
	e.mu.Lock()
	e.asked[r.URL.Path]++
	s, woken := e.state, e.woken
	e.mu.Unlock()
	for s.Hang {
		select {
		case <-r.Context().Done():
			return
		case <-woken:
		}
		e.mu.Lock()
		if e.closed || e.server == nil {
			e.mu.Unlock()
			return
		}
		s, woken = e.state, e.woken
		e.mu.Unlock()
	}
	if e.Kind == probe.LlamaCPP {
		w.Header().Set("Server", "llama.cpp")
	}
	if s.Status != 0 {
		answer(w, s.Status, s.Body)
		return
	}
	if body, ok := s.Answers[r.URL.Path]; ok {
		if body == "" {
			http.NotFound(w, r)
			return
		}
		answer(w, http.StatusOK, body)
		return
	}
	if s.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.Token && !open(e.Kind, r.URL.Path) {
		answer(w, http.StatusUnauthorized, `{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}`)
		return
	}
	if r.Method != http.MethodGet {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	status, body := s.answer(e.Kind, r)
	answer(w, status, body)
}

func answer(w http.ResponseWriter, status int, body string) {
	kind := "text/plain; version=0.0.4; charset=utf-8"
	if strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) //nolint:gosec // what a test wants to be answered
}

// open reports whether the real engine answers path without its API key.
func open(kind probe.Kind, path string) bool {
	switch kind {
	case probe.VLLM: // only /v1 is protected
		return !strings.HasPrefix(path, "/v1")
	case probe.SGLang:
		return path == "/health" || path == "/health_generate" || strings.HasPrefix(path, "/metrics")
	case probe.LlamaCPP:
		return slices.Contains([]string{"/health", "/v1/health", "/models", "/v1/models"}, path)
	}
	return false
}

// control changes the state of an engine in another process, by GET /_control?busy=2&hang=true.
func (e *Engine) control(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var err error
	e.Set(func(s *State) {
		for key, values := range r.Form {
			err = errors.Join(err, s.set(key, values[len(values)-1]))
		}
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// set changes one part of the state by its name.
func (s *State) set(key, value string) error {
	counts := map[string]*uint64{"busy": &s.Busy, "queue": &s.Queue, "done": &s.Done, "tokens": &s.Tokens, "slots": &s.Slots}
	flags := map[string]*bool{"hang": &s.Hang, "sleep": &s.Sleeping, "load": &s.Loading, "bare": &s.Bare, "old": &s.Old}
	var err error
	switch {
	case counts[key] != nil:
		*counts[key], err = strconv.ParseUint(value, 10, 64)
	case flags[key] != nil:
		*flags[key], err = strconv.ParseBool(value)
	case key == "fail":
		s.Status, err = strconv.Atoi(value)
	case key == "body":
		s.Body = value
	case key == "version":
		s.Version = value
	case key == "kv":
		s.KV, err = strconv.ParseFloat(value, 64)
	case key == "model":
		s.Models = nil
		for name := range strings.SplitSeq(value, ",") {
			s.Models = append(s.Models, probe.Model{Name: name, Loaded: true})
		}
	default:
		return fmt.Errorf("no %q to set", key)
	}
	return err
}
