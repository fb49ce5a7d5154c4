package hive

import (
	"errors"
	"fmt"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

var errTooManyPages = errors.New("snapshot needs more pages than a snapshot may have")

// pages encodes s into self-contained messages of at most half of maxPayload each. A
// single record that is larger gets its own page.
func pages(s hivebeat.Snapshot, maxPayload int64) ([][]byte, error) {
	rows := make([][]byte, len(s.Workers))
	for i := range s.Workers {
		b, err := wire.Encode(&s.Workers[i])
		if err != nil {
			return nil, fmt.Errorf("encode worker %s: %w", s.Workers[i].Worker, err)
		}
		rows[i] = b
	}
	s.Workers = []hivebeat.Record{}
	s.Page, s.Pages = hivebeat.MaxPages-1, hivebeat.MaxPages // the longest encoding of both
	head, err := wire.EncodeSnapshot(&s)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	room := int(maxPayload/2) - len(head) - arrayHeader
	var cuts []int // ends of pages
	size, first := 0, 0
	for i, row := range rows {
		if size += len(row); size > room && i > first {
			cuts, size, first = append(cuts, i), len(row), i
		}
	}
	cuts = append(cuts, len(rows))
	if len(cuts) > hivebeat.MaxPages {
		return nil, fmt.Errorf("%w: %d of at most %d; the server's max_payload is %d bytes", errTooManyPages, len(cuts), hivebeat.MaxPages, maxPayload)
	}
	list := make([][]byte, len(cuts))
	first = 0
	for i, end := range cuts {
		s.Page, s.Pages = uint64(i), uint64(len(cuts))
		head, err := wire.EncodeSnapshot(&s)
		if err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
		list[i] = page(head, rows[first:end])
		first = end
	}
	return list, nil
}

// arrayHeader is how many bytes the header of the longest msgpack array adds to that of
// an empty one.
const arrayHeader = 4

// page replaces the empty array of workers at the end of head by rows.
func page(head []byte, rows [][]byte) []byte {
	n := len(rows)
	size := len(head) + arrayHeader
	for _, row := range rows {
		size += len(row)
	}
	b := append(make([]byte, 0, size), head[:len(head)-1]...)
	switch {
	case n < 16:
		b = append(b, 0x90|byte(n))
	case n < 1<<16:
		b = append(b, 0xdc, byte(n>>8), byte(n))
	default:
		b = append(b, 0xdd, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	for _, row := range rows {
		b = append(b, row...)
	}
	return b
}
