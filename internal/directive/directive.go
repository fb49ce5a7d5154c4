// Package directive holds the drains and silences of hives, workers and GPUs, as the queens keep them in the roster:
// one Entry for each hive, under Key. docs/PROTOCOL.md, section 6, is normative.
package directive

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// What a directive says.
const (
	Drain   = "drain"   // no new work is given there
	Silence = "silence" // deaths there are recorded and shown, and raise no alarm
)

// Limits of an Entry. They keep it well below the size of a message.
const (
	Max     = 200       // directives of one hive
	MaxBody = 512 << 10 // bytes of its JSON
)

const keys = "op."

// Key returns the key in the bucket queen_roster of the entry of a hive. It is no id of a hive, so that readers of
// verdicts skip it.
func Key(hive string) string { return keys + hive }

// HiveOf returns the hive that key is of, and whether it is a key of an entry.
func HiveOf(key string) (hive string, ok bool) {
	hive, ok = strings.CutPrefix(key, keys)
	return hive, ok && hivebeat.ValidID(hive)
}

// Entry is the JSON value of a key.
type Entry struct {
	V          uint64      `json:"v"` // 1; Encode sets it
	N          uint64      `json:"n"` // number of the last change; the greater one is the newer
	Directives []Directive `json:"directives"`
	// After is the number of the last event of the hive in the roster when it was forgotten: if it returns, its numbers
	// continue after it. 0 if it was not.
	After uint64 `json:"after,omitempty"`
	// Event is the body of the event of change N. It is missing when the entry was put again without a change.
	Event json.RawMessage `json:"event,omitempty"`
}

// Item is an entry as it was read.
type Item struct {
	Entry           // zero if Gone or Bad
	Revision uint64 // to put the next one at; 0 if there is no message under the key, not even a marker
	// Epoch is when the bucket was created, in Unix ns by the server's clock. Revisions of different epochs cannot be
	// compared.
	Epoch  int64
	Stored time.Duration // how long ago it was put, by the server's clock alone
	Gone   bool          // there is none, or it was removed by hand
	Bad    bool          // its value cannot be decoded
}

// Directive is one thing that an operator said about a hive, or about one of its workers or GPUs. Since and Left are as
// of when the entry was put: only the age of the entry is added to them, and no clocks are compared.
type Directive struct {
	Place
	By     string          `json:"by"` // the asker
	Reason string          `json:"reason,omitempty"`
	Since  hivebeat.Millis `json:"since,omitempty"` // how long ago it was said
	Left   hivebeat.Millis `json:"left,omitempty"`  // until it ends by itself; 0: it does not
}

// Place is what a directive is about. There is one directive for each place. Without a worker or a GPU it is about the
// hive.
type Place struct {
	What   string `json:"what"` // Drain or Silence; others are kept, and mean nothing to this version
	Worker string `json:"worker,omitempty"`
	GPU    string `json:"gpu,omitempty"` // UUID
}

// Encode returns the JSON of e.
func (e Entry) Encode() ([]byte, error) {
	e.V = 1
	if e.Directives == nil {
		e.Directives = []Directive{}
	}
	body, err := plaintext.Marshal(e)
	switch {
	case err != nil:
		return nil, fmt.Errorf("directive: %w", err)
	case len(e.Directives) > Max:
		return nil, fmt.Errorf("directive: %d directives, at most %d are allowed", len(e.Directives), Max)
	case len(body) > MaxBody:
		return nil, fmt.Errorf("directive: %d bytes, at most %d are allowed", len(body), MaxBody)
	}
	return body, nil
}

// Decode decodes an entry. An entry with a value beyond the limits is refused as a whole: its content is unknown.
func Decode(body []byte) (e Entry, err error) {
	if len(body) > MaxBody {
		return Entry{}, fmt.Errorf("directive: %d bytes, at most %d are allowed", len(body), MaxBody)
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Entry{}, fmt.Errorf("directive: %w", err)
	}
	switch {
	case e.V != 1:
		return Entry{}, fmt.Errorf("directive: version %d is not 1", e.V)
	case e.After > hivebeat.MaxInt:
		return Entry{}, fmt.Errorf("directive: after of %d", e.After)
	case e.N == 0 || e.N > hivebeat.MaxInt:
		return Entry{}, fmt.Errorf("directive: n of %d", e.N)
	case len(e.Directives) > Max:
		return Entry{}, fmt.Errorf("directive: %d directives, at most %d are allowed", len(e.Directives), Max)
	}
	for i := range e.Directives {
		d := &e.Directives[i]
		if err := d.check(); err != nil {
			return Entry{}, fmt.Errorf("directive: %w", err)
		}
		if slices.ContainsFunc(e.Directives[:i], func(o Directive) bool { return o.Place == d.Place }) {
			return Entry{}, fmt.Errorf("directive: two of one place: %v", d.Place)
		}
	}
	return e, nil
}

func (d *Directive) check() error {
	if err := hivebeat.CheckID("what", d.What); err != nil {
		return err
	}
	if err := hivebeat.CheckID("by", d.By); err != nil {
		return err
	}
	if d.Worker != "" {
		if err := hivebeat.CheckID("worker", d.Worker); err != nil {
			return err
		}
	}
	switch {
	case d.GPU != "" && !ValidText(d.GPU, hivebeat.MaxGPUID):
		return errors.New("gpu is not a UUID")
	case !ValidText(d.Reason, hivebeat.MaxReason):
		return fmt.Errorf("reason is not at most %d bytes of UTF-8", hivebeat.MaxReason)
	case max(d.Since, d.Left) > hivebeat.MaxInt:
		return errors.New("a time is above 2^53 - 1")
	}
	return nil
}

// ValidText reports whether s is at most so many bytes of UTF-8.
func ValidText(s string, most int) bool { return len(s) <= most && utf8.ValidString(s) }
