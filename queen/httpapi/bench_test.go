package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// page200 is an answer as the page requests it: 200 workers.
func page200() *api.Answer {
	a := &api.Answer{}
	for i := range 200 {
		a.Workers = append(a.Workers, api.WorkerInfo{Hive: "gpu-0001", Zone: "eu", Via: "hive", Fresh: true, Record: hivebeat.Record{
			Worker: fmt.Sprintf("llama-70b-%04d", i), Live: hivebeat.Alive, N: 1, Age: 12345, Since: 987654,
			Facts: hivebeat.Facts{
				Inc: 1795435200000000, Every: 30000, State: hivebeat.Busy, PID: 4242, Model: "llama-3.3-70b-instruct", Endpoint: "http://10.1.2.3:8000/v1",
				GPUs: []string{"GPU-5f1a2b3c-0d4e-5f60-7182-93a4b5c6d7e8"}, Slots: 16, Labels: map[string]string{"zone": "eu", "tier": "prod"}, Seq: 1234,
				Sent: 1795435212345, VRAM: 72 << 30, Busy: 3, Queue: 1, Done: 99123,
			},
		}})
	}
	return a
}

// BenchmarkPage is one page of 200 workers over loopback TCP, client included.
func BenchmarkPage(b *testing.B) {
	f := newFake()
	a := page200()
	f.answer = func(string, api.Request) *api.Answer { answer := *a; return &answer }
	for _, accept := range []string{"identity", "gzip"} {
		b.Run(accept, func(b *testing.B) {
			_, base := listen(b, f, Config{})
			tr := &http.Transport{DisableCompression: true}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr}
			var size int64
			for b.Loop() {
				q, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, base+"/v1/workers?limit=200", nil)
				q.Header.Set("Accept-Encoding", accept)
				r, err := c.Do(q)
				if err != nil {
					b.Fatal(err)
				}
				size, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			b.ReportMetric(float64(size), "B/answer")
			f.forget()
		})
	}
}

// BenchmarkStreams sends one change to 200 streams over loopback TCP, clients included.
// The server asks the backend once per stream. The limit of 4 answers per second is
// off.
func BenchmarkStreams(b *testing.B) {
	const streams = 200
	f := newFake()
	f.touch("h")
	s, base := listen(b, f, Config{})
	s.pace.gap = 0
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: streams}
	defer tr.CloseIdleConnections()
	var told, all sync.WaitGroup
	told.Add(streams)
	ctx, cancel := context.WithCancel(b.Context())
	for range streams {
		q, _ := http.NewRequestWithContext(ctx, http.MethodGet, base+pathWatch, nil)
		r, err := (&http.Client{Transport: tr}).Do(q)
		if err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer r.Body.Close()
			for lines := bufio.NewScanner(r.Body); lines.Scan(); {
				if text := lines.Text(); strings.HasPrefix(text, "data: ") && strings.Contains(text, `"hives"`) {
					told.Done()
				}
			}
		})
	}
	told.Wait()
	for b.Loop() {
		told.Add(streams)
		f.touch("h")
		told.Wait()
	}
	b.StopTimer()
	cancel()
	all.Wait()
	if st := s.Stats(); st.StreamsSlow > 0 {
		b.Errorf("%+v", st)
	}
}

// BenchmarkZip is the cost of one event of a stream for clients that accept gzip.
func BenchmarkZip(b *testing.B) {
	text := []byte(strings.Repeat(`{"hive":"gpu-0001","live":"alive","age":12345},`, 100))
	z := newZip(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = z.Write(text)
	}
}

func listen(b *testing.B, backend Backend, cfg Config) (*Server, string) {
	b.Helper()
	cfg.Addr = "127.0.0.1:0"
	s, err := New(backend, cfg)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), ln) }()
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			b.Error(err)
		}
		<-done
	})
	return s, "http://" + ln.Addr().String()
}
