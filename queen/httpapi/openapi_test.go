package httpapi

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

func described(t *testing.T) document {
	t.Helper()
	d, err := parseDocument(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Errorf("version %q", d.OpenAPI)
	}
	return d
}

// Every route, with every parameter, is described, and nothing else is.
func TestEveryRouteIsDescribed(t *testing.T) {
	d := described(t)
	s, err := New(newFake(), Config{Page: fstest.MapFS{}, Metrics: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	mux := s.routes()

	// Every described route exists.
	ids := map[string]bool{}
	for path, ops := range d.Paths {
		for method, op := range ops {
			if ids[op.OperationID] || op.OperationID == "" {
				t.Errorf("%s %s: id %q", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
			concrete := strings.NewReplacer("{", "", "}", "").Replace(path)
			rest := strings.NewReplacer("...}", "}") // a wildcard for the rest of a path is described as a parameter
			_, pattern := mux.Handler(httptest.NewRequest(strings.ToUpper(method), concrete, nil))
			if want := strings.ToUpper(method) + " " + path; rest.Replace(strings.TrimSuffix(pattern, "{$}")) != want {
				t.Errorf("%s is answered by %q", want, pattern)
			}
			open := op.Security != nil && len(*op.Security) == 0
			if open != public(path) {
				t.Errorf("%s %s: described as open %v", method, path, open)
			}
		}
	}

	// Every route that exists is described, with its parameters.
	for _, r := range verbRoutes() {
		op, ok := d.Paths[r.path][strings.ToLower(r.method)]
		if !ok {
			t.Errorf("%s %s is not described", r.method, r.path)
			continue
		}
		var query, path []string
		for _, p := range op.Parameters {
			switch p.In {
			case "query":
				query = append(query, p.Name)
				if params[p.Name].list != (p.Schema["type"] == "array") || params[p.Name].list && (p.Explode == nil || *p.Explode) {
					t.Errorf("%s %s: %s is described as %v", r.method, r.path, p.Name, p.Schema)
				}
			case "path":
				path = append(path, "{"+p.Name+"}")
			case "header":
				if r.path != pathWatch || p.Name != "Last-Event-ID" {
					t.Errorf("%s %s takes no header %s", r.method, r.path, p.Name)
				}
			}
		}
		keys := slices.Clone(r.keys)
		slices.Sort(keys)
		slices.Sort(query)
		if !slices.Equal(keys, query) {
			t.Errorf("%s %s takes %v, described are %v", r.method, r.path, keys, query)
		}
		if n := strings.Count(r.path, "{"); n != len(path) {
			t.Errorf("%s %s: described are %v", r.method, r.path, path)
		}
		for _, p := range path {
			if !strings.Contains(r.path, p) {
				t.Errorf("%s %s has no %s", r.method, r.path, p)
			}
		}
	}
	for _, path := range []string{pathModels, pathModels + "/{model}", "/healthz", "/readyz", "/metrics", "/openapi.json", "/", pathLogin, pathLogout} {
		if d.Paths[path] == nil {
			t.Errorf("%s is not described", path)
		}
	}
	for name, keys := range map[string][]string{"HoldRequest": append(slices.Clone(pickKeys), "hold", "hold_for"), "ReleaseRequest": {"hold"}, "ForgetRequest": {"hive", "gpu"}, "DrainRequest": {"hive", "worker", "gpu", "reason", "during"}, "UndrainRequest": {"hive", "worker", "gpu"}, "SilenceRequest": {"hive", "worker", "reason", "during"}, "UnsilenceRequest": {"hive", "worker"}} {
		properties := d.Components.Schemas[name]["properties"].(map[string]any)
		if got, want := slices.Sorted(maps.Keys(properties)), slices.Sorted(slices.Values(keys)); !slices.Equal(got, want) {
			t.Errorf("%s takes %v, described are %v", name, want, got)
		}
	}
}

// Every key of every type is described, with its type. Keys that are always present are
// required.
func TestEveryTypeIsDescribed(t *testing.T) {
	d := described(t)
	types := map[string]reflect.Type{
		"Answer": reflect.TypeFor[api.Answer](), "Status": reflect.TypeFor[api.Status](), "Brake": reflect.TypeFor[api.BrakeInfo](),
		"Error": reflect.TypeFor[api.Error](), "Summary": reflect.TypeFor[api.Summary](), "Score": reflect.TypeFor[api.Score](),
		"Hive": reflect.TypeFor[api.HiveInfo](), "Host": reflect.TypeFor[hivebeat.Host](), "GPU": reflect.TypeFor[hivebeat.GPU](), "GPUInstance": reflect.TypeFor[hivebeat.GPUInstance](), "GPUFault": reflect.TypeFor[api.GPUFault](),
		"HiveStats": reflect.TypeFor[hivebeat.Stats](), "Worker": reflect.TypeFor[api.WorkerInfo](), "Transition": reflect.TypeFor[hivebeat.Transition](),
		"Process": reflect.TypeFor[hivebeat.Proc](), "Place": reflect.TypeFor[hivebeat.Place](), "LoRA": reflect.TypeFor[hivebeat.LoRA](), "Model": reflect.TypeFor[api.ModelInfo](), "GPUInfo": reflect.TypeFor[api.GPUInfo](), "ModelItem": reflect.TypeFor[modelItem](), "ModelList": reflect.TypeFor[modelList](), "Happened": reflect.TypeFor[api.Happened](), "EventData": reflect.TypeFor[hivebeat.EventData](),
		"History": reflect.TypeFor[api.History](), "Pick": reflect.TypeFor[api.Pick](), "Hold": reflect.TypeFor[api.Hold](), "Readiness": reflect.TypeFor[readiness](), "Directive": reflect.TypeFor[api.Directive](), "Imposed": reflect.TypeFor[api.Imposed](),
	}
	for name := range d.Components.Schemas {
		if types[name] == nil && !strings.HasSuffix(name, "Request") {
			t.Errorf("%s describes nothing", name)
		}
	}
	names := map[reflect.Type]string{}
	for name, typ := range types {
		names[typ] = name
	}
	for name, typ := range types {
		schema := d.Components.Schemas[name]
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		keys := map[string]bool{}
		for _, f := range reflect.VisibleFields(typ) {
			key, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || key == "" {
				continue
			}
			keys[key] = true
			p, ok := properties[key].(map[string]any)
			if !ok {
				t.Errorf("%s.%s is not described", name, key)
				continue
			}
			if always := opts == ""; always != slices.Contains(required, any(key)) {
				t.Errorf("%s.%s is always there: %v", name, key, always)
			}
			if why := describes(p, f.Type, names); why != "" {
				t.Errorf("%s.%s: %s", name, key, why)
			}
		}
		for key := range properties {
			if !keys[key] {
				t.Errorf("%s.%s is described and not there", name, key)
			}
		}
	}
}

// describes returns how a schema differs from a type, or "".
func describes(schema map[string]any, typ reflect.Type, names map[reflect.Type]string) string {
	if typ.Kind() == reflect.Pointer {
		if typ.Elem().Kind() == reflect.Float64 {
			if !reflect.DeepEqual(schema["type"], []any{"number", "null"}) {
				return "may be null"
			}
			return ""
		}
		typ = typ.Elem()
	}
	if name := names[typ]; name != "" {
		if schema["$ref"] != "#/components/schemas/"+name {
			return "is a " + name
		}
		return ""
	}
	is := func(want string) string {
		if schema["type"] == want || reflect.DeepEqual(schema["type"], []any{want, "null"}) {
			return ""
		}
		return "is of type " + want
	}
	switch k := typ.Kind(); {
	case typ == reflect.TypeFor[time.Time](), k == reflect.String, typ == reflect.TypeFor[[]byte]():
		return is("string")
	case k == reflect.Bool:
		return is("boolean")
	case k == reflect.Float64:
		return is("number")
	case k == reflect.Uint64:
		if schema["minimum"] != 0.0 {
			return "is never negative"
		}
		return is("integer")
	case k == reflect.Int, k == reflect.Int64:
		return is("integer")
	case k == reflect.Slice:
		items, _ := schema["items"].(map[string]any)
		return is("array") + describes(items, typ.Elem(), names)
	case k == reflect.Map:
		values, _ := schema["additionalProperties"].(map[string]any)
		return is("object") + describes(values, typ.Elem(), names)
	}
	return "is a " + typ.String()
}

// The schema check of the tests finds faults.
func TestTheCheckOfSchemasFindsFaults(t *testing.T) {
	d := described(t)
	good := `{"status":{"as_of":"2026-01-02T03:04:05.6Z","queen":"q","asker":"anyone","warm":true,"jetstream":true}}`
	for text, says := range map[string]string{
		good: "",
		`[]`: "is no object",
		`{}`: "status is missing",
		strings.Replace(good, `"warm":true,`, "", 1):                                                                    "warm is missing",
		strings.Replace(good, `true`, `"yes"`, 1):                                                                       "is no boolean",
		strings.Replace(good, `2026-`, `26-`, 1):                                                                        "is no date-time",
		strings.Replace(good, `{"status"`, `{"colour":1,"status"`, 1):                                                   "colour is not described",
		strings.Replace(good, `{"status"`, `{"total":1.5,"status"`, 1):                                                  "is no integer",
		strings.Replace(good, `{"status"`, `{"missed":-1,"status"`, 1):                                                  "is below 0",
		strings.Replace(good, `{"status"`, `{"gone":["a",1],"status"`, 1):                                               "gone[1]: 1 is no string",
		strings.Replace(good, `{"status"`, `{"passed":{"a":"b"},"status"`, 1):                                           "passed.a: b is no integer",
		strings.Replace(good, `{"status"`, `{"history":{"end":1,"step":1,"series":{"cpu":[1.5,null,"x"]}},"status"`, 1): "cpu[2]: x is no",
	} {
		v, err := value(text)
		if err != nil {
			t.Fatal(err)
		}
		wrong := d.check(d.Components.Schemas["Answer"], v, "answer")
		if (says == "") != (wrong == nil) || !strings.Contains(strings.Join(wrong, "\n"), says) {
			t.Errorf("%s: %q, want %q", text, wrong, says)
		}
	}
	if wrong := d.check(map[string]any{"oneOf": []any{}}, nil, ""); wrong == nil {
		t.Error("an unknown keyword is nothing")
	}
}

// An answer with every key set matches its description.
func TestAFullAnswerIsAsDescribed(t *testing.T) {
	d := described(t)
	var a api.Answer
	fill(reflect.ValueOf(&a).Elem())
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	v, err := value(string(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range d.check(d.Components.Schemas["Answer"], v, "answer") {
		t.Error(wrong)
	}
	if n := strings.Count(string(b), `":`); n < 200 {
		t.Errorf("the answer has %d keys only", n)
	}
}

// fill sets every field to some value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1795690000, 5).UTC()))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(val)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, val)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(1.5)
	}
}
