package httpapi

import (
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	pathLogin    = "/login"
	pathLoginCSS = "/login.css"
	pathLogout   = "/logout"
	cookieName   = "hivebeat"
	cookieLife   = 30 * 24 * time.Hour
)

// loginPage asks for the token. The form sends the token in the body of a POST, because
// URLs end up in logs and histories.
var loginPage = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hivebeat: log in</title>
<link rel="stylesheet" href="` + pathLoginCSS + `">
<main>
<h1>hivebeat</h1>
<form method="post" action="` + pathLogin + `">
<input type="hidden" name="next" value="{{.Next}}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
{{if .Wrong}}<p role="alert">That is not the token.</p>
{{end}}<button>Log in</button>
</form>
</main>
</html>
`))

const loginCSS = `:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; }
main { margin: 18vh auto 0; max-width: 20rem; padding: 0 1rem; }
form { display: grid; gap: .5rem; }
input, button { font: inherit; padding: .5rem .6rem; }
p { margin: 0; font-weight: 600; }
`

// ownPath returns next if it is a path of this server, and otherwise "/", the page.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

func (s *Server) loginForm(w http.ResponseWriter, q *http.Request) {
	next := ownPath(q.URL.Query().Get("next"))
	if s.guard.knows(q) { // also true if no token is needed
		http.Redirect(w, q, next, http.StatusSeeOther) //nolint:gosec // ownPath lets no other host through
		return
	}
	s.showLogin(w, http.StatusOK, next, false)
}

func (s *Server) showLogin(w http.ResponseWriter, status int, next string, wrong bool) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = loginPage.Execute(w, struct { // the client is gone if this fails
		Next  string
		Wrong bool
	}{next, wrong})
}

// login sets a cookie if the form holds the right token.
func (s *Server) login(w http.ResponseWriter, q *http.Request) {
	q.Body = http.MaxBytesReader(w, q.Body, maxBody)
	if err := q.ParseForm(); err != nil {
		http.Error(w, "the form cannot be read", http.StatusBadRequest)
		return
	}
	next := ownPath(q.PostForm.Get("next"))
	if s.guard.tokenFile == "" {
		http.Redirect(w, q, next, http.StatusSeeOther) //nolint:gosec // ownPath lets no other host through
		return
	}
	token, ok := s.guard.token()
	if !ok || !same(strings.TrimSpace(q.PostForm.Get("token")), token) {
		s.showLogin(w, http.StatusUnauthorized, next, true)
		return
	}
	http.SetCookie(w, sessionCookie(q, cookieOf(token), int(cookieLife/time.Second)))
	http.Redirect(w, q, next, http.StatusSeeOther) //nolint:gosec // ownPath lets no other host through
}

// logout deletes the cookie.
func (s *Server) logout(w http.ResponseWriter, q *http.Request) {
	http.SetCookie(w, sessionCookie(q, "", -1))
	http.Redirect(w, q, pathLogin, http.StatusSeeOther)
}

func sessionCookie(q *http.Request, value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure where there is TLS: on loopback there is none
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		// A TLS-terminating proxy in front sets this header. A client that forges it only
		// keeps its own browser from sending the cookie.
		Secure: q.TLS != nil || strings.EqualFold(q.Header.Get("X-Forwarded-Proto"), "https"),
	}
}
