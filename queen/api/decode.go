package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// DecodeRequest reads the JSON of a request. Empty input is the zero Request. An
// unknown key is an error, because a filter that is silently ignored would give a wrong
// answer. The errors are meant for people.
func DecodeRequest(b []byte) (r Request, err error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return r, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		// encoding/json has no type for this error, and its text is meant for Go programmers.
		if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return r, fmt.Errorf("unknown key %s", key)
		}
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			return r, fmt.Errorf("key %q cannot be a %s", wrong.Field, wrong.Value)
		}
		return r, fmt.Errorf("request is not valid JSON for this API: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r, errors.New("request has more than one JSON value")
	}
	return r, nil
}
