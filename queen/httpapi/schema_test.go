package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// document is openapi.json, as far as the tests need it.
type document struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct {
		Schemas    map[string]map[string]any
		Parameters map[string]parameter
		Responses  map[string]response
	}
}

type operation struct {
	OperationID string
	Parameters  []parameter
	RequestBody struct {
		Content map[string]struct{ Schema map[string]any }
	}
	Responses map[string]response
	Security  *[]map[string][]string
}

type parameter struct {
	Ref     string `json:"$ref"`
	Name    string
	In      string
	Explode *bool
	Schema  map[string]any
}

type response struct {
	Ref     string `json:"$ref"`
	Content map[string]struct{ Schema map[string]any }
}

func parseDocument(b []byte) (d document, err error) {
	if err = json.Unmarshal(b, &d); err != nil {
		return d, err
	}
	for _, path := range d.Paths {
		for _, op := range path {
			for i, p := range op.Parameters {
				if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
					op.Parameters[i] = d.Components.Parameters[name]
				}
				if op.Parameters[i].Name == "" {
					return d, fmt.Errorf("%s: no parameter %q", op.OperationID, p.Ref)
				}
			}
			for code, r := range op.Responses {
				if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
					if op.Responses[code], ok = d.Components.Responses[name]; !ok {
						return d, fmt.Errorf("%s: no response %q", op.OperationID, r.Ref)
					}
				}
			}
		}
	}
	return d, nil
}

// check returns how v, from a JSON text, differs from a schema. It knows the part of
// JSON Schema 2020-12 that the document uses. An unknown keyword is an error, and so is
// an object key that no schema describes, so that the document cannot fall behind
// unnoticed.
func (d *document) check(schema map[string]any, v any, at string) (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, at+": "+fmt.Sprintf(format, args...)) }
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		if d.Components.Schemas[name] == nil {
			add("no schema %s", ref)
			return wrong
		}
		return d.check(d.Components.Schemas[name], v, at)
	}
	for _, key := range slices.Sorted(maps.Keys(schema)) {
		arg := schema[key]
		switch key {
		case "description", "properties", "contentMediaType":
		case "type":
			if !typeFits(arg, v) {
				add("%v is no %v", v, arg)
				return wrong
			}
		case "required":
			o, _ := v.(map[string]any)
			for _, name := range arg.([]any) {
				if _, ok := o[name.(string)]; !ok && o != nil {
					add("%s is missing", name)
				}
			}
		case "items":
			list, _ := v.([]any)
			for i, item := range list {
				wrong = append(wrong, d.check(arg.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		case "additionalProperties":
			if of, ok := arg.(map[string]any); ok {
				o, _ := v.(map[string]any)
				for name, item := range o {
					wrong = append(wrong, d.check(of, item, at+"."+name)...)
				}
			}
		case "minimum":
			if n, ok := v.(json.Number); ok && float(n) < float(arg) {
				add("%s is below %v", n, arg)
			}
		case "maximum":
			if n, ok := v.(json.Number); ok && float(n) > float(arg) {
				add("%s is above %v", n, arg)
			}
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				add("%v is not among %v", v, arg)
			}
		case "format":
			if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(v)); arg != "date-time" || err != nil {
				add("%v is no %v", v, arg)
			}
		case "contentEncoding":
			if _, err := base64.StdEncoding.DecodeString(fmt.Sprint(v)); arg != "base64" || err != nil {
				add("%v is not %v", v, arg)
			}
		default:
			add("the test does not know the keyword %s", key)
		}
	}
	if o, ok := v.(map[string]any); ok {
		properties, _ := schema["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(o)) {
			if p, ok := properties[name].(map[string]any); ok {
				wrong = append(wrong, d.check(p, o[name], at+"."+name)...)
			} else if _, open := schema["additionalProperties"].(map[string]any); !open {
				add("%s is not described", name)
			}
		}
	}
	return wrong
}

func float(v any) float64 {
	n, err := json.Number(fmt.Sprint(v)).Float64()
	if err != nil {
		return math.NaN()
	}
	return n
}

// typeFits accepts one type or several.
func typeFits(want, v any) bool {
	if list, ok := want.([]any); ok {
		return slices.ContainsFunc(list, func(one any) bool { return typeFits(one, v) })
	}
	switch v := v.(type) {
	case nil:
		return want == "null"
	case bool:
		return want == "boolean"
	case string:
		return want == "string"
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	case json.Number:
		return want == "number" || want == "integer" && !strings.ContainsAny(v.String(), ".eE")
	}
	return false
}

// value decodes a JSON text without converting its numbers.
func value(text string) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}
