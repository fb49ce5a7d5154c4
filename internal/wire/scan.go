package wire

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/beatfabric/hivebeat"
)

// form is the kind of a msgpack value, as its first byte declares it.
type form uint8

const (
	formFixed   form = iota // followed at most by a number of size bytes
	formStr                 // a text: its length in size bytes, or in the first byte
	formBin                 // bytes: their length in size bytes
	formArray               // its count in size bytes, or in the first byte
	formMap                 // its count of pairs, likewise
	formRefused             // an ext type, or the reserved byte
)

// first describes a first byte. n is the length or count that the byte itself holds, if
// size is 0.
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
			{},
			{form: formRefused},
			{},
			{}, // nil, reserved, false, true
			{form: formBin, size: 1},
			{form: formBin, size: 2},
			{form: formBin, size: 4},
			{form: formRefused},
			{form: formRefused},
			{form: formRefused}, // ext 8 16 32
			{size: 4},
			{size: 8}, // float
			{size: 1},
			{size: 2},
			{size: 4},
			{size: 8}, // uint
			{size: 1},
			{size: 2},
			{size: 4},
			{size: 8}, // int
			{form: formRefused},
			{form: formRefused},
			{form: formRefused},
			{form: formRefused},
			{form: formRefused}, // fixext
			{form: formStr, size: 1},
			{form: formStr, size: 2},
			{form: formStr, size: 4},
			{form: formArray, size: 2},
			{form: formArray, size: 4},
			{form: formMap, size: 2},
			{form: formMap, size: 4},
		}[c-0xc0]
	}
	return t
}()

// Scan returns nil if b is exactly one msgpack value that is safe for any decoder:
// every declared length is present, nesting is at most MaxDepth, every key is a UTF-8
// string that appears once in its map, every string is UTF-8, and there is no ext type.
// Its cost is linear in len(b), and it allocates nothing for maps of up to 64 pairs.
// The error is a *hivebeat.Refusal.
func Scan(b []byte) error {
	s := scanner{b: b}
	if end := s.value(0, 0); end >= 0 && end != len(b) {
		return refuse(hivebeat.RefusedMalformed, "", "bytes after the value")
	}
	return s.err
}

func refuse(r hivebeat.Reason, key, detail string) error {
	return &hivebeat.Refusal{Reason: r, Key: key, Detail: detail}
}

// scanner checks the values of one message. Its methods take the offset where a value
// begins and return the offset where it ends, or fault.
type scanner struct {
	b    []byte
	err  error
	rows *rows // reads the value of workers in the outermost map, if set
}

const fault = -1

func (s *scanner) fail(r hivebeat.Reason, key, detail string) int {
	s.err = refuse(r, key, detail)
	return fault
}

func (s *scanner) truncated() int {
	return s.fail(hivebeat.RefusedMalformed, "", "ends within a value")
}

// value checks the value at i. depth counts the maps and arrays around it.
func (s *scanner) value(i, depth int) int {
	if i >= len(s.b) {
		return s.truncated()
	}
	d := firsts[s.b[i]]
	i += 1 + int(d.size)
	if i > len(s.b) {
		return s.truncated()
	}
	if d.form == formFixed {
		return i
	}
	n := int(d.n)
	if d.size > 0 {
		n = length(s.b[i-int(d.size):], d.size)
	}
	// Each byte, element or pair takes at least one byte: a count above the number of
	// remaining bytes is refused before anything is done n times.
	if n > len(s.b)-i {
		return s.truncated()
	}
	switch d.form {
	case formStr:
		return s.text(i, i+n)
	case formBin:
		return i + n
	case formRefused:
		return s.fail(hivebeat.RefusedMalformed, "", "an ext type or a reserved byte")
	}
	if depth == hivebeat.MaxDepth {
		return s.fail(hivebeat.RefusedDepth, "", "nested too deep")
	}
	if d.form == formMap {
		if n > fewPairs {
			return s.bigMap(i, n, depth)
		}
		return s.pairs(i, n, depth)
	}
	for ; n > 0 && i >= 0; n-- {
		i = s.value(i, depth+1)
	}
	return i
}

// length reads a big-endian length of size bytes. The result is capped to fit a 32-bit
// int: a greater length exceeds any message.
func length(b []byte, size uint8) int {
	switch size {
	case 1:
		return int(b[0])
	case 2:
		return int(binary.BigEndian.Uint16(b))
	}
	return int(min(binary.BigEndian.Uint32(b), 1<<31-1))
}

// text checks the string whose bytes are b[i:end].
func (s *scanner) text(i, end int) int {
	for ; end-i >= 8; i += 8 {
		if binary.LittleEndian.Uint64(s.b[i:])&0x8080808080808080 != 0 {
			break
		}
	}
	for ; i < end; i++ {
		if s.b[i] >= utf8.RuneSelf {
			if !utf8.Valid(s.b[i:end]) {
				return s.fail(hivebeat.RefusedUTF8, "", "a string is not UTF-8")
			}
			break
		}
	}
	return end
}

// fewPairs is the size up to which the keys of a map are compared one by one.
const fewPairs = 64

// pairs checks the n pairs of a map. It compares a key with those before it only if a
// filter of 256 bits says that one may be equal.
func (s *scanner) pairs(i, n, depth int) int {
	var (
		seen [4]uint64
		keys [fewPairs]uint32
	)
	for k := range n {
		var (
			w   = s.head(i)
			end int
		)
		if size := w&0xff - 0xa0; size < 8 && w&(0x8080808080808080&(2<<(8*size+7)-1)&^0xff) == 0 {
			// Nearly always: up to 7 bytes, all ASCII, in one word.
			end = i + 1 + int(size)
			w &= 2<<(8*size+7) - 1
		} else {
			if end = s.key(i); end < 0 {
				return fault
			}
			w = s.keyWord(i)
		}
		h := w * 0x9e3779b97f4a7c15 >> 56
		word, bit := &seen[h>>6], uint64(1)<<(h&63)
		if *word&bit != 0 && s.among(keys[:k], i) {
			return s.doubled(i)
		}
		*word |= bit
		keys[k] = uint32(i)
		if i = s.of(i, end, depth); i < 0 {
			return fault
		}
	}
	return i
}

// head returns the first 8 bytes at i as a word, or 0 if fewer are left.
func (s *scanner) head(i int) uint64 {
	if len(s.b)-i < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(s.b[i:])
}

// keyWord returns the word that head would return for the key at i in its shortest
// form, without the bytes after the key.
func (s *scanner) keyWord(i int) uint64 {
	key, _ := takeStr(s.b[i:])
	w := 0xa0 + uint64(min(len(key), 8))
	for k := range min(len(key), 7) {
		w |= uint64(key[k]) << (8 * (k + 1))
	}
	return w
}

// among reports whether the key at i equals a key at one of the given offsets.
func (s *scanner) among(keys []uint32, i int) bool {
	key, _ := takeStr(s.b[i:])
	for _, at := range keys {
		if other, _ := takeStr(s.b[at:]); string(other) == string(key) {
			return true
		}
	}
	return false
}

func (s *scanner) bigMap(i, n, depth int) int {
	seen := map[string]struct{}{} // not sized for n: it grows with the bytes that are really there
	for range n {
		end := s.key(i)
		if end < 0 {
			return fault
		}
		key, _ := takeStr(s.b[i:])
		if _, ok := seen[string(key)]; ok {
			return s.doubled(i)
		}
		seen[string(key)] = struct{}{}
		if i = s.of(i, end, depth); i < 0 {
			return fault
		}
	}
	return i
}

// of checks the value at i that belongs to the key at keyAt.
func (s *scanner) of(keyAt, i, depth int) int {
	if depth == 0 && s.rows != nil {
		if key, _ := takeStr(s.b[keyAt:]); string(key) == "workers" {
			return s.rows.read(s, i)
		}
	}
	return s.value(i, depth+1)
}

// key checks the key at i.
func (s *scanner) key(i int) int {
	if i < len(s.b) && firsts[s.b[i]].form != formStr {
		return s.fail(hivebeat.RefusedKey, "", "a key is not a string")
	}
	return s.value(i, 0)
}

func (s *scanner) doubled(i int) int {
	key, _ := takeStr(s.b[i:])
	return s.fail(hivebeat.RefusedKey, clip(key), "appears twice in one map")
}

// clip shortens a key of unknown length for an error message.
func clip(key []byte) string {
	if len(key) > 40 {
		key = key[:40]
	}
	return string(key)
}
