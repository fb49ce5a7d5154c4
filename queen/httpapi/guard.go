package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
)

// guard decides which requests are admitted.
type guard struct {
	tokenFile string
	open      bool
	origins   []string
	hosts     []string // host names of the origins
	cross     *http.CrossOriginProtection
	log       *slog.Logger

	mu     sync.Mutex
	warned time.Time // when the last warning about an unreadable token was logged
}

func newGuard(cfg Config) (*guard, error) {
	g := &guard{tokenFile: cfg.TokenFile, open: cfg.Open, origins: cfg.Origins, cross: http.NewCrossOriginProtection(), log: cfg.Logger}
	for _, o := range cfg.Origins {
		u, err := url.Parse(o)
		if err == nil {
			err = g.cross.AddTrustedOrigin(o)
		}
		if err != nil {
			return nil, fmt.Errorf("httpapi: Config.Origins: %w", err)
		}
		g.hosts = append(g.hosts, strings.ToLower(u.Hostname()))
	}
	if g.tokenFile != "" {
		if _, err := readToken(g.tokenFile); err != nil {
			return nil, fmt.Errorf("httpapi: Config.TokenFile: %w", err)
		}
	}
	return g, nil
}

const (
	minToken = 16
	maxToken = 512
)

// readToken returns the token in a file, without surrounding space.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+64))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < minToken || len(token) > maxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("%w: %s: a token is %d to %d visible ASCII characters", ErrToken, path, minToken, maxToken)
	}
	return token, nil
}

// token returns the current token. It reads the file each time: that costs less than an
// answer, and the file may change twice within the resolution of its modification time.
func (g *guard) token() (string, bool) {
	t, err := readToken(g.tokenFile)
	if err == nil {
		return t, true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.warned) > time.Minute {
		g.warned = time.Now()
		g.log.Warn("cannot read the token file: HTTP requests that need the token are refused", slog.Any("err", err))
	}
	return "", false
}

// same compares a and b in constant time, so that the time reveals neither how much of
// a guess is right nor how long the right value is.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// cookieOf returns the cookie value that proves knowledge of token. It is not the token
// itself, which must not be stored in a browser's files.
func cookieOf(token string) string {
	m := hmac.New(sha256.New, []byte(token))
	m.Write([]byte("hivebeat cookie v1"))
	return hex.EncodeToString(m.Sum(nil))
}

// knows reports whether q carries the token, or the cookie of the login.
func (g *guard) knows(q *http.Request) bool {
	if g.tokenFile == "" {
		return true
	}
	token, ok := g.token()
	if !ok {
		return false
	}
	scheme, given, _ := strings.Cut(q.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && same(strings.TrimSpace(given), token) {
		return true
	}
	for _, c := range q.CookiesNamed(cookieName) {
		if same(c.Value, cookieOf(token)) {
			return true
		}
	}
	return false
}

// Errors that the guard answers with.
var (
	errExposed   = errors.New("beyond loopback this server requires a token, or --http-open")
	errElsewhere = errors.New("requests from pages of other origins are refused; start the queen with --http-origin and the page's origin to allow them")
	errToken     = errors.New("this needs the token: Authorization: Bearer …")
)

// hostError refuses a host name, and says how to admit it.
type hostError struct{ host string }

func (e *hostError) Error() string {
	origin := "http://HOST:PORT"
	if u, err := url.Parse("http://" + e.host); err == nil && u.Host == e.host && u.Hostname() != "" {
		origin = "http://" + e.host
	}
	return fmt.Sprintf("on loopback this server answers only to localhost and 127.0.0.1, not to %.100q (protection against DNS rebinding). To allow the name, start the queen with --http-origin %.100s", e.host, origin)
}

// public reports whether path needs no token: the probes, and the login pages.
func public(path string) bool {
	switch path {
	case "/healthz", "/readyz", pathLogin, pathLogout, pathLoginCSS:
		return true
	}
	return false
}

// admit returns the status and the reason for refusing q; status 0 admits it.
func (g *guard) admit(q *http.Request) (status int, err error) {
	local := false
	if a, ok := q.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		local = localAddr(a)
	}
	if !local && g.tokenFile == "" && !g.open {
		return http.StatusForbidden, errExposed
	}
	// DNS rebinding: a foreign name that resolves to this machine would make its page
	// same-origin with this server. A token does not protect the paths that need none.
	if local && !g.ownHost(q.Host) {
		return http.StatusMisdirectedRequest, &hostError{q.Host}
	}
	if err := g.cross.Check(q); err != nil || !g.fromHere(q) {
		return http.StatusForbidden, errElsewhere
	}
	if !public(q.URL.Path) && !g.knows(q) {
		return http.StatusUnauthorized, errToken
	}
	return 0, nil
}

// ownHost reports whether a request on loopback names this machine as its host.
func (g *guard) ownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return isLoopback(host) || slices.Contains(g.hosts, host)
}

// fromHere reports whether q does not come from a page of another origin, going by the
// browser's headers. A link to this server may be followed. A subresource request of a
// foreign page is refused: the page could not read the answer, but a stream would still
// cost this server.
func (g *guard) fromHere(q *http.Request) bool {
	if o := q.Header.Get("Origin"); o != "" && slices.Contains(g.origins, o) {
		return true
	}
	switch q.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return q.Header.Get("Sec-Fetch-Mode") == "navigate" && q.Header.Get("Sec-Fetch-Dest") == "document"
	}
	return true
}

// policy keeps the page from loading anything from other servers and from running
// inline scripts.
const policy = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"

// guarded passes only admitted requests to next.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if len(s.cfg.Origins) > 0 {
			h.Add("Vary", "Origin")
		}
		if o := q.Header.Get("Origin"); o != "" && slices.Contains(s.cfg.Origins, o) {
			h.Set("Access-Control-Allow-Origin", o)
			if q.Method == http.MethodOptions && q.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST")
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
				h.Set("Access-Control-Max-Age", "600")
				s.counts.request("preflight", http.StatusNoContent)
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		status, err := s.guard.admit(q)
		if err == nil {
			next.ServeHTTP(w, q)
			return
		}
		if status == http.StatusUnauthorized && wantsPage(q) {
			s.counts.request("refused", http.StatusSeeOther)
			http.Redirect(w, q, pathLogin+"?next="+url.QueryEscape(q.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		s.counts.request("refused", status)
		if status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", `Bearer realm="hivebeat"`)
		}
		// A refused client learns nothing about the fleet.
		b, _ := json.Marshal(api.Answer{Status: api.Status{AsOf: time.Now().UTC(), Asker: api.Anyone}, Error: &api.Error{Code: CodeRefused, Message: err.Error()}})
		writeJSON(w, q, status, b)
	})
}

// CodeRefused is the error code in the answer to a refused HTTP request.
const CodeRefused = "refused"

// wantsPage reports whether q comes from a browser that opens the page.
func wantsPage(q *http.Request) bool {
	return q.Method == http.MethodGet && strings.Contains(q.Header.Get("Accept"), "text/html") && !strings.HasPrefix(q.URL.Path, "/v1/")
}
