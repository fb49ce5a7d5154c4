package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/beatfabric/hivebeat/queen/api"
)

// route is one HTTP route for a verb.
type route struct {
	method, path string
	verb         string
	keys         []string // accepted query parameters, besides those in the path
}

// Parameters that several routes accept.
var (
	filterKeys = []string{"model", "live", "state", "zone", "selector", "text", "free_vram", "free_slots", "free_disk", "driver", "kernel", "max_age", "stalled"}
	pageKeys   = []string{"sort", "after", "offset", "limit"}
	pickKeys   = []string{"hive", "n", "for", "spread", "slots", "gpus", "min_uptime", "model", "zone", "selector", "free_vram", "free_slots", "free_disk", "driver", "kernel", "max_age"}
)

const (
	pathWatch = "/v1/watch"
	pathPick  = "/v1/pick"
)

// verbRoutes returns all routes below /v1. A GET changes nothing.
func verbRoutes() []route {
	get := func(path, verb string, keys ...[]string) route {
		return route{method: http.MethodGet, path: path, verb: verb, keys: slices.Concat(keys...)}
	}
	return []route{
		get("/v1/summary", api.VerbSummary),
		get("/v1/hives", api.VerbHives, []string{"hive"}, filterKeys, pageKeys),
		get("/v1/hives/{hive}", api.VerbHive),
		get("/v1/workers", api.VerbWorkers, []string{"hive"}, filterKeys, pageKeys),
		get("/v1/hives/{hive}/workers", api.VerbWorkers, filterKeys, pageKeys),
		get("/v1/hives/{hive}/workers/{worker}", api.VerbWorker),
		get("/v1/gpus", api.VerbGPUs, []string{"hive"}, filterKeys, []string{"after", "limit"}),
		get("/v1/events", api.VerbEvents, []string{"hive", "worker", "kinds", "since", "after", "limit"}),
		get("/v1/history", api.VerbHistory, []string{"hive", "since"}),
		get("/v1/holds", api.VerbHolds, []string{"after", "limit"}),
		get(pathPick, api.VerbPick, pickKeys),
		get(pathWatch, api.VerbWatch, []string{"hive", "after", "limit", "kinds", "only"}, filterKeys),
		{method: http.MethodPost, path: "/v1/hold", verb: api.VerbHold},
		{method: http.MethodPost, path: "/v1/release", verb: api.VerbRelease},
		{method: http.MethodPost, path: "/v1/forget", verb: api.VerbForget},
		{method: http.MethodPost, path: "/v1/drain", verb: api.VerbDrain},
		{method: http.MethodPost, path: "/v1/undrain", verb: api.VerbUndrain},
		{method: http.MethodPost, path: "/v1/silence", verb: api.VerbSilence},
		{method: http.MethodPost, path: "/v1/unsilence", verb: api.VerbUnsilence},
	}
}

// routes returns the handler of all routes, without the guard.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(method, path string, h http.HandlerFunc) {
		mux.Handle(method+" "+path, s.counted(strings.TrimSuffix(path, "{$}"), h))
	}
	for _, r := range verbRoutes() {
		switch {
		case r.path == pathWatch:
			handle(r.method, r.path, func(w http.ResponseWriter, q *http.Request) { s.watch(w, q, r) })
		case r.method == http.MethodPost:
			handle(r.method, r.path, func(w http.ResponseWriter, q *http.Request) { s.post(w, q, r) })
		default:
			handle(r.method, r.path, func(w http.ResponseWriter, q *http.Request) { s.ask(w, q, r) })
		}
	}
	handle(http.MethodGet, pathModels, s.models)
	handle(http.MethodGet, pathModels+"/{model...}", s.model)
	handle(http.MethodGet, "/healthz", s.healthz)
	handle(http.MethodGet, "/readyz", s.readyz)
	handle(http.MethodGet, "/openapi.json", s.openAPI)
	handle(http.MethodGet, pathLogin, s.loginForm)
	handle(http.MethodPost, pathLogin, s.login)
	handle(http.MethodPost, pathLogout, s.logout)
	if s.cfg.Metrics != nil {
		handle(http.MethodGet, "/metrics", s.cfg.Metrics.ServeHTTP)
	}
	for _, path := range s.files.paths() {
		handle(http.MethodGet, path, s.files.serve)
	}
	mux.Handle("/", s.counted("other", func(w http.ResponseWriter, q *http.Request) { s.nothing(w, q, mux) }))
	return mux
}

// nothing answers a path that does not exist, or not for this method.
func (s *Server) nothing(w http.ResponseWriter, q *http.Request, mux *http.ServeMux) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost} {
		other := q.Clone(q.Context())
		other.Method = m
		if _, pattern := mux.Handler(other); pattern != "/" {
			allowed = append(allowed, m)
		}
	}
	if allowed != nil {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.refuse(w, q, http.StatusMethodNotAllowed, api.CodeBadRequest, q.Method+" is not allowed for this path; allowed: "+strings.Join(allowed, ", "))
		return
	}
	s.refuse(w, q, http.StatusNotFound, api.CodeNotFound, "no such path; /openapi.json lists all paths")
}

// request builds the request from the path and the query of q.
func (r route) request(q *http.Request) (req api.Request, err error) {
	err = parseQuery(q.URL.RawQuery, r.keys, &req)
	if r.path == pathPick && err != nil {
		values := q.URL.Query()
		if values.Has("hold") || values.Has("hold_for") {
			err = errors.New("a GET changes nothing: send hold and hold_for in the JSON of a POST to /v1/hold")
		}
	}
	req.Hive = cmp.Or(q.PathValue("hive"), req.Hive)
	req.Worker = cmp.Or(q.PathValue("worker"), req.Worker)
	return req, err
}

// ask answers a GET.
func (s *Server) ask(w http.ResponseWriter, q *http.Request, r route) {
	req, err := r.request(q)
	if err != nil {
		s.refuse(w, q, http.StatusBadRequest, api.CodeBadRequest, err.Error())
		return
	}
	s.reply(w, q, r.verb, req)
}

// post answers a POST, whose request is in the body.
func (s *Server) post(w http.ResponseWriter, q *http.Request, r route) {
	var req api.Request
	err := parseQuery(q.URL.RawQuery, nil, &req)
	if err == nil {
		err = parseBody(w, q, &req)
	}
	switch {
	case errors.Is(err, errTooLarge):
		s.refuse(w, q, http.StatusRequestEntityTooLarge, api.CodeTooLarge, err.Error())
	case err != nil:
		s.refuse(w, q, http.StatusBadRequest, api.CodeBadRequest, err.Error())
	default:
		s.reply(w, q, r.verb, req)
	}
}

func (s *Server) reply(w http.ResponseWriter, q *http.Request, verb string, req api.Request) {
	ctx, cancel := context.WithTimeout(q.Context(), askTimeout)
	defer cancel()
	s.write(w, q, 0, s.backend.Answer(ctx, verb, req))
}

// refuse answers a request that did not reach the queen. The answer still carries the
// queen's status.
func (s *Server) refuse(w http.ResponseWriter, q *http.Request, status int, code, message string) {
	ctx, cancel := context.WithTimeout(q.Context(), askTimeout)
	defer cancel()
	a := api.Answer{Status: s.backend.Answer(ctx, api.VerbSummary, api.Request{}).Status}
	a.Error = &api.Error{Code: code, Message: message}
	s.write(w, q, status, a)
}

// statusOf returns the HTTP status of an answer.
func statusOf(a *api.Answer) int {
	if a.Error == nil {
		return http.StatusOK
	}
	switch a.Error.Code {
	case api.CodeBadRequest:
		return http.StatusBadRequest
	case api.CodeNotFound:
		return http.StatusNotFound
	case api.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case api.CodeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// write sends an answer. If status is 0, it uses statusOf.
func (s *Server) write(w http.ResponseWriter, q *http.Request, status int, a api.Answer) {
	b, err := json.Marshal(&a)
	if err != nil {
		s.log.Error("cannot encode an answer", slog.String("path", q.URL.Path), slog.Any("err", err))
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	status = cmp.Or(status, statusOf(&a))
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, q, status, b)
}

// readiness is the JSON of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"`
}

// readyz reports whether the queen is ready to answer. It needs no token, because
// probes have none.
func (s *Server) readyz(w http.ResponseWriter, q *http.Request) {
	ctx, cancel := context.WithTimeout(q.Context(), askTimeout)
	defer cancel()
	r := readiness{Reasons: []string{}}
	a := s.backend.Answer(ctx, api.VerbSummary, api.Request{})
	switch {
	case a.Error != nil:
		r.Reasons = append(r.Reasons, a.Error.Message)
	case !a.Status.Warm:
		r.Reasons = append(r.Reasons, "this queen has just started and has not heard every hive that it should know")
	}
	if s.cfg.Ready != nil {
		r.Reasons = append(r.Reasons, s.cfg.Ready()...)
	}
	status := http.StatusOK
	if r.Ready = len(r.Reasons) == 0; !r.Ready {
		status = http.StatusServiceUnavailable
	}
	b, _ := json.Marshal(r) // encoding it cannot fail
	writeJSON(w, q, status, b)
}

// healthz reports that the process is alive, whatever the state of the queen.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("ok\n"))
}

func (s *Server) openAPI(w http.ResponseWriter, q *http.Request) {
	writeJSON(w, q, http.StatusOK, openAPI)
}
