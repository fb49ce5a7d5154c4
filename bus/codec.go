package bus

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Encode returns the msgpack of v by its struct tags, each integer in as few
// bytes as it needs. It does not check the limits of the wire; a receiver does.
func Encode(v any) ([]byte, error) {
	b, err := wire.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("bus: encode %T: %w", v, err)
	}
	return b, nil
}

// Decode reads b into v, a pointer. A *hivebeat.Beat or *hivebeat.Snapshot is
// checked against every rule of the wire; anything else is scanned, so that no
// bytes can cost more memory than they are worth, and then read by its struct
// tags. An error that is about b is a *hivebeat.Refusal, and v is then as it was
// or, where it is neither of those two, half written.
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
