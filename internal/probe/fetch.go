package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// Limits of what an engine may say.
const (
	maxAnswer = 4 << 20 // bytes of one answer; vLLM with 8 engines says about 1 MiB
	maxErr    = 64 << 10
	maxModels = 256 // models, and adapters
	maxName   = hivebeat.MaxModel
	maxHops   = 3 // redirects of one request
)

// ask is one reading: its time, its credentials and whether the slow facts are due.
type ask struct {
	p      *Prober
	caller context.Context // of Read
	ctx    context.Context // with the timeout of the reading
	token  string
	slow   bool
	server string // what the last answer says in its header Server
}

// ask begins a reading.
func (p *Prober) ask(caller, limited context.Context) (*ask, error) {
	a := &ask{p: p, caller: caller, ctx: limited}
	if p.cfg.TokenFile != "" {
		token, err := os.ReadFile(p.cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token file: %w", err)
		}
		if a.token = strings.TrimSpace(string(token)); a.token == "" {
			return nil, fmt.Errorf("token file: %s is empty", p.cfg.TokenFile)
		}
	}
	return a, nil
}

// sameHost lets redirects only change the path: the token, and what an answer is believed to
// say, belong to the host that the operator named.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return answerError("redirect to %s://%s", req.URL.Scheme, req.URL.Host)
	case len(via) > maxHops:
		return answerError("more than %d redirects", maxHops)
	}
	return nil
}

// get asks for path, and hands the body of a 200 to use. The body ends after maxAnswer bytes
// with an error.
func (a *ask) get(path string, use func(body io.Reader) error) error {
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, a.p.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "hivebeat-probe")
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	a.p.requests.Add(1)
	resp, err := a.p.client.Do(req)
	if err != nil {
		return classify(a.caller, unwrap(err))
	}
	defer resp.Body.Close()
	a.server = resp.Header.Get("Server")
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErr))
		if err != nil && len(body) == 0 {
			return classify(a.caller, err)
		}
		return statusError(path, resp.StatusCode, body)
	}
	body := &limited{r: resp.Body, left: maxAnswer}
	if err := use(body); err != nil {
		return classify(a.caller, err)
	}
	// What use has left is read, so that the connection can be used again.
	_, err = io.Copy(io.Discard, body)
	return classify(a.caller, err)
}

// unwrap removes the "Get URL:" of net/http: the worker's endpoint is known anyway.
func unwrap(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// limited ends with an error once left bytes were read.
type limited struct {
	r    io.Reader
	left int
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, answerError("more than %d MiB", maxAnswer>>20)
	}
	n, err := l.r.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// ok asks for path, and needs no more than the status 200.
func (a *ask) ok(path string) error {
	return a.get(path, func(io.Reader) error { return nil })
}

// decode asks for path, and decodes its JSON into v. Keys that v does not have are skipped.
func (a *ask) decode(path string, v any) error {
	return a.get(path, func(body io.Reader) error {
		b, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		return decode(path, b, v)
	})
}

func decode(path string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		if bytes.HasPrefix(bytes.TrimSpace(b), []byte("<")) {
			return answerError("%s: %s instead of JSON", where(path), firstLine(b))
		}
		return answerError("%s: %v", where(path), err)
	}
	return nil
}

// where names a request in an error.
func where(path string) string {
	if path == "" { // of a Mapping
		return "its answer"
	}
	return "GET " + path
}

// optional runs get unless an earlier reading found that the engine does not have path, and
// reports whether the engine has it. It asks again when the slow facts are due.
func (a *ask) optional(path string, get func(path string) error) (bool, error) {
	if a.p.miss[path] {
		return false, nil
	}
	err := get(path)
	if absent(err) {
		a.p.miss[path] = true
		return false, nil
	}
	return err == nil, err
}

// number is a JSON number that may be missing, null, a string or wrong. Only a finite one that
// is not negative is used.
type number struct {
	value float64
	ok    bool
	bad   bool
}

// UnmarshalJSON never fails: a value of another type is unknown.
func (n *number) UnmarshalJSON(b []byte) error {
	*n = number{}
	text := strings.Trim(string(b), `"`)
	if text == "null" || text == "" {
		return nil
	}
	v, err := strconv.ParseFloat(text, 64)
	n.set(v, err == nil)
	return nil
}

func (n *number) set(v float64, ok bool) {
	ok = ok && v >= 0 && v <= hivebeat.MaxInt // false for NaN
	*n = number{v, ok, !ok}
	if !ok {
		n.value = 0
	}
}

// count returns n as a whole number, nil if it is unknown.
func (a *ask) count(n number) *uint64 {
	if f := a.float(n); f != nil {
		v := uint64(*f)
		return &v
	}
	return nil
}

// positive is count for limits, where 0 means "not set".
func (a *ask) positive(n number) *uint64 {
	if n.ok && n.value == 0 {
		return nil
	}
	return a.count(n)
}

// share returns n as a share from 0 to 1. Engines that round report slightly above 1.
func (a *ask) share(n number) *float64 {
	if n.value > 1.1 {
		n = number{bad: true}
	}
	f := a.float(n)
	if f != nil {
		*f = math.Min(*f, 1)
	}
	return f
}

func (a *ask) float(n number) *float64 {
	if n.bad {
		a.p.bad.Add(1)
	}
	if !n.ok {
		return nil
	}
	return &n.value
}

// sum adds b to a; the sum is unknown if either is wrong, and a missing one adds nothing.
func (n *number) sum(b number) {
	*n = number{value: n.value + b.value, ok: n.ok || b.ok, bad: n.bad || b.bad}
	if n.bad {
		n.ok, n.value = false, 0
	}
}

// highest keeps the higher one of n and b.
func (n *number) highest(b number) {
	n.bad = n.bad || b.bad
	if b.ok && (!n.ok || b.value > n.value) {
		n.value, n.ok = b.value, true
	}
	if n.bad {
		n.ok, n.value = false, 0
	}
}

// modelList is /v1/models of the OpenAI API with the keys that engines add to it.
type modelList struct {
	Object string
	Data   []struct {
		ID      string `json:"id"`
		OwnedBy string `json:"owned_by"`
		// MaxModelLen is the context of a request (class ModelCard of vLLM and SGLang, see owners).
		MaxModelLen number `json:"max_model_len"`
		// Status is that of a model behind llama-server's router
		// (tools/server/server-models.cpp @40103380): unloaded, loading, loaded or sleeping.
		Status struct {
			Value string `json:"value"`
		} `json:"status"`
	} `json:"data"`
}

// owner returns the owner of the first model, which engines fill with their own name.
func (l *modelList) owner() string {
	if len(l.Data) == 0 {
		return ""
	}
	return l.Data[0].OwnedBy
}

// models reads /v1/models into the slow facts.
func (a *ask) models() (*modelList, error) {
	list := &modelList{}
	if err := a.decode("/v1/models", list); err != nil {
		return nil, err
	}
	if list.Data == nil && list.Object != "list" {
		return nil, answerError("GET /v1/models: no list of models")
	}
	for _, m := range list.Data {
		context := a.positive(m.MaxModelLen)
		if a.p.slow.context == nil {
			a.p.slow.context = context
		}
		a.p.slow.models = append(a.p.slow.models, Model{Name: m.ID, Loaded: true, Context: context})
	}
	return list, nil
}

// version reads the key "version" of path, which the engine may not have.
func (a *ask) version(path string) error {
	_, err := a.optional(path, func(path string) error {
		var v struct{ Version string }
		err := a.decode(path, &v)
		a.p.slow.version = v.Version
		return err
	})
	return err
}

// take copies the slow facts into r where r has none.
func (a *ask) take(r *Reading) {
	s := &a.p.slow
	r.Version, r.Models = s.version, s.models
	r.Context, r.Slots, r.KVCap = or(r.Context, s.context), or(r.Slots, s.slots), or(r.KVCap, s.kvCap)
}

func or(a, b *uint64) *uint64 {
	if a != nil {
		return a
	}
	return b
}

// names returns texts as clean does.
func names(list []string) (short []string) {
	for _, name := range list[:min(len(list), maxModels)] {
		short = append(short, plaintext.Clip(plaintext.Line(name), maxName))
	}
	return short
}

// clean returns r with texts that are safe to print and short enough for a beat.
func clean(r Reading) Reading {
	text := func(s string, n int) string { return plaintext.Clip(plaintext.Line(s), n) }
	r.Reason = text(r.Reason, maxLine)
	r.Version = text(r.Version, 64)
	models := make([]Model, 0, min(len(r.Models), maxModels))
	for _, m := range r.Models[:min(len(r.Models), maxModels)] {
		m.Name = text(m.Name, maxName)
		models = append(models, m)
	}
	r.Models = models
	if r.Lora != nil {
		r.Lora.Running, r.Lora.Waiting = names(r.Lora.Running), names(r.Lora.Waiting)
	}
	return r
}
