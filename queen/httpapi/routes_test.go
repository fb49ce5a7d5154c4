package httpapi

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Each route sends its verb with the values from its path, its query and its body.
func TestRoutesAskTheirVerbs(t *testing.T) {
	f := newFake()
	_, base := serve(t, f, Config{})
	for _, c := range []struct {
		method, path, body string
		want               asked
	}{
		{"GET", "/v1/summary", "", asked{api.VerbSummary, api.Request{}}},
		{"GET", "/v1/hives?limit=7&sort=-age", "", asked{api.VerbHives, api.Request{Limit: 7, Sort: "-age"}}},
		{"GET", "/v1/hives/gpu-01", "", asked{api.VerbHive, api.Request{Hive: "gpu-01"}}},
		{"GET", "/v1/workers?hive=a&live=late,lost&live=left", "", asked{api.VerbWorkers, api.Request{Hive: "a", Filter: api.Filter{Live: []hivebeat.Live{"late", "lost", "left"}}}}},
		{"GET", "/v1/hives/a/workers?model=llama-*", "", asked{api.VerbWorkers, api.Request{Hive: "a", Filter: api.Filter{Model: "llama-*"}}}},
		{"GET", "/v1/hives/a/workers/w", "", asked{api.VerbWorker, api.Request{Hive: "a", Worker: "w"}}},
		{"GET", "/v1/hives/%2e%2e%2fx", "", asked{api.VerbHive, api.Request{Hive: "../x"}}},
		{"GET", "/v1/events?kinds=lost,left&since=60000", "", asked{api.VerbEvents, api.Request{Kinds: []hivebeat.Kind{"lost", "left"}, Since: 60000}}},
		{"GET", "/v1/history?hive=a", "", asked{api.VerbHistory, api.Request{Hive: "a"}}},
		{"GET", "/v1/holds", "", asked{api.VerbHolds, api.Request{}}},
		{"GET", "/v1/pick?model=m&n=3&spread=hive", "", asked{api.VerbPick, api.Request{Filter: api.Filter{Model: "m"}, N: 3, Spread: "hive"}}},
		{"POST", "/v1/hold", `{"model":"m","hold":"job-1","hold_for":5000}`, asked{api.VerbHold, api.Request{Filter: api.Filter{Model: "m"}, Hold: "job-1", HoldMS: 5000}}},
		{"POST", "/v1/release", `{"hold":"job-1"}`, asked{api.VerbRelease, api.Request{Hold: "job-1"}}},
		{"POST", "/v1/forget", `{"hive":"gpu-01","gpu":"GPU-3"}`, asked{api.VerbForget, api.Request{Hive: "gpu-01", GPU: "GPU-3"}}},
		{"POST", "/v1/drain", `{"hive":"gpu-01","worker":"w","reason":"why","during":5000}`, asked{api.VerbDrain, api.Request{Hive: "gpu-01", Worker: "w", Reason: "why", During: 5000}}},
		{"POST", "/v1/undrain", `{"hive":"gpu-01"}`, asked{api.VerbUndrain, api.Request{Hive: "gpu-01"}}},
		{"POST", "/v1/silence", `{"hive":"gpu-01","reason":"why","during":5000}`, asked{api.VerbSilence, api.Request{Hive: "gpu-01", Reason: "why", During: 5000}}},
		{"POST", "/v1/unsilence", `{"hive":"gpu-01","worker":"w"}`, asked{api.VerbUnsilence, api.Request{Hive: "gpu-01", Worker: "w"}}},
	} {
		a := ask(t, c.method, base+c.path, c.body, "Content-Type: application/json")
		if a.code != http.StatusOK && a.code != http.StatusNotFound {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.code, a.body)
		}
		if d := cmp.Diff(c.want, f.last(), cmp.AllowUnexported(asked{})); d != "" {
			t.Errorf("%s %s (-want +got):\n%s", c.method, c.path, d)
		}
	}
}

// Every key of a request is also a query parameter, except where a route says
// otherwise, and has the same value there as in JSON.
func TestParametersAreTheKeysOfARequest(t *testing.T) {
	values := map[reflect.Kind][2]string{ // in a query, in JSON
		reflect.String: {"a b&c", `"a b&c"`}, reflect.Int: {"42", "42"}, reflect.Uint64: {"18446744073709551615", "18446744073709551615"},
		reflect.Bool: {"true", "true"}, reflect.Slice: {"x,y", `["x","y"]`},
	}
	elsewhere := []string{"hold", "hold_for", "gpu", "wait", "reason", "during"} // in a body; wait is set by the stream itself
	seen := 0
	for _, f := range reflect.VisibleFields(reflect.TypeFor[api.Request]()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "" || slices.Contains(elsewhere, key) {
			continue
		}
		seen++
		v := values[f.Type.Kind()]
		var got, want api.Request
		if err := parseQuery(url.Values{key: {v[0]}}.Encode(), []string{key}, &got); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if err := json.Unmarshal([]byte(`{"`+key+`":`+v[1]+`}`), &want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" || reflect.ValueOf(got).IsZero() {
			t.Errorf("%s (-want +got):\n%s", key, d)
		}
	}
	if seen != len(params) {
		t.Errorf("a request has %d keys, there are %d parameters", seen, len(params))
	}
}

func TestWhatIsRefused(t *testing.T) {
	f := newFake()
	_, base := serve(t, f, Config{})
	for _, c := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/v1/hives?colour=red", "", 400, `unknown parameter "colour"`},
		{"GET", "/v1/summary?hive=a", "", 400, `unknown parameter "hive"`},
		{"GET", "/v1/hives?limit=x", "", 400, `parameter "limit": "x" is not a whole number`},
		{"GET", "/v1/hives?limit=99999999999", "", 400, `parameter "limit"`},
		{"GET", "/v1/hives?limit=1&limit=2", "", 400, `parameter "limit" is given 2 times`},
		{"GET", "/v1/workers?free_vram=-1", "", 400, `parameter "free_vram"`},
		{"GET", "/v1/workers?stalled", "", 400, `parameter "stalled"`},
		{"GET", "/v1/workers?live=alive,,late", "", 400, `has an empty word`},
		{"GET", "/v1/workers?live=%zz", "", 400, `the query cannot be read`},
		{"GET", "/v1/watch?wait=5", "", 400, `unknown parameter "wait"`},
		{"GET", "/v1/pick?hold=x", "", 400, `in the JSON of a POST to /v1/hold`},
		{"GET", "/v1/pick?n=1&hold_for=5000", "", 400, `in the JSON of a POST to /v1/hold`},
		{"POST", "/v1/hold?n=1", "{}", 400, `unknown parameter "n"`},
		{"POST", "/v1/hold", `{"colour":"red"}`, 400, `unknown key "colour"`},
		{"POST", "/v1/hold", `{"n":"x"}`, 400, `key "n" cannot be a string`},
		{"POST", "/v1/hold", `{} {}`, 400, `more than one JSON value`},
		{"POST", "/v1/hold", `{} ]`, 400, `more than one JSON value`},
		{"POST", "/v1/hold", `{`, 400, `not valid JSON for this API`},
		{"POST", "/v1/hold", `{"model":"` + strings.Repeat("m", maxBody) + `"}`, 413, `longer than 64 KiB`},
		{"GET", "/v1/nothing", "", 404, `/openapi.json`},
		{"GET", "/v1/hives/", "", 404, `no such path`},
		{"GET", "/index.htm", "", 404, `no such path`},
		{"POST", "/v1/hives", "{}", 405, `allowed: GET`},
		{"POST", "/v1/pick", "{}", 405, `allowed: GET`},
		{"PUT", "/v1/hold", "{}", 405, `allowed: POST`},
		{"DELETE", "/v1/holds", "", 405, `allowed: GET`},
		{"GET", "/v1/hives/nobody", "", 404, `no hive nobody is known`},
		{"GET", "/metrics", "", 404, `no such path`},
	} {
		a := ask(t, c.method, base+c.path, c.body, "Content-Type: application/json")
		var got api.Answer
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.Error == nil {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.code, a.body)
			continue
		}
		if a.code != c.code || !strings.Contains(got.Error.Message, c.says) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.method, c.path, a.code, got.Error.Message, c.code, c.says)
		}
		if !got.Status.Warm || got.Status.Queen != "fake" {
			t.Errorf("%s %s: it does not say how sure it is: %+v", c.method, c.path, got.Status)
		}
	}
	a := ask(t, "POST", base+"/v1/hold", "{}", "Content-Type: text/plain")
	if a.code != 400 || !strings.Contains(a.body, "application/json") {
		t.Errorf("a body of another type: %d %s", a.code, a.body)
	}
	if a := ask(t, "PUT", base+"/login", ""); a.header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
}

func TestStatusByCode(t *testing.T) {
	f := newFake()
	code := ""
	f.answer = func(string, api.Request) *api.Answer { return &api.Answer{Error: &api.Error{Code: code, Message: "m"}} }
	_, base := serve(t, f, Config{})
	for c, want := range map[string]int{
		api.CodeBadRequest: 400, api.CodeNotFound: 404, api.CodeTooLarge: 413, api.CodeUnavailable: 503, "of another version": 500,
	} {
		code = c
		a := ask(t, "GET", base+"/v1/hives", "")
		if a.code != want || (want == 503) != (a.header.Get("Retry-After") != "") {
			t.Errorf("%s: %d, Retry-After %q", c, a.code, a.header.Get("Retry-After"))
		}
		if w := ask(t, "GET", base+"/v1/watch", ""); w.code != want {
			t.Errorf("watch, %s: %d", c, w.code)
		}
	}
}

func TestProbes(t *testing.T) {
	var warm, cut bool
	backend := statusOnly(func(s *api.Status) { s.Warm = warm })
	_, base := serve(t, backend, Config{Ready: func() []string {
		if cut {
			return []string{"cut off"}
		}
		return nil
	}})
	for _, c := range []struct {
		warm, cut bool
		code      int
		body      string
	}{
		{true, false, 200, `{"ready":true,"reasons":[]}`},
		{false, false, 503, `{"ready":false,"reasons":["this queen has just started and has not heard every hive that it should know"]}`},
		{true, true, 503, `{"ready":false,"reasons":["cut off"]}`},
	} {
		warm, cut = c.warm, c.cut
		if a := ask(t, "GET", base+"/readyz", ""); a.code != c.code || a.body != c.body {
			t.Errorf("warm %v, cut off %v: %d %s", c.warm, c.cut, a.code, a.body)
		}
		if a := ask(t, "GET", base+"/healthz", ""); a.code != 200 || a.body != "ok\n" {
			t.Errorf("healthz: %d %s", a.code, a.body)
		}
	}
}

// Long answers are compressed for clients that accept gzip.
func TestGzip(t *testing.T) {
	f := newFake()
	for i := range 100 {
		f.touch(fmt.Sprint("hive-", i))
	}
	long := api.Answer{Hives: make([]api.HiveInfo, 100)}
	f.answer = func(verb string, _ api.Request) *api.Answer {
		if verb == api.VerbHives {
			return &long
		}
		return nil
	}
	_, base := serve(t, f, Config{})
	plain := ask(t, "GET", base+"/v1/hives", "")
	for accept, want := range map[string]bool{
		"gzip": true, "deflate, GZIP;q=0.5": true, "*": true, "gzip;q=0": false, "*;q=0": false, "br": false, "gzip;q=0, *": false, "identity": false,
	} {
		a := ask(t, "GET", base+"/v1/hives", "", "Accept-Encoding: "+accept)
		if got := a.header.Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("%q: gzip is %v", accept, got)
			continue
		}
		if !want {
			continue
		}
		z, err := gzip.NewReader(strings.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(z); err != nil || string(b) != plain.body || len(a.body) > len(plain.body)/2 {
			t.Errorf("%q: %d of %d bytes, %v", accept, len(b), len(plain.body), err)
		}
	}
	if a := ask(t, "GET", base+"/v1/summary", "", "Accept-Encoding: gzip"); a.header.Get("Content-Encoding") != "" {
		t.Errorf("a short answer is compressed: %d bytes", len(a.body))
	}
}

func TestRequestsAreCounted(t *testing.T) {
	s, base := serve(t, newFake(), Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "up 1\n")
	})})
	for _, path := range []string{"/v1/summary", "/v1/hives/a", "/v1/hives/b", "/v1/hives?x=1", "/nothing", "/", "/metrics"} {
		ask(t, "GET", base+path, "")
	}
	ask(t, "GET", base+"/v1/summary", "", "Host: elsewhere.example")
	want := map[Asked]uint64{
		{"/v1/summary", 200}: 1, {"/v1/hives/{hive}", 404}: 2, {"/v1/hives", 400}: 1, {"other", 404}: 1, {"/", 200}: 1,
		{"/metrics", 200}: 1, {"refused", 421}: 1,
	}
	if d := cmp.Diff(want, s.Stats().Requests); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for a := range s.Stats().Requests { // a client cannot create series names
		if strings.Contains(a.Route, "nothing") {
			t.Errorf("counted by %q", a.Route)
		}
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	for field, c := range map[string]struct {
		cfg Config
		is  error
	}{
		"Addr":       {Config{Addr: "7833"}, nil},
		"MaxStreams": {Config{MaxStreams: -1}, nil},
		"Origins":    {Config{Origins: []string{"https://ops.example.org/"}}, nil},
		"TokenFile":  {Config{TokenFile: "/nowhere"}, ErrToken},
	} {
		_, err := New(newFake(), c.cfg)
		if err == nil || !strings.Contains(err.Error(), "Config."+field) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, addr := range []string{":7833", "0.0.0.0:7833", "[::]:7833", "192.0.2.1:1", "gpu-01:7833", "127.0.0.1:http", "127.0.0.1:70000", "127.0.0.1:"} {
		if _, err := New(newFake(), Config{Addr: addr}); err == nil || !strings.Contains(err.Error(), "Config.Addr") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"", "localhost:0", "127.1.2.3:80", "[::1]:7833"} {
		if _, err := New(newFake(), Config{Addr: addr}); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("no backend is no error")
	}
}

// OpenAI's tools read /v1/models: it lists what a worker can serve now, and with all everything.
func TestModelsInOpenAIsShape(t *testing.T) {
	f := newFake()
	f.answer = func(verb string, _ api.Request) *api.Answer {
		if verb != api.VerbModels {
			return nil
		}
		return &api.Answer{Models: []api.ModelInfo{
			{Model: "meta-llama/Llama-3.3-70B", Able: 2, Slots: 8, Free: 3},
			{Model: "qwen", Workers: map[hivebeat.Live]int{"lost": 1}},
		}}
	}
	_, base := serve(t, f, Config{})
	for path, want := range map[string][]string{
		"/v1/models":          {"meta-llama/Llama-3.3-70B"},
		"/v1/models?all":      {"meta-llama/Llama-3.3-70B", "qwen"},
		"/v1/models?all=true": {"meta-llama/Llama-3.3-70B", "qwen"},
	} {
		a := ask(t, "GET", base+path, "")
		var list struct {
			Object string
			Data   []struct {
				ID, Object string
				OwnedBy    string `json:"owned_by"`
				Created    *int64
				Slots      uint64
			}
		}
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.code != http.StatusOK || list.Object != "list" {
			t.Fatalf("%s: %d %v %s", path, a.code, err, a.body)
		}
		var ids []string
		for _, m := range list.Data {
			ids = append(ids, m.ID)
			if m.Object != "model" || m.OwnedBy != "hivebeat" || m.Created == nil {
				t.Errorf("%s: %+v", path, m)
			}
		}
		if !slices.Equal(ids, want) || list.Data[0].Slots != 8 {
			t.Errorf("%s lists %v, want %v: %s", path, ids, want, a.body)
		}
	}
	for path, want := range map[string]int{
		"/v1/models/meta-llama/Llama-3.3-70B": http.StatusOK, "/v1/models/none": http.StatusNotFound,
		"/v1/models?what=1": http.StatusBadRequest, "/v1/models?all=maybe": http.StatusBadRequest,
	} {
		if a := ask(t, "GET", base+path, ""); a.code != want {
			t.Errorf("%s: %d, want %d: %s", path, a.code, want, a.body)
		}
	}
}
