package wire

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/beatfabric/hivebeat"
)

// form is what the first byte of a msgpack value says about the rest.
type form uint8

const (
	formFixed   form = iota // nothing follows but size bytes of number
	formStr                 // a text: its length in size bytes, or in the byte itself
	formBin                 // bytes: their length in size bytes
	formArray               // its count in size bytes, or in the byte itself
	formMap                 // its count of pairs likewise
	formRefused             // an ext type, or the reserved byte
)

// first describes a first byte. n is the length or count that the byte itself
// holds, where size is 0.
type first struct {
	form form
	size uint8
	n    uint8
}

var firsts = func() (t [256]first) {
	for c := range t {
		switch {
		case c <= 0x7f || c >= 0xe0: // fixint
		case c <= 0x8f:
			t[c] = first{form: formMap, n: uint8(c & 0x0f)}
		case c <= 0x9f:
			t[c] = first{form: formArray, n: uint8(c & 0x0f)}
		case c <= 0xbf:
			t[c] = first{form: formStr, n: uint8(c & 0x1f)}
		}
	}
	for c := 0xc0; c <= 0xdf; c++ {
		t[c] = [32]first{
			{}, {form: formRefused}, {}, {}, // nil, reserved, false, true
			{form: formBin, size: 1}, {form: formBin, size: 2}, {form: formBin, size: 4},
			{form: formRefused}, {form: formRefused}, {form: formRefused}, // ext 8 16 32
			{size: 4}, {size: 8}, // float
			{size: 1}, {size: 2}, {size: 4}, {size: 8}, // uint
			{size: 1}, {size: 2}, {size: 4}, {size: 8}, // int
			{form: formRefused}, {form: formRefused}, {form: formRefused}, {form: formRefused}, {form: formRefused}, // fixext
			{form: formStr, size: 1}, {form: formStr, size: 2}, {form: formStr, size: 4},
			{form: formArray, size: 2}, {form: formArray, size: 4},
			{form: formMap, size: 2}, {form: formMap, size: 4},
		}[c-0xc0]
	}
	return t
}()

// Scan returns nil if b is exactly one msgpack value that any decoder may be
// given: every declared length is there, nesting is at most MaxDepth, every key
// is a UTF-8 string that stands once in its map, every string is UTF-8, and there
// is no ext type. Its cost is linear in len(b) and it allocates nothing for maps
// of up to 64 pairs. The error is a *hivebeat.Refusal.
func Scan(b []byte) error {
	end, err := scan(b, 0, 0)
	if err == nil && end != len(b) {
		return refuse(hivebeat.RefusedMalformed, "", "bytes after the value")
	}
	return err
}

var (
	errTruncated = refuse(hivebeat.RefusedMalformed, "", "ends before its value does")
	errReserved  = refuse(hivebeat.RefusedMalformed, "", "an ext type or a reserved byte")
	errDepth     = refuse(hivebeat.RefusedDepth, "", "nested too deep")
	errUTF8      = refuse(hivebeat.RefusedUTF8, "", "a string is not UTF-8")
	errKey       = refuse(hivebeat.RefusedKey, "", "a key is not a string")
)

func refuse(r hivebeat.Reason, key, detail string) error {
	return &hivebeat.Refusal{Reason: r, Key: key, Detail: detail}
}

// scan checks the value at b[i:] and returns where it ends. depth counts the maps
// and arrays around it.
func scan(b []byte, i, depth int) (end int, err error) {
	f, n, i, err := header(b, i)
	if err != nil {
		return 0, err
	}
	switch f {
	case formFixed:
		return i, nil
	case formBin:
		return i + n, nil
	case formStr:
		if !utf8.Valid(b[i : i+n]) {
			return 0, errUTF8
		}
		return i + n, nil
	case formMap:
		if depth == hivebeat.MaxDepth {
			return 0, errDepth
		}
		return scanMap(b, i, n, depth)
	default: // formArray
		if depth == hivebeat.MaxDepth {
			return 0, errDepth
		}
		for range n {
			if i, err = scan(b, i, depth+1); err != nil {
				return 0, err
			}
		}
		return i, nil
	}
}

// header reads the first byte of the value at b[i:] and what belongs to it. n is
// the length of a text or of bytes, which is then known to be there, or the count
// of elements or pairs, of which each takes a byte at least.
func header(b []byte, i int) (f form, n, next int, err error) {
	if i >= len(b) {
		return 0, 0, 0, errTruncated
	}
	d := firsts[b[i]]
	i++
	n = int(d.n)
	if d.size > 0 {
		if len(b)-i < int(d.size) {
			return 0, 0, 0, errTruncated
		}
		if d.form != formFixed {
			n = length(b[i:], d.size)
		}
		i += int(d.size)
	}
	switch d.form {
	case formRefused:
		return 0, 0, 0, errReserved
	case formMap:
		if n > (len(b)-i)/2 {
			return 0, 0, 0, errTruncated
		}
	case formFixed:
	default:
		if n > len(b)-i {
			return 0, 0, 0, errTruncated
		}
	}
	return d.form, n, i, nil
}

// length reads a big-endian length of size bytes. It fits an int of 32 bits too:
// what does not is greater than any message.
func length(b []byte, size uint8) int {
	switch size {
	case 1:
		return int(b[0])
	case 2:
		return int(binary.BigEndian.Uint16(b))
	}
	return int(min(binary.BigEndian.Uint32(b), 1<<31-1))
}

// fewPairs is the size up to which the keys of a map are compared one by one.
const fewPairs = 64

func scanMap(b []byte, i, n, depth int) (end int, err error) {
	if n > fewPairs {
		return scanBigMap(b, i, n, depth)
	}
	// A key is compared with those before it only where a filter of 256 bits says
	// that one may be equal.
	var (
		seen [4]uint64
		keys [fewPairs]uint32
	)
	for k := range n {
		at := i
		var key []byte
		if key, i, err = scanKey(b, i); err != nil {
			return 0, err
		}
		h := mix(key)
		word, bit := &seen[h>>6&3], uint64(1)<<(h&63)
		if *word&bit != 0 {
			for _, before := range keys[:k] {
				if other, _ := takeStr(b[before:]); string(other) == string(key) {
					return 0, doubled(key)
				}
			}
		}
		*word |= bit
		keys[k] = uint32(at)
		if i, err = scan(b, i, depth+1); err != nil {
			return 0, err
		}
	}
	return i, nil
}

// mix spreads keys over 256 values by their length and ends.
func mix(key []byte) uint {
	n := uint(len(key))
	if n == 0 {
		return 0
	}
	return uint(key[0])*5 + uint(key[n-1])*41 + n*97 + uint(key[n/2])*11
}

func scanBigMap(b []byte, i, n, depth int) (end int, err error) {
	keys := make(map[string]struct{}, n)
	for range n {
		var key []byte
		if key, i, err = scanKey(b, i); err != nil {
			return 0, err
		}
		if _, ok := keys[string(key)]; ok {
			return 0, doubled(key)
		}
		keys[string(key)] = struct{}{}
		if i, err = scan(b, i, depth+1); err != nil {
			return 0, err
		}
	}
	return i, nil
}

func scanKey(b []byte, i int) (key []byte, next int, err error) {
	f, n, i, err := header(b, i)
	if err != nil {
		return nil, 0, err
	}
	if f != formStr {
		return nil, 0, errKey
	}
	key = b[i : i+n]
	if !utf8.Valid(key) {
		return nil, 0, errUTF8
	}
	return key, i + n, nil
}

func doubled(key []byte) error {
	return refuse(hivebeat.RefusedKey, clip(key), "stands twice in one map")
}

// clip makes a key of unknown length fit for a message to people.
func clip(key []byte) string {
	if len(key) > 40 {
		key = key[:40]
	}
	return string(key)
}
