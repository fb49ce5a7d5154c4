package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// run runs a command in this process.
func run(t *testing.T, stdin []byte, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), args, Streams{In: bytes.NewReader(stdin), Out: &out, Err: &errs, Exit: func(int) { t.Error("left at once") }})
	return code, out.String(), errs.String()
}

type vector struct {
	Name, Hex, Refuse string
	Value             json.RawMessage
}

// typed reads JSON as the message that a file of vectors is about. Missing keys are zero.
func typed(t *testing.T, file string, b []byte) any {
	t.Helper()
	var v any = new(hivebeat.Beat)
	if file == "snapshot.json" {
		v = &hivebeat.Snapshot{Pages: 1}
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v in %s", file, err, b)
	}
	return v
}

func vectors(t *testing.T, name string) []vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "testdata", "wire", "v1", name))
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return list
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every valid message decodes to the JSON of its vector, without a warning.
func TestDecodeVectors(t *testing.T) {
	for _, file := range []string{"beat.json", "snapshot.json"} {
		for _, v := range vectors(t, file) {
			for _, args := range [][]string{{"decode"}, {"decode", "--pretty"}} {
				code, out, errs := run(t, unhex(t, v.Hex), args...)
				if code != ExitDone || errs != "" {
					t.Errorf("%s %s: exit code %d, %s", file, v.Name, code, errs)
					continue
				}
				if lines := strings.Count(out, "\n"); lines != 1 && len(args) == 1 {
					t.Errorf("%s %s: %d lines", file, v.Name, lines)
				}
				if diff := cmp.Diff(typed(t, file, v.Value), typed(t, file, []byte(out)), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s %s (-want +got):\n%s", file, v.Name, diff)
				}
			}
		}
	}
}

// A message that hivebeat refuses is printed if that is safe, with a warning that names the
// rule. Otherwise it is an error.
func TestDecodeRefusedVectors(t *testing.T) {
	for _, file := range []string{"beat-refused.json", "snapshot-refused.json"} {
		shown := 0
		for _, v := range vectors(t, file) {
			b := unhex(t, v.Hex)
			code, out, errs := run(t, b, "decode")
			switch {
			case len(b) == 0:
				if code != ExitFailed || !strings.Contains(errs, "nothing on stdin") {
					t.Errorf("%s %s: exit code %d, %s", file, v.Name, code, errs)
				}
			case wire.Scan(b) != nil:
				if code != ExitFailed || out != "" || !strings.Contains(errs, "refused: "+v.Refuse) || !strings.Contains(errs, "\nhint: ") {
					t.Errorf("%s %s: exit code %d, %q, %s", file, v.Name, code, out, errs)
				}
			default:
				if code != ExitDone || !json.Valid([]byte(out)) {
					t.Errorf("%s %s: exit code %d, %q, %s", file, v.Name, code, out, errs)
				}
				switch beat := wire.ParseBeat(b, new(wire.BeatView)) == nil; {
				case beat: // wrong only together with its subject
					if errs != "" {
						t.Errorf("%s %s: is a beat, and there is %s", file, v.Name, errs)
					}
				case strings.Contains(errs, "refused: "+v.Refuse):
					shown++
				case errs != "" || v.Name != "not-a-map" && v.Name != "version": // these could be anything
					t.Errorf("%s %s: warns of another rule than %s: %s", file, v.Name, v.Refuse, errs)
				}
			}
		}
		if shown == 0 {
			t.Errorf("%s: no vector is shown with its warning", file)
		}
	}
}

func TestDecodeIsBounded(t *testing.T) {
	var out, errs bytes.Buffer
	endless := struct{ io.Reader }{zeros{}}
	code := Main(context.Background(), []string{"decode"}, Streams{In: endless, Out: &out, Err: &errs})
	if code != ExitFailed || !strings.Contains(errs.String(), "more than 64 MiB") {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// Output that cannot be written is a failure.
func TestOutputThatFails(t *testing.T) {
	for _, args := range [][]string{{"decode"}, {"version"}, {"version", "-o", "json"}} {
		var errs bytes.Buffer
		code := Main(t.Context(), args, Streams{In: bytes.NewReader([]byte{0x80}), Out: broken{}, Err: &errs})
		if code != ExitFailed || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%v: exit code %d, %s", args, code, errs.String())
		}
	}
}
