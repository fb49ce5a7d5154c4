package httpapi

import (
	"maps"
	"net/http"
	"sync"
)

// Asked is the key of the request counts.
type Asked struct {
	Route string // as in /openapi.json: /v1/hives/{hive}; or "other" (no such route), "refused" (not admitted), "preflight" (CORS)
	Code  int    // HTTP status
}

// Stats are a server's counts since it started.
type Stats struct {
	Requests map[Asked]uint64

	Streams        int    // open now
	StreamsRefused uint64 // because MaxStreams were open
	StreamsSlow    uint64 // closed because the client did not read
	Changes        uint64 // answers sent in streams
	Resyncs        uint64 // answers among these that made all earlier ones void
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	c := &s.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stats
	st.Requests = maps.Clone(st.Requests)
	return st
}

type counts struct {
	max int // streams

	mu    sync.Mutex
	stats Stats
}

func (c *counts) request(route string, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Requests == nil {
		c.stats.Requests = make(map[Asked]uint64)
	}
	c.stats.Requests[Asked{route, code}]++
}

// open counts a new stream, unless the maximum is reached.
func (c *counts) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Streams >= c.max {
		c.stats.StreamsRefused++
		return false
	}
	c.stats.Streams++
	return true
}

func (c *counts) close(slow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Streams--
	if slow {
		c.stats.StreamsSlow++
	}
}

func (c *counts) sent(resync bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Changes++
	if resync {
		c.stats.Resyncs++
	}
}

// counted counts the requests of a route by status. A stream counts when it begins.
func (s *Server) counted(route string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		next(&counting{ResponseWriter: w, count: func(code int) { s.counts.request(route, code) }}, q)
	})
}

// counting reports the status of an answer to count, once.
type counting struct {
	http.ResponseWriter
	count func(code int)
}

func (w *counting) WriteHeader(code int) {
	w.told(code)
	w.ResponseWriter.WriteHeader(code)
}

func (w *counting) Write(b []byte) (int, error) {
	w.told(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

func (w *counting) told(code int) {
	if w.count != nil {
		w.count(code)
		w.count = nil
	}
}

// Unwrap gives http.ResponseController access to the underlying writer.
func (w *counting) Unwrap() http.ResponseWriter { return w.ResponseWriter }
