package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// param parses the value of one query parameter into a request. The parameter's name is
// the JSON key of api.Request.
type param struct {
	list bool // may be given more than once; each value may be a comma-separated list
	set  func(r *api.Request, v string) error
}

// params are the query parameters of all routes.
var params = map[string]param{
	"hive":   {set: text(func(r *api.Request) *string { return &r.Hive })},
	"worker": {set: text(func(r *api.Request) *string { return &r.Worker })},

	"model":      {set: text(func(r *api.Request) *string { return &r.Model })},
	"live":       {list: true, set: words(func(r *api.Request) *[]hivebeat.Live { return &r.Live })},
	"state":      {list: true, set: words(func(r *api.Request) *[]hivebeat.State { return &r.State })},
	"zone":       {set: text(func(r *api.Request) *string { return &r.Zone })},
	"selector":   {set: text(func(r *api.Request) *string { return &r.Selector })},
	"text":       {set: text(func(r *api.Request) *string { return &r.Text })},
	"free_vram":  {set: number(func(r *api.Request) *uint64 { return &r.FreeVRAM })},
	"free_slots": {set: number(func(r *api.Request) *uint64 { return &r.FreeSlots })},
	"free_disk":  {set: number(func(r *api.Request) *uint64 { return &r.FreeDisk })},
	"driver":     {set: text(func(r *api.Request) *string { return &r.Driver })},
	"kernel":     {set: text(func(r *api.Request) *string { return &r.Kernel })},
	"max_age":    {set: number(func(r *api.Request) *hivebeat.Millis { return &r.MaxAge })},
	"stalled":    {set: truth(func(r *api.Request) *bool { return &r.Stalled })},

	"sort":   {set: text(func(r *api.Request) *string { return &r.Sort })},
	"after":  {set: text(func(r *api.Request) *string { return &r.After })},
	"offset": {set: count(func(r *api.Request) *int { return &r.Offset })},
	"limit":  {set: count(func(r *api.Request) *int { return &r.Limit })},

	"kinds": {list: true, set: words(func(r *api.Request) *[]hivebeat.Kind { return &r.Kinds })},
	"since": {set: number(func(r *api.Request) *hivebeat.Millis { return &r.Since })},
	"only":  {list: true, set: words(func(r *api.Request) *[]string { return &r.Only })},

	"n":      {set: count(func(r *api.Request) *int { return &r.N })},
	"for":    {set: text(func(r *api.Request) *string { return &r.For })},
	"spread": {set: text(func(r *api.Request) *string { return &r.Spread })},
	"gpus":   {set: count(func(r *api.Request) *int { return &r.GPUs })},
	"slots":  {set: number(func(r *api.Request) *uint64 { return &r.Slots })},

	"min_uptime": {set: number(func(r *api.Request) *hivebeat.Millis { return &r.MinUptime })},
}

func text(of func(*api.Request) *string) func(*api.Request, string) error {
	return func(r *api.Request, v string) error {
		*of(r) = v
		return nil
	}
}

func words[T ~string](of func(*api.Request) *[]T) func(*api.Request, string) error {
	return func(r *api.Request, v string) error {
		for word := range strings.SplitSeq(v, ",") {
			if word == "" {
				return errors.New("has an empty word")
			}
			*of(r) = append(*of(r), T(word))
		}
		return nil
	}
}

func number[T ~uint64](of func(*api.Request) *T) func(*api.Request, string) error {
	return func(r *api.Request, v string) error {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return errors.New("is not a whole number of 0 or more")
		}
		*of(r) = T(n)
		return nil
	}
}

func count(of func(*api.Request) *int) func(*api.Request, string) error {
	return func(r *api.Request, v string) error {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return errors.New("is not a whole number")
		}
		*of(r) = int(n)
		return nil
	}
}

func truth(of func(*api.Request) *bool) func(*api.Request, string) error {
	return func(r *api.Request, v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return errors.New("is neither true nor false")
		}
		*of(r) = b
		return nil
	}
}

// parseQuery parses query into r. A parameter that is not in keys is an error, because
// a filter that is silently ignored would give a wrong answer.
func parseQuery(query string, keys []string, r *api.Request) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the query cannot be read: %w", err)
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // so that the same query always fails for the same reason
	for _, name := range names {
		p, known := params[name]
		if !known || !slices.Contains(keys, name) {
			return fmt.Errorf("unknown parameter %.80q", name)
		}
		if len(values[name]) > 1 && !p.list {
			return fmt.Errorf("parameter %q is given %d times", name, len(values[name]))
		}
		for _, v := range values[name] {
			if err := p.set(r, v); err != nil {
				return fmt.Errorf("parameter %q: %.80q %w", name, v, err)
			}
		}
	}
	return nil
}

// errTooLarge means that the body of a request is longer than maxBody.
var errTooLarge = errors.New("the request is longer than 64 KiB")

// parseBody parses the JSON body of a request.
func parseBody(w http.ResponseWriter, q *http.Request, r *api.Request) error {
	if t, _, _ := strings.Cut(q.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(t), "application/json") {
		return fmt.Errorf("Content-Type is %.80q, not application/json", t)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge
	}
	if err != nil {
		return fmt.Errorf("the request cannot be read: %w", err)
	}
	*r, err = api.DecodeRequest(b)
	return err
}
