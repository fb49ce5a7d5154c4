package wire

import (
	"bytes"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/beatfabric/hivebeat"
)

// Encode returns the msgpack of v by its struct tags, each integer in as few
// bytes as it needs.
func Encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(512) // a beat fits without growing the buffer
	e := msgpack.GetEncoder()
	defer msgpack.PutEncoder(e)
	e.Reset(&buf)
	e.UseCompactInts(true)
	e.SetSortMapKeys(true) // equal values encode to equal bytes
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// EncodeBeat returns the msgpack of b.
func EncodeBeat(b *hivebeat.Beat) ([]byte, error) { return Encode(b) }

// EncodeSnapshot returns the msgpack of s.
func EncodeSnapshot(s *hivebeat.Snapshot) ([]byte, error) { return Encode(s) }

// DecodeBeat decodes a beat. The result does not refer to b.
func DecodeBeat(b []byte) (hivebeat.Beat, error) {
	var (
		v   BeatView
		out hivebeat.Beat
	)
	if err := ParseBeat(b, &v); err != nil {
		return out, err
	}
	v.Update(&out)
	return out, nil
}

// DecodeSnapshot decodes a snapshot. The result does not refer to b.
func DecodeSnapshot(b []byte) (hivebeat.Snapshot, error) {
	var (
		v   SnapshotView
		out hivebeat.Snapshot
	)
	if err := ParseSnapshot(b, &v); err != nil {
		return out, err
	}
	v.UpdateHead(&out)
	out.Workers = make([]hivebeat.Record, len(v.Workers))
	for i := range v.Workers {
		v.Workers[i].Update(&out.Workers[i])
	}
	return out, nil
}
