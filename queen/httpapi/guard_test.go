package httpapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const (
	token = "correct-horse-battery-staple"
	other = "staple-battery-horse-correct"
)

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	writeToken(t, path, token)
	return path
}

func writeToken(t *testing.T, path, token string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A host name that a foreign DNS server resolves to loopback is refused.
func TestHostIsChecked(t *testing.T) {
	_, base := serve(t, newFake(), Config{Origins: []string{"https://ops.example.org"}})
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:7833": 200, "127.0.0.1": 200, "127.8.8.8:1": 200, "[::1]:7833": 200, "[::1]": 200,
		"ops.example.org": 200, "ops.example.org:443": 200, // forwarded by a proxy
		"evil.example": 421, "evil.example:7833": 421, "localhost.evil.example": 421, "192.0.2.1": 421, "127.0.0.1.evil.example": 421,
	} {
		if a := ask(t, "GET", base+"/v1/summary", "", "Host: "+host); a.code != want {
			t.Errorf("%s: %d, want %d", host, a.code, want)
		}
	}
}

// A request that a foreign page makes a browser send is refused, unless its origin is
// allowed. Links to this server are followed.
func TestOtherOrigins(t *testing.T) {
	_, base := serve(t, newFake(), Config{Origins: []string{"https://ops.example.org"}})
	const body = "Content-Type: application/json"
	for _, c := range []struct {
		method, path string
		headers      []string
		code         int
		allowed      string
	}{
		{"GET", "/v1/summary", []string{"Origin: https://ops.example.org", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"}, 200, "https://ops.example.org"},
		{"GET", "/v1/summary", []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"}, 403, ""},
		{"GET", "/v1/watch", []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"}, 403, ""},
		{"GET", "/v1/summary", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403, ""},
		{"GET", "/v1/summary", []string{"Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"}, 403, ""},
		{"GET", "/v1/summary", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403, ""},
		{"GET", "/", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200, ""},
		{"GET", "/v1/summary", []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"}, 200, ""},
		{"GET", "/v1/summary", []string{"Origin: https://evil.example"}, 200, ""}, // sent by no current browser; without CORS the page cannot read the answer
		{"POST", "/v1/hold", []string{body}, 200, ""},
		{"POST", "/v1/hold", []string{body, "Origin: https://ops.example.org", "Sec-Fetch-Site: cross-site"}, 200, "https://ops.example.org"},
		{"POST", "/v1/hold", []string{body, "Origin: https://evil.example"}, 403, ""},
		{"POST", "/v1/hold", []string{body, "Sec-Fetch-Site: cross-site"}, 403, ""},
		{"POST", "/v1/release", []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}, 403, ""},
		{"OPTIONS", "/v1/hold", []string{"Origin: https://ops.example.org", "Access-Control-Request-Method: POST"}, 204, "https://ops.example.org"},
		{"OPTIONS", "/v1/hold", []string{"Origin: https://evil.example", "Access-Control-Request-Method: POST", "Sec-Fetch-Site: cross-site"}, 403, ""},
		{"OPTIONS", "/v1/hold", []string{"Origin: https://ops.example.org.evil.example", "Access-Control-Request-Method: POST"}, 405, ""},
	} {
		a := ask(t, c.method, base+c.path, "{}", c.headers...)
		if a.code != c.code || a.header.Get("Access-Control-Allow-Origin") != c.allowed {
			t.Errorf("%s %s %v: %d, allowed %q; want %d, %q", c.method, c.path, c.headers, a.code, a.header.Get("Access-Control-Allow-Origin"), c.code, c.allowed)
		}
		if got := a.header.Get("Access-Control-Allow-Credentials"); got != "" {
			t.Errorf("another page may use the cookie: %q", got)
		}
	}
}

// Every answer, refusals included, restricts what browsers may do with it.
func TestSecurityHeaders(t *testing.T) {
	_, base := serve(t, newFake(), Config{TokenFile: tokenFile(t, token)})
	for _, path := range []string{"/", "/v1/summary", "/healthz", "/login", "/nothing"} {
		a := ask(t, "GET", base+path, "")
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		csp := a.header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'self'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
	}
}

// With a token, only probes and the login are answered without it.
func TestToken(t *testing.T) {
	f := newFake()
	path := tokenFile(t, token)
	s, base := serve(t, f, Config{TokenFile: path, Metrics: http.NotFoundHandler()})
	for p, want := range map[string]int{
		"/v1/summary": 401, "/v1/watch": 401, "/": 401, "/index.html": 401, "/openapi.json": 401, "/metrics": 401, "/nothing": 401,
		"/healthz": 200, "/readyz": 200, "/login": 200, "/login.css": 200,
	} {
		a := ask(t, "GET", base+p, "")
		if a.code != want || (want == 401) != strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: %d, want %d", p, a.code, want)
		}
		if want == 401 && strings.Contains(a.body, "fake") {
			t.Errorf("%s: who is not let in is told %s", p, a.body)
		}
	}
	for auth, want := range map[string]int{
		"Bearer " + token: 200, "bearer  " + token + " ": 200,
		"Bearer " + other: 401, "Bearer " + token + "x": 401, "Bearer " + token[:20]: 401, "Bearer": 401, "Basic " + token: 401, token: 401,
	} {
		if a := ask(t, "GET", base+"/v1/summary", "", "Authorization: "+auth); a.code != want {
			t.Errorf("%q: %d, want %d", auth, a.code, want)
		}
	}
	if a := ask(t, "GET", base+"/v1/summary?token="+token, ""); a.code != 401 {
		t.Errorf("a token in the URL: %d", a.code)
	}

	// The token is read again for each request; without a token file every request is
	// refused.
	with := func(token string) int {
		return ask(t, "GET", base+"/v1/summary", "", "Authorization: Bearer "+token).code
	}
	writeToken(t, path, other)
	if a, b := with(token), with(other); a != 401 || b != 200 {
		t.Errorf("after a change: the old one %d, the new one %d", a, b)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if a, b := with(other), with(""); a != 401 || b != 401 {
		t.Errorf("without the file: %d, %d", a, b)
	}
	writeToken(t, path, "") // as while the file is being written
	if a, b := with(other), with(""); a != 401 || b != 401 {
		t.Errorf("with an empty file: %d, %d", a, b)
	}
	if st := s.Stats(); st.Requests[Asked{"refused", 401}] == 0 {
		t.Errorf("%v", st.Requests)
	}
}

func TestTokensThatAreNone(t *testing.T) {
	for _, bad := range []string{"", "short", "fifteen-letters", "with a space in the middle", "ümläut-ümläut-ümläut", strings.Repeat("x", 513), strings.Repeat("x", 5000)} {
		if _, err := New(newFake(), Config{TokenFile: tokenFile(t, bad)}); !errors.Is(err, ErrToken) || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	if _, err := New(newFake(), Config{Addr: ":0", TokenFile: tokenFile(t, strings.Repeat("x", 512))}); err != nil {
		t.Error(err)
	}
}

// People log in by a form. The cookie is not the token, and only this page sends it.
func TestLogin(t *testing.T) {
	path := tokenFile(t, token)
	_, base := serve(t, newFake(), Config{TokenFile: path})
	html := "Accept: text/html,application/xhtml+xml"
	a := ask(t, "GET", base+"/?hive=a%26b", "", html)
	if a.code != 303 || a.header.Get("Location") != "/login?next="+url.QueryEscape("/?hive=a%26b") {
		t.Fatalf("%d to %s", a.code, a.header.Get("Location"))
	}
	if a := ask(t, "GET", base+a.header.Get("Location"), "", html); a.code != 200 || !strings.Contains(a.body, `value="/?hive=a%26b"`) || strings.Contains(a.body, "not the token") {
		t.Errorf("%d %s", a.code, a.body)
	}
	form := "Content-Type: application/x-www-form-urlencoded"
	enter := func(token, next string, headers ...string) reply {
		return ask(t, "POST", base+"/login", url.Values{"token": {token}, "next": {next}}.Encode(), append(headers, form)...)
	}
	if a := enter(other, "/"); a.code != 401 || !strings.Contains(a.body, "not the token") || a.header.Get("Set-Cookie") != "" {
		t.Errorf("a wrong token: %d %s", a.code, a.body)
	}
	if a := enter(token, "/", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"); a.code != 403 {
		t.Errorf("a form of another page: %d", a.code)
	}
	for next, want := range map[string]string{
		"/?hive=a": "/?hive=a", "": "/", "https://evil.example/": "/", "//evil.example": "/", `/\evil.example`: "/", "javascript:alert(1)": "/", "evil": "/",
		"/\t/evil.example": "/", "///evil.example": "/",
	} {
		if a := enter(token, next); a.code != 303 || a.header.Get("Location") != want {
			t.Errorf("next %q: %d to %q", next, a.code, a.header.Get("Location"))
		}
	}
	cookie := enter(" "+token+"\n", "/").header.Get("Set-Cookie")
	for _, has := range []string{"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="} {
		if !strings.Contains(cookie, has) {
			t.Errorf("the cookie is %q", cookie)
		}
	}
	if strings.Contains(cookie, token) || strings.Contains(cookie, "Secure") {
		t.Errorf("the cookie is %q", cookie)
	}
	if c := enter(token, "/", "X-Forwarded-Proto: https").header.Get("Set-Cookie"); !strings.Contains(c, "Secure") {
		t.Errorf("behind TLS the cookie is %q", c)
	}
	pair, _, _ := strings.Cut(cookie, ";")
	for _, p := range []string{"/", "/v1/summary"} {
		if a := ask(t, "GET", base+p, "", "Cookie: "+pair); a.code != 200 {
			t.Errorf("%s with the cookie: %d", p, a.code)
		}
	}
	if a := ask(t, "GET", base+"/login?next=/x", "", "Cookie: "+pair); a.code != 303 || a.header.Get("Location") != "/x" {
		t.Errorf("who is logged in: %d to %q", a.code, a.header.Get("Location"))
	}
	for _, c := range []string{"hivebeat=" + token, "hivebeat=", pair + "0"} {
		if a := ask(t, "GET", base+"/v1/summary", "", "Cookie: "+c); a.code != 401 {
			t.Errorf("%s: %d", c, a.code)
		}
	}
	if a := ask(t, "POST", base+"/logout", "", "Cookie: "+pair); a.code != 303 || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout: %d %v", a.code, a.header)
	}
	writeToken(t, path, other)
	if a := ask(t, "GET", base+"/v1/summary", "", "Cookie: "+pair); a.code != 401 {
		t.Errorf("the cookie outlives its token: %d", a.code)
	}
}

// A stream ends when the token that it was opened with is no longer valid.
func TestStreamEndsWithItsToken(t *testing.T) {
	path := tokenFile(t, token)
	bubble(t, Config{TokenFile: path}, func(t *testing.T, _ *Server, _ *fake, p *pipes) {
		w := p.watch(t, "", "Authorization: Bearer "+token)
		w.must()
		writeToken(t, path, other)
		for {
			e, ok := w.next()
			if !ok {
				break
			}
			if e.at > 6*time.Second {
				t.Fatalf("it goes on after %s: %+v", e.at, e)
			}
		}
		if w.lines.Err() != nil {
			t.Error(w.lines.Err())
		}
	})
}

// Listening beyond loopback requires explicit consent.
func TestBeyondLoopback(t *testing.T) {
	if _, err := New(newFake(), Config{Addr: "0.0.0.0:0"}); !errors.Is(err, ErrExposed) {
		t.Errorf("%v", err)
	}
	s, err := New(newFake(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), ln); !errors.Is(err, ErrExposed) {
		t.Errorf("a listener of another: %v", err)
	}
	if _, err := ln.Accept(); err == nil {
		t.Error("it is open")
	}

	// Nor does the handler answer there in another http.Server.
	from := func(s *Server, a net.Addr) int {
		q := httptest.NewRequest("GET", "http://gpu-01/v1/summary", nil)
		if a != nil {
			q = q.WithContext(context.WithValue(q.Context(), http.LocalAddrContextKey, a))
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, q)
		return w.Code
	}
	outside := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}
	if a, b := from(s, outside), from(s, nil); a != 403 || b != 403 {
		t.Errorf("the handler: %d, %d", a, b)
	}
	open, err := New(newFake(), Config{Addr: ":0", Open: true})
	if err != nil {
		t.Fatal(err)
	}
	if a := from(open, outside); a != 200 {
		t.Errorf("open: %d", a)
	}
	closed, err := New(newFake(), Config{Addr: ":0", TokenFile: tokenFile(t, token)})
	if err != nil {
		t.Fatal(err)
	}
	if a := from(closed, outside); a != 401 {
		t.Errorf("with a token: %d", a)
	}
	_, base := serve(t, newFake(), Config{Addr: "0.0.0.0:0", Open: true})
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(base, "http://"))
	if a := ask(t, "GET", "http://127.0.0.1:"+port+"/v1/summary", ""); a.code != 200 {
		t.Errorf("%d", a.code)
	}
}

func TestFiles(t *testing.T) {
	script := []byte(strings.Repeat("export const a = 1;\n", 200))
	fsys := fstest.MapFS{
		"index.html": {Data: []byte("<!doctype html><title>page</title>")}, "js/app.js": {Data: script}, "logo.svg": {Data: []byte("<svg/>")},
		"page.go": {Data: []byte("package page")}, ".hidden": {Data: []byte("x")}, "testdata/x.json": {Data: []byte("{}")},
	}
	_, base := serve(t, newFake(), Config{Page: fsys})
	for p, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/index.html": "text/html; charset=utf-8", "/js/app.js": "text/javascript; charset=utf-8", "/logo.svg": "image/svg+xml",
	} {
		a := ask(t, "GET", base+p, "")
		if a.code != 200 || a.header.Get("Content-Type") != kind || a.header.Get("Cache-Control") != "no-cache" || a.header.Get("ETag") == "" {
			t.Errorf("%s: %d %v", p, a.code, a.header)
		}
	}
	for _, p := range []string{"/page.go", "/.hidden", "/testdata/x.json", "/js/", "/js", "/js/../page.go", "/%2e%2e/go.mod"} {
		if a := ask(t, "GET", base+p, ""); a.code == 200 {
			t.Errorf("%s is there: %s", p, a.body)
		}
	}
	plain := ask(t, "GET", base+"/js/app.js", "")
	zipped := ask(t, "GET", base+"/js/app.js", "", "Accept-Encoding: gzip")
	if plain.body != string(script) || zipped.header.Get("Content-Encoding") != "gzip" || len(zipped.body) > 400 {
		t.Errorf("%d bytes, %d zipped", len(plain.body), len(zipped.body))
	}
	if plain.header.Get("ETag") == zipped.header.Get("ETag") || zipped.header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("a cache cannot tell the two forms apart: %v and %v", plain.header, zipped.header)
	}
	for _, r := range []reply{plain, zipped} {
		accept := "Accept-Encoding: " + r.header.Get("Content-Encoding")
		if a := ask(t, "GET", base+"/js/app.js", "", "If-None-Match: "+r.header.Get("ETag"), accept); a.code != 304 || a.body != "" {
			t.Errorf("asked again: %d, %d bytes", a.code, len(a.body))
		}
		if a := ask(t, "GET", base+"/js/app.js", "", `If-None-Match: "old"`, accept); a.code != 200 {
			t.Errorf("after a change: %d", a.code)
		}
	}
	if a := ask(t, "HEAD", base+"/js/app.js", ""); a.code != 200 || a.body != "" {
		t.Errorf("HEAD: %d", a.code)
	}

	_, base = serve(t, newFake(), Config{Page: fstest.MapFS{}})
	if a := ask(t, "GET", base+"/", ""); a.code != 200 || !strings.Contains(a.body, "not built into") {
		t.Errorf("no page: %d %s", a.code, a.body)
	}
}

// A body, a header or a pause that never ends occupies a connection only for a bounded
// time.
func TestLimits(t *testing.T) {
	s, err := New(newFake(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := s.http
	if h.ReadHeaderTimeout <= 0 || h.ReadTimeout <= 0 || h.WriteTimeout <= 0 || h.IdleTimeout <= 0 || h.MaxHeaderBytes <= 0 || h.MaxHeaderBytes > 64<<10 {
		t.Errorf("%+v", h)
	}
	_, base := serve(t, newFake(), Config{})
	if a := ask(t, "GET", base+"/v1/summary", "", "X-Long: "+strings.Repeat("x", 64<<10)); a.code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header: %d", a.code)
	}
}
