package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat/internal/cli/msgjson"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/internal/wire"
)

type decodeCmd struct {
	Pretty bool `help:"Indent the JSON. One line otherwise."`
}

// Help is shown below the usage.
func (decodeCmd) Help() string {
	return `Examples:

  nats sub queen.hives --translate "hivebeat decode"
  nats sub 'hive.*.workers' --translate "hivebeat decode"
  nats kv get queen_hives gpu-01 --raw | hivebeat decode --pretty`
}

// maxDecode is more than a NATS message may hold.
const maxDecode = 64 << 20

// Run reads one msgpack value and prints its JSON. A beat or snapshot that breaks a rule of
// the protocol is printed as well, with a warning.
func (cmd *decodeCmd) Run(c *console) error {
	b, err := io.ReadAll(io.LimitReader(c.in, maxDecode+1))
	switch {
	case err != nil:
		return fmt.Errorf("decode: %w", err)
	case len(b) > maxDecode:
		return failed(errors.New("decode: more than 64 MiB on stdin"), "decode takes one message, and no NATS message is that long")
	case len(b) == 0:
		return failed(errors.New("decode: nothing on stdin"), `pipe one message into it: nats kv get queen_hives HIVE --raw | hivebeat decode`)
	}
	out, err := msgjson.Append(nil, b)
	if err != nil {
		hint := "a beat or snapshot is one msgpack value; nats kv get needs --raw"
		if json.Valid(b) {
			hint = "this is text or JSON already: read it without decode"
		}
		return failed(fmt.Errorf("decode: %w", err), "%s", hint)
	}
	if cmd.Pretty {
		var buf bytes.Buffer
		if err := json.Indent(&buf, out, "", "  "); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		out = buf.Bytes()
	}
	if _, err := c.out.Write(append(plaintext.JSON(out), '\n')); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if what, err := strict(b); err != nil {
		fmt.Fprintf(c.err, "hivebeat: warning: not a valid %s, hivebeat refuses it: %s\n", what, oneLine(err.Error()))
		fmt.Fprintln(c.err, "hint: docs/PROTOCOL.md has the rule")
	}
	return nil
}

// strict reports whether b looks like a beat or a snapshot, and which rule of the protocol
// it breaks. Anything else is not checked.
func strict(b []byte) (what string, err error) {
	var keys struct {
		Worker  msgpack.RawMessage `msgpack:"worker"`
		Workers msgpack.RawMessage `msgpack:"workers"`
		Pages   msgpack.RawMessage `msgpack:"pages"`
		Hive    msgpack.RawMessage `msgpack:"hive"`
		Inc     msgpack.RawMessage `msgpack:"inc"`
		Seq     msgpack.RawMessage `msgpack:"seq"`
		Every   msgpack.RawMessage `msgpack:"every"`
	}
	if msgpack.Unmarshal(b, &keys) != nil { // msgjson has checked it
		return "", nil //nolint:nilerr // what is no map is neither
	}
	switch {
	case keys.Worker != nil:
		return "beat", wire.ParseBeat(b, new(wire.BeatView))
	case keys.Workers != nil || keys.Pages != nil, // or the keys that every snapshot has
		keys.Hive != nil && keys.Inc != nil && keys.Seq != nil && keys.Every != nil:
		return "snapshot", wire.ParseSnapshot(b, new(wire.SnapshotView))
	}
	return "", nil
}
