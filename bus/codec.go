package bus

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Encode returns the msgpack of v by its struct tags, with each integer in as few bytes
// as it needs. It does not check the limits of the wire; the receiver does.
func Encode(v any) ([]byte, error) {
	b, err := wire.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("bus: encode %T: %w", v, err)
	}
	return b, nil
}

// Decode decodes b into v, a pointer. A *hivebeat.Beat or *hivebeat.Snapshot is checked
// against every rule of the wire. Any other type is first scanned, so that no input can
// cost disproportionate memory, and then decoded by its struct tags. An error caused by
// b is a *hivebeat.Refusal. After such an error a Beat or Snapshot is unchanged; any
// other v may be partly written.
func Decode(b []byte, v any) error {
	switch v := v.(type) {
	case *hivebeat.Beat:
		beat, err := wire.DecodeBeat(b)
		if err != nil {
			return err
		}
		*v = beat
		return nil
	case *hivebeat.Snapshot:
		snap, err := wire.DecodeSnapshot(b)
		if err != nil {
			return err
		}
		*v = snap
		return nil
	}
	if err := wire.Scan(b); err != nil {
		return err
	}
	if err := msgpack.Unmarshal(b, v); err != nil {
		return &hivebeat.Refusal{Reason: hivebeat.RefusedType, Detail: err.Error()}
	}
	return nil
}
