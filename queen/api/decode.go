package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// DecodeRequest reads the JSON of a request; nothing at all is the zero Request. A
// key that is not known is an error: a filter that is silently not applied would be
// a wrong answer. Errors are for people.
func DecodeRequest(b []byte) (r Request, err error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return r, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		// encoding/json has no type for this error, and its words are for those who
		// program in Go.
		if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return r, fmt.Errorf("unknown key %s", key)
		}
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			return r, fmt.Errorf("key %q can not be a %s", wrong.Field, wrong.Value)
		}
		return r, fmt.Errorf("request is not the JSON it should be: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r, errors.New("request has more than one JSON value")
	}
	return r, nil
}
