// Package msgjson turns msgpack into JSON for people and programs. Keys keep their order,
// and unknown ones are included.
package msgjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/beatfabric/hivebeat/internal/wire"
)

// Append appends the JSON of the one msgpack value in b. The value is scanned first, so
// that small input cannot cause large allocations; an error of the scan is a
// *hivebeat.Refusal. Bytes become base64. Floats that JSON does not have become texts.
func Append(dst, b []byte) ([]byte, error) {
	if err := wire.Scan(b); err != nil {
		return dst, err
	}
	c := converter{dec: msgpack.NewDecoder(bytes.NewReader(b)), out: dst}
	if err := c.value(); err != nil {
		return dst, fmt.Errorf("msgpack: %w", err)
	}
	return c.out, nil
}

type converter struct {
	dec *msgpack.Decoder
	out []byte
}

func (c *converter) value() error {
	code, err := c.dec.PeekCode()
	if err != nil {
		return err
	}
	switch {
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		return c.object()
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		return c.array()
	case msgpcode.IsString(code):
		return c.text()
	case msgpcode.IsBin(code):
		return c.bytes()
	case code == msgpcode.Nil:
		c.out = append(c.out, "null"...)
		return c.dec.DecodeNil()
	case code == msgpcode.True, code == msgpcode.False:
		v, err := c.dec.DecodeBool()
		c.out = strconv.AppendBool(c.out, v)
		return err
	case code == msgpcode.Float, code == msgpcode.Double:
		return c.float(code)
	case code == msgpcode.Uint64:
		v, err := c.dec.DecodeUint64()
		c.out = strconv.AppendUint(c.out, v, 10)
		return err
	}
	v, err := c.dec.DecodeInt64()
	c.out = strconv.AppendInt(c.out, v, 10)
	return err
}

func (c *converter) object() error {
	n, err := c.dec.DecodeMapLen()
	c.out = append(c.out, '{')
	for i := 0; i < n && err == nil; i++ {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		if err = c.text(); err != nil {
			break
		}
		c.out = append(c.out, ':')
		err = c.value()
	}
	c.out = append(c.out, '}')
	return err
}

func (c *converter) array() error {
	n, err := c.dec.DecodeArrayLen()
	c.out = append(c.out, '[')
	for i := 0; i < n && err == nil; i++ {
		if i > 0 {
			c.out = append(c.out, ',')
		}
		err = c.value()
	}
	c.out = append(c.out, ']')
	return err
}

func (c *converter) text() error {
	s, err := c.dec.DecodeString()
	if err != nil {
		return err
	}
	return c.marshal(s)
}

func (c *converter) bytes() error {
	b, err := c.dec.DecodeBytes()
	c.out = append(c.out, '"')
	c.out = base64.StdEncoding.AppendEncode(c.out, b)
	c.out = append(c.out, '"')
	return err
}

func (c *converter) float(code byte) error {
	v, err := c.dec.DecodeFloat64()
	if err != nil {
		return err
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return c.marshal(strconv.FormatFloat(v, 'g', -1, 64))
	}
	if code == msgpcode.Float { // 0.1 and not 0.10000000149011612
		return c.marshal(float32(v))
	}
	return c.marshal(v)
}

func (c *converter) marshal(v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	c.out = append(c.out, bytes.TrimRight(buf.Bytes(), "\n")...)
	return nil
}
