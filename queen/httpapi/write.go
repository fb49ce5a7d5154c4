package httpapi

import (
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// gzipFrom is the minimum length, in bytes, of a body worth compressing.
const gzipFrom = 1 << 10

// takesGzip reports whether the client of q accepts gzip.
func takesGzip(q *http.Request) bool {
	takes := false
	for part := range strings.SplitSeq(strings.Join(q.Header.Values("Accept-Encoding"), ","), ",") {
		coding, weight, _ := strings.Cut(part, ";")
		coding = strings.ToLower(strings.TrimSpace(coding))
		if coding != "gzip" && coding != "*" {
			continue
		}
		takes = true
		if v, ok := strings.CutPrefix(strings.TrimSpace(weight), "q="); ok {
			f, err := strconv.ParseFloat(v, 64)
			takes = err == nil && f > 0
		}
		if coding == "gzip" {
			return takes // gzip takes precedence over *
		}
	}
	return takes
}

// writeJSON sends a body that must not be cached, compressed if that pays. A client may
// print it on a terminal as it is, whatever a worker put into it.
func writeJSON(w http.ResponseWriter, q *http.Request, status int, b []byte) {
	b = plaintext.JSON(b)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept-Encoding")
	if len(b) < gzipFrom || !takesGzip(q) {
		h.Set("Content-Length", strconv.Itoa(len(b)))
		w.WriteHeader(status)
		_, _ = w.Write(b) // the client is gone if this fails
		return
	}
	h.Set("Content-Encoding", "gzip")
	w.WriteHeader(status)
	z := newZip(w)
	if _, err := z.Write(b); err == nil {
		_ = z.Close()
	}
}

// zip is a gzip stream that holds no memory between two writes: a compress/flate
// compressor takes close to 1 MB, and hundreds of streams are idle most of the time.
// Each write is compressed separately and ends on a byte boundary.
type zip struct {
	w    io.Writer
	sum  uint32
	size uint32
}

// newZip begins a gzip stream. If writing the header fails, the next write reports it.
func newZip(w io.Writer) *zip {
	_, _ = w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}) // RFC 1952: deflate, no flags, no time, unknown system
	return &zip{w: w}
}

var flaters = sync.Pool{New: func() any {
	f, _ := flate.NewWriter(nil, flate.BestSpeed) // fails only for an invalid level
	return f
}}

// Write compresses and sends b.
func (z *zip) Write(b []byte) (int, error) {
	f := flaters.Get().(*flate.Writer)
	defer flaters.Put(f)
	f.Reset(z.w)
	if _, err := f.Write(b); err != nil {
		return 0, err
	}
	if err := f.Flush(); err != nil {
		return 0, err
	}
	z.sum = crc32.Update(z.sum, crc32.IEEETable, b)
	z.size += uint32(len(b))
	return len(b), nil
}

// Close ends the stream in order. It does not close the underlying writer.
func (z *zip) Close() error {
	end := []byte{3, 0} // an empty final block
	end = binary.LittleEndian.AppendUint32(end, z.sum)
	end = binary.LittleEndian.AppendUint32(end, z.size)
	_, err := z.w.Write(end)
	return err
}

// gzipped returns b compressed as small as possible, for content that is sent often.
func gzipped(b []byte) []byte {
	var out strings.Builder
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // fails only for an invalid level
	_, _ = z.Write(b)
	_ = z.Close()
	return []byte(out.String())
}
