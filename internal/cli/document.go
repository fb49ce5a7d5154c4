package cli

import (
	"bufio"
	"fmt"
	"io"

	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// printJSON writes v as JSON, on one line.
func printJSON(c *console, v any) error {
	b, err := plaintext.Marshal(v)
	if err == nil {
		_, err = c.out.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// document writes one JSON object piece by piece, so that a list in it needs no memory for
// more than one element. The first error sticks; close returns it.
type document struct {
	w       *bufio.Writer
	err     error
	fields  int
	element int // elements of the open array
}

func newDocument(w io.Writer) *document {
	d := &document{w: bufio.NewWriterSize(w, 64<<10)}
	d.write("{")
	return d
}

func (d *document) write(s string) {
	if d.err == nil {
		_, d.err = d.w.WriteString(s)
	}
}

func (d *document) value(v any) {
	b, err := plaintext.Marshal(v)
	if err != nil && d.err == nil {
		d.err = err
	}
	d.write(string(b))
}

func (d *document) name(name string) {
	if d.fields++; d.fields > 1 {
		d.write(",")
	}
	d.write("\n\"" + name + "\":")
}

// field writes one member.
func (d *document) field(name string, v any) {
	d.name(name)
	d.value(v)
}

// array opens a member that is a list; add fills it and end closes it.
func (d *document) array(name string) {
	d.name(name)
	d.write("[")
	d.element = 0
}

func (d *document) add(v any) {
	if d.element++; d.element > 1 {
		d.write(",")
	}
	d.write("\n")
	d.value(v)
}

func (d *document) end() { d.write("]") }

// putList writes a member that is a complete list.
func putList[T any](d *document, name string, list []T) {
	d.array(name)
	for i := range list {
		d.add(&list[i])
	}
	d.end()
}

func (d *document) close() error {
	d.write("\n}\n")
	if d.err == nil {
		d.err = d.w.Flush()
	}
	if d.err != nil {
		return fmt.Errorf("write: %w", d.err)
	}
	return nil
}
