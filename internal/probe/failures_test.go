package probe_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
)

// engines are the kinds that have an engine.
var engines = []probe.Kind{
	probe.VLLM, probe.SGLang, probe.LlamaCPP, probe.Ollama, probe.TRTLLM, probe.TGI, probe.OpenAI, probe.HTTP, probe.Prometheus,
}

// TestBadDays lets every engine fail in every way, after it was read once.
func TestBadDays(t *testing.T) {
	t.Parallel()
	const html = "<!DOCTYPE html><html><head><title>Sign in - proxy</title></head><body></body></html>"
	for _, c := range []struct {
		name  string
		fail  func(e *enginetest.Engine)
		is    error // nil: a StatusError
		state hivebeat.State
		says  string // in the judge's reason
	}{
		{"500 to everything", func(e *enginetest.Engine) { e.Fail(500, "Internal Server Error\nTraceback") }, nil, hivebeat.Degraded, "500: Internal Server Error"},
		{"a dead engine core", func(e *enginetest.Engine) { e.Fail(503, "") }, nil, hivebeat.Degraded, "503 Service Unavailable"},
		{"502 of a proxy", func(e *enginetest.Engine) { e.Fail(502, "<html><title>502 Bad\x1b[31m Gateway</title></html>") }, nil, hivebeat.Degraded, "502: 502 Bad"},
		{"401", func(e *enginetest.Engine) { e.Fail(401, `{"error":"Unauthorized"}`) }, probe.ErrUnauthorized, hivebeat.Degraded, "credentials refused (401): Unauthorized"},
		{"403", func(e *enginetest.Engine) { e.Fail(403, "") }, probe.ErrUnauthorized, hivebeat.Degraded, "credentials refused (403): Forbidden"},
		{"429", func(e *enginetest.Engine) { e.Fail(429, "") }, probe.ErrBusy, hivebeat.Busy, "429"},
		{"HTML instead of what was asked for", func(e *enginetest.Engine) { e.Fail(200, html) }, probe.ErrAnswer, hivebeat.Degraded, "not the answer of this engine"},
		{"404 to everything", func(e *enginetest.Engine) { e.Fail(404, "") }, probe.ErrAnswer, hivebeat.Degraded, "not the answer of this engine: "},
		{"nothing listens", func(e *enginetest.Engine) { e.Refuse() }, probe.ErrRefused, hivebeat.Degraded, "refuses connections since"},
	} {
		for _, kind := range engines {
			t.Run(c.name+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				e := enginetest.New(t, kind)
				p, j := of(t, e), probe.NewJudge(probe.JudgeConfig{})
				j.Hear(time.Unix(0, 0), read(t, p), nil)
				c.fail(e)
				_, err := p.Read(t.Context())
				status := new(probe.StatusError)
				if c.is != nil && !errors.Is(err, c.is) || c.is == nil && !errors.As(err, &status) {
					t.Fatalf("error %v, want %v", err, c.is)
				}
				got := j.Hear(time.Unix(5, 0), probe.Reading{}, err)
				if got.State != c.state || !strings.Contains(got.Reason, c.says) || strings.ContainsRune(got.Reason, 0x1b) {
					t.Errorf("state %s, reason %q, want %s with %q", got.State, got.Reason, c.state, c.says)
				}
				if got.Probed != time.Unix(0, 0) || got.Reading.Engine != string(kind) {
					t.Errorf("probed at %v, reading of %q; want the last good ones", got.Probed, got.Reading.Engine)
				}

				e.Fail(0, "")
				if err := e.Listen(); err != nil && !strings.Contains(err.Error(), "in use") {
					t.Fatal(err)
				}
				if got := j.Hear(time.Unix(10, 0), read(t, p), nil); got.State != hivebeat.Ready {
					t.Errorf("state %s (%s) after it works again, want ready", got.State, got.Reason)
				}
			})
		}
	}
}

// TestSilent: engines that accept and do not answer, or not in time.
func TestSilent(t *testing.T) {
	t.Parallel()
	drip := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil { // 1 byte a second, if anyone waited for it
			_, _ = io.WriteString(w, "#")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
		}
	}))
	t.Cleanup(drip.Close)
	var lc net.ListenConfig
	mute, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	hung := enginetest.New(t, probe.VLLM)
	hung.Hang(true)

	for name, url := range map[string]string{"1 byte a second": drip.URL, "accepted by the kernel alone": "http://" + mute.Addr().String(), "accepted": hung.URL} {
		for _, kind := range append(engines, probe.Auto) {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				t.Parallel()
				p := prober(t, probe.Config{Kind: kind, URL: url, Mapping: mappings[kind], Every: time.Second, Timeout: 100 * time.Millisecond})
				if _, err := p.Read(t.Context()); !errors.Is(err, probe.ErrTimeout) {
					t.Errorf("error %v, want %v", err, probe.ErrTimeout)
				}
			})
		}
	}

	// A reading that the caller gives up is not the engine's fault.
	p := of(t, hung)
	ctx, cancel := contextOf(t)
	var group sync.WaitGroup
	for range 2 { // one reads, and the other waits for its turn
		group.Go(func() {
			if _, err := p.Read(ctx); !errors.Is(err, ctx.Err()) || errors.Is(err, probe.ErrTimeout) {
				t.Errorf("error %v, want that of the caller's context", err)
			}
		})
	}
	cancel()
	group.Wait()
}

// TestTooMuch: 100 MiB of metrics end a reading after 4 MiB.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	sent := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			return
		}
		line := "vllm:e2e_request_latency_seconds_bucket{le=\"" + strings.Repeat("9", 1000) + "\"} 1\n"
		for range 100 << 20 / len(line) {
			if _, err := io.WriteString(w, line); err != nil {
				break
			}
			mu.Lock()
			sent += len(line)
			mu.Unlock()
		}
	}))
	t.Cleanup(s.Close)
	for _, kind := range []probe.Kind{probe.VLLM, probe.Ollama, probe.Prometheus, probe.HTTP} {
		p := prober(t, probe.Config{Kind: kind, URL: s.URL, Mapping: mappings[kind]})
		_, err := p.Read(t.Context())
		if !errors.Is(err, probe.ErrAnswer) || !strings.Contains(err.Error(), "more than 4 MiB") {
			t.Errorf("%s: error %v, want one about 4 MiB", kind, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if sent > 80<<20 {
		t.Errorf("%d MiB were taken of four answers, want about 4 each, and what buffers hold", sent>>20)
	}
}

// TestBadValues: what is no count is unknown, and counted.
func TestBadValues(t *testing.T) {
	t.Parallel()
	metrics := map[string]string{"/metrics": "vllm:num_requests_running NaN\nvllm:num_requests_waiting{a=\"1\"} 1\nvllm:num_requests_waiting{a=\"2\"} -3\n" +
		"vllm:kv_cache_usage_perc +Inf\nvllm:request_success_total 1e300\nvllm:generation_tokens_total many\n"}
	e := enginetest.New(t, probe.VLLM, enginetest.With(func(s *enginetest.State) { s.Answers = metrics }))
	p := of(t, e)
	r := read(t, p)
	if r.Busy != nil || r.Queue != nil || r.KV != nil || r.Done != nil || r.Tokens != nil || r.State != hivebeat.Ready {
		t.Errorf("reading %+v, want only unknown counts", r)
	}
	if got := p.Stats().BadValues; got != 5 {
		t.Errorf("%d bad values, want 5", got)
	}

	e = enginetest.New(t, probe.SGLang, enginetest.With(func(s *enginetest.State) {
		s.Answers = map[string]string{"/v1/loads": `{"loads":[{"num_running_reqs":-1,"num_waiting_reqs":null,"token_usage":7,"max_running_requests":0}]}`}
	}))
	p = of(t, e)
	if r := read(t, p); r.Busy != nil || r.Queue != nil || r.Slots != nil {
		t.Errorf("reading %+v, want only unknown counts", r)
	}
	if got := p.Stats().BadValues; got != 2 {
		t.Errorf("%d bad values, want 2", got)
	}
}

// TestAnotherEngine: the port belongs to another engine than the one that is configured.
func TestAnotherEngine(t *testing.T) {
	t.Parallel()
	for _, there := range engines[:6] {
		e := enginetest.New(t, there)
		for _, kind := range engines[:6] {
			if kind == there {
				continue
			}
			_, err := prober(t, probe.Config{Kind: kind, URL: e.URL}).Read(t.Context())
			if !errors.Is(err, probe.ErrAnswer) {
				t.Errorf("%s on the port that should be of %s: error %v, want %v", there, kind, err, probe.ErrAnswer)
			}
		}
	}
}

// TestAuto: a prober that finds out by itself, also when another engine takes the port.
func TestAuto(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t, probe.VLLM)
	p := prober(t, probe.Config{URL: e.URL})
	if p.Kind() != probe.Auto {
		t.Errorf("kind %s before the first reading", p.Kind())
	}
	if r := read(t, p); r.Engine != "vllm" || p.Kind() != probe.VLLM {
		t.Errorf("engine %s, kind %s, want vllm", r.Engine, p.Kind())
	}
	e.Close()
	other := enginetest.New(t, probe.Ollama, enginetest.Addr(e.URL[len("http://"):]))
	if _, err := p.Read(t.Context()); !errors.Is(err, probe.ErrAnswer) {
		t.Errorf("error %v, want %v", err, probe.ErrAnswer)
	}
	if r := read(t, p); r.Engine != "ollama" {
		t.Errorf("engine %s at %s, want ollama", r.Engine, other.URL)
	}
}

// TestRedirects are followed on the host that was named, and no further.
func TestRedirects(t *testing.T) {
	t.Parallel()
	var stolen http.Header
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen = r.Header }))
	t.Cleanup(thief.Close)
	engine := enginetest.New(t, probe.Ollama)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/away/api/ps":
			http.Redirect(w, r, thief.URL, http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/round"):
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/old"):
			http.Redirect(w, r, "/new"+strings.TrimPrefix(r.URL.Path, "/old"), http.StatusTemporaryRedirect)
		default:
			r.URL.Path = strings.TrimPrefix(r.URL.Path, "/new")
			engine.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	token := write(t, "token", "secret\n")
	for path, want := range map[string]string{"/away": "redirect to " + thief.URL, "/round": "more than 3 redirects"} {
		_, err := prober(t, probe.Config{Kind: probe.Ollama, URL: front.URL + path, TokenFile: token}).Read(t.Context())
		if !errors.Is(err, probe.ErrAnswer) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
	if stolen != nil {
		t.Errorf("another host was asked, with %v", stolen)
	}
	if r := read(t, prober(t, probe.Config{Kind: probe.Ollama, URL: front.URL + "/old/"})); r.Version != "1.2.3" {
		t.Errorf("reading %+v through a redirect on the same host", r)
	}
}

// TestToken is read again before each reading.
func TestToken(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t, probe.LlamaCPP, enginetest.With(func(s *enginetest.State) { s.Token = "new" }))
	token := write(t, "token", "old")
	p := prober(t, probe.Config{Kind: probe.LlamaCPP, URL: e.URL, TokenFile: token})
	_, err := p.Read(t.Context())
	if !errors.Is(err, probe.ErrUnauthorized) || !strings.Contains(err.Error(), "Invalid API Key") {
		t.Errorf("error %v, want %v with the engine's words", err, probe.ErrUnauthorized)
	}
	if err := os.WriteFile(token, []byte("new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := read(t, p); r.State != hivebeat.Ready {
		t.Errorf("state %s with the new token", r.State)
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "token file") {
		t.Errorf("error %v, want one about the token file", err)
	}

	// A wrong token is an error even where the engine could be read without one.
	v := enginetest.New(t, probe.VLLM, enginetest.With(func(s *enginetest.State) { s.Token = "other" }))
	if _, err := prober(t, probe.Config{Kind: probe.VLLM, URL: v.URL, TokenFile: write(t, "token", "wrong")}).Read(t.Context()); !errors.Is(err, probe.ErrUnauthorized) {
		t.Errorf("error %v, want %v", err, probe.ErrUnauthorized)
	}
}

// TestTLS: a certificate must be valid for the name, unless the operator says otherwise.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(enginetest.Make(probe.Ollama))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := write(t, "ca.pem", pemOf(s.Certificate()))
	wrong := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	for _, c := range []struct {
		name string
		cfg  probe.Config
		says string // of the error; empty: none
	}{
		{"unknown authority", probe.Config{URL: s.URL}, "certificate"},
		{"known authority", probe.Config{URL: s.URL, CAFile: ca}, ""},
		{"wrong name", probe.Config{URL: wrong, CAFile: ca}, "localhost"},
		{"insecure", probe.Config{URL: wrong, Insecure: true}, ""},
	} {
		c.cfg.Kind = probe.Ollama
		_, err := prober(t, c.cfg).Read(t.Context())
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.says)
		}
	}
	j := probe.NewJudge(probe.JudgeConfig{})
	var got probe.Report
	for i := range 3 {
		_, err := prober(t, probe.Config{Kind: probe.Ollama, URL: wrong, CAFile: ca}).Read(t.Context())
		got = j.Hear(time.Unix(int64(5*i), 0), probe.Reading{}, err)
	}
	if got.State != hivebeat.Degraded || !strings.Contains(got.Reason, "localhost") {
		t.Errorf("state %s, reason %q, want degraded with the name", got.State, got.Reason)
	}
}

// TestBroken: a connection that breaks in an answer is no answer.
func TestBroken(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"models\":")
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
	p := prober(t, probe.Config{Kind: probe.Ollama, URL: "http://" + l.Addr().String()})
	j := probe.NewJudge(probe.JudgeConfig{})
	for i, want := range []hivebeat.State{hivebeat.Starting, hivebeat.Starting, hivebeat.Degraded} {
		_, err := p.Read(t.Context())
		if err == nil || errors.Is(err, probe.ErrAnswer) {
			t.Fatalf("error %v, want one of the connection", err)
		}
		if got := j.Hear(time.Unix(int64(5*i), 0), probe.Reading{}, err); got.State != want {
			t.Errorf("state %s (%s) after %d broken answers, want %s", got.State, got.Reason, i+1, want)
		}
	}
}

// write creates a file in a folder of the test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
