package wire

import (
	"encoding/binary"
	"math"

	"github.com/beatfabric/hivebeat"
)

// cursor walks a message that Scan accepted. It keeps the first fault and continues, so
// that a parser reads as a list of keys.
type cursor struct {
	b   []byte // the rest of the message
	err error
}

// takeStr splits off the string that b is known to begin with.
func takeStr(b []byte) (s, rest []byte) {
	d := firsts[b[0]]
	n, i := int(d.n), 1+int(d.size)
	if d.size > 0 {
		n = length(b[1:], d.size)
	}
	return b[i : i+n], b[i+n:]
}

func (c *cursor) fail(r hivebeat.Reason, key, detail string) {
	if c.err == nil {
		c.err = refuse(r, key, detail)
	}
}

// skip skips one value.
func (c *cursor) skip() {
	d := firsts[c.b[0]]
	n, i := int(d.n), 1+int(d.size)
	if d.size > 0 && d.form != formFixed {
		n = length(c.b[1:], d.size)
	}
	switch d.form {
	case formStr, formBin:
		i, n = i+n, 0
	case formMap:
		n *= 2
	}
	c.b = c.b[i:]
	for range n {
		c.skip()
	}
}

// wrong records a value of the wrong type for its key, and skips it.
func (c *cursor) wrong(key, want string) {
	c.fail(hivebeat.RefusedType, key, "is not "+want)
	c.skip()
}

// pairs steps into a map and returns its number of pairs.
func (c *cursor) pairs(key string) int { return c.into(formMap, key, "a map") }

// elems steps into an array and returns its number of elements.
func (c *cursor) elems(key string) int { return c.into(formArray, key, "an array") }

func (c *cursor) into(f form, key, want string) int {
	d := firsts[c.b[0]]
	if d.form != f {
		c.wrong(key, want)
		return 0
	}
	n := int(d.n)
	if d.size > 0 {
		n = length(c.b[1:], d.size)
	}
	c.b = c.b[1+int(d.size):]
	return n
}

func (c *cursor) key() (key []byte) {
	if n := int(c.b[0]) - 0xa0; uint(n) < 32 { // nearly always: up to 31 bytes
		key, c.b = c.b[1:1+n], c.b[1+n:]
		return key
	}
	key, c.b = takeStr(c.b)
	return key
}

func (c *cursor) text(key string, most int) (s []byte) {
	if firsts[c.b[0]].form != formStr {
		c.wrong(key, "a string")
		return nil
	}
	if s, c.b = takeStr(c.b); len(s) > most {
		c.fail(hivebeat.RefusedLimit, key, "too long")
	}
	return s
}

func (c *cursor) bin(key string, most int) (s []byte) {
	if firsts[c.b[0]].form != formBin {
		c.wrong(key, "bin")
		return nil
	}
	if s, c.b = takeStr(c.b); len(s) > most {
		c.fail(hivebeat.RefusedLimit, key, "too long")
	}
	return s
}

func (c *cursor) bool(key string) bool {
	switch c.b[0] {
	case 0xc2, 0xc3:
		v := c.b[0] == 0xc3
		c.b = c.b[1:]
		return v
	}
	c.wrong(key, "a bool")
	return false
}

func (c *cursor) integer() (v int64, ok bool) {
	v, size := integer(c.b)
	c.b = c.b[size:]
	return v, size > 0
}

// integer reads the integer of any width at the start of b. A value above the greatest
// int64 is read as the greatest int64. size is 0 if there is no integer.
func integer(b []byte) (v int64, size int) {
	if len(b) == 0 {
		return 0, 0
	}
	f := b[0]
	if f <= 0x7f || f >= 0xe0 {
		return int64(int8(f)), 1
	}
	size = 1 + 1<<(f&3)
	if f < 0xcc || f > 0xd3 || len(b) < size {
		return 0, 0
	}
	p := b[1:size]
	switch f {
	case 0xcc:
		v = int64(p[0])
	case 0xcd:
		v = int64(binary.BigEndian.Uint16(p))
	case 0xce:
		v = int64(binary.BigEndian.Uint32(p))
	case 0xcf:
		v = int64(min(binary.BigEndian.Uint64(p), math.MaxInt64))
	case 0xd0:
		v = int64(int8(p[0]))
	case 0xd1:
		v = int64(int16(binary.BigEndian.Uint16(p)))
	case 0xd2:
		v = int64(int32(binary.BigEndian.Uint32(p)))
	default:
		v = int64(binary.BigEndian.Uint64(p))
	}
	return v, size
}

func (c *cursor) int(key string) int64 {
	v, ok := c.integer()
	switch {
	case !ok:
		c.wrong(key, "an integer")
	case v > hivebeat.MaxInt || v < -hivebeat.MaxInt:
		c.fail(hivebeat.RefusedLimit, key, "out of range")
	}
	return v
}

func (c *cursor) uint(key string) uint64 { return c.upto(key, hivebeat.MaxInt) }

func (c *cursor) upto(key string, most int64) uint64 {
	v, ok := c.integer()
	switch {
	case !ok:
		c.wrong(key, "an integer")
	case v < 0:
		c.fail(hivebeat.RefusedType, key, "is negative")
	case v > most:
		c.fail(hivebeat.RefusedLimit, key, "too large")
	}
	return uint64(v)
}

// float reads a float, or an integer as a float.
func (c *cursor) float(key string) (v float64) {
	switch c.b[0] {
	case 0xca:
		v, c.b = float64(math.Float32frombits(binary.BigEndian.Uint32(c.b[1:]))), c.b[5:]
	case 0xcb:
		v, c.b = math.Float64frombits(binary.BigEndian.Uint64(c.b[1:])), c.b[9:]
	default:
		return float64(c.int(key))
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		c.fail(hivebeat.RefusedLimit, key, "is not finite")
	}
	return v
}

// texts checks an array of strings and returns it.
func (c *cursor) texts(key string, most, bytes int) Raw {
	n := c.elems(key)
	if n > most {
		c.fail(hivebeat.RefusedLimit, key, "too many")
	}
	at := c.b
	for range n {
		c.text(key, bytes)
	}
	return Raw{b: at[:len(at)-len(c.b)], n: n}
}

// textMap checks a map of strings and returns it.
func (c *cursor) textMap(key string, most, keyBytes, bytes int) Raw {
	n := c.pairs(key)
	if n > most {
		c.fail(hivebeat.RefusedLimit, key, "too many")
	}
	at := c.b
	for range n {
		if len(c.key()) > keyBytes {
			c.fail(hivebeat.RefusedLimit, key, "a key is too long")
		}
		c.text(key, bytes)
	}
	return Raw{b: at[:len(at)-len(c.b)], n: n}
}
