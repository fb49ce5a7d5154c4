//go:build e2e

package engines

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
)

// many is how many engines one sidecar watches.
const many = 40

// crowd is a sidecar with many engines.
type crowd struct {
	machine
	file    string
	sidecar *rig.Proc
	engines []*enginetest.Engine
}

// id is that of the worker of an engine.
func id(i int) string { return fmt.Sprintf("e%02d", i) }

// write writes the file of the sidecar.
func (c *crowd) write(tb testing.TB, text string) {
	tb.Helper()
	if err := os.WriteFile(c.file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// list is a file with engines, which are read every 10 s.
func (c *crowd) list(slots func(i int) int) string {
	var b strings.Builder
	b.WriteString("engines:\n")
	for i, e := range c.engines {
		fmt.Fprintf(&b, "  - id: %s\n    slots: %d\n    probe: {kind: vllm, url: %q, every: 10s}\n", id(i), slots(i), e.URL)
	}
	return b.String()
}

// gather starts the engines, and the sidecar that watches them.
func gather(tb testing.TB) *crowd {
	tb.Helper()
	c := &crowd{machine: machine{t: tb}, file: filepath.Join(tb.TempDir(), "engines.yaml")}
	for range many {
		e := enginetest.New(tb, probe.VLLM)
		large := metrics(tb, e.URL)
		e.Set(func(s *enginetest.State) { s.Answers = map[string]string{"/metrics": large} })
		c.engines = append(c.engines, e)
	}
	c.start()
	c.write(tb, c.list(func(int) int { return 8 }))
	c.sidecar = rig.Start(tb, "sidecar", []string{"HIVEBEAT_NATS=" + c.url}, rig.Hivebeat(tb), "sidecar", "--hive", hive, "--config", c.file)
	c.sees(tb, func(int) int { return 8 })
	return c
}

// sees waits until all engines are ready with these slots.
func (c *crowd) sees(tb testing.TB, slots func(i int) int) {
	tb.Helper()
	rig.Until(tb, moment, "all engines", func() (bool, string) {
		for i := range c.engines {
			w, err := c.worker(id(i))
			if err != nil || w.Live != hivebeat.Alive || w.State != hivebeat.Ready || w.Slots != uint64(slots(i)) {
				return false, fmt.Sprintf("%s: %s %s, slots %d, %v", id(i), w.Live, w.State, w.Slots, err)
			}
		}
		return true, ""
	})
}

// metrics returns what an engine answers at /metrics, with as many histograms as a real one has.
func metrics(tb testing.TB, url string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), moment)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; len(b) < 64<<10; i++ {
		b = fmt.Appendf(b, "vllm:e2e_request_latency_seconds_bucket{engine=\"0\",le=\"%d.0\",model_name=\"fake-8b\"} %d.0\n", i, 3*i)
	}
	return string(b)
}

// One sidecar watches 40 engines. A file with a fault changes nothing; a good one restarts only
// what changed.
func TestSidecar(t *testing.T) {
	t.Parallel()
	c := gather(t)
	before := c.incs(t)

	c.write(t, "engines:\n  - id: e00\n    slosts: 16\n    attach: {port: 1}\n")
	out, errs, code := rig.CLI(t, nil, "sidecar", "--config", c.file, "--check")
	if want := c.file + ":3: engines[0].slosts: is not a key here; slots is"; code != 2 || out != "" || !strings.Contains(errs, want) {
		t.Errorf("--check: exit code %d, %q %q; want %q", code, out, errs, want)
	}
	c.sidecar.Signal(syscall.SIGHUP)
	c.sidecar.Said(`everything stays as it was.*slosts`, moment)

	// One is other than before, one leaves, and one fails meanwhile.
	slots := func(i int) int { return 8 + 8*b2i(i == 3) }
	left := c.engines[many-1]
	c.engines = c.engines[:many-1]
	c.write(t, c.list(slots))
	c.sidecar.Signal(syscall.SIGHUP)
	c.sidecar.Said("read the file again.*engines=39", moment)
	c.sees(t, slots)
	rig.Until(t, moment, "the engine that is no longer listed to leave", func() (bool, string) {
		w, err := c.worker(id(many - 1))
		return err == nil && w.Live == hivebeat.Left, fmt.Sprint(w.Live, err)
	})
	left.Close()
	var changed []string
	for id, inc := range c.incs(t) {
		if before[id] != inc {
			changed = append(changed, id)
		}
	}
	if !slices.Equal(changed, []string{id(3)}) {
		t.Errorf("these began again: %v, want %s", changed, id(3))
	}
	c.engines[7].Fail(http.StatusInternalServerError, "CUDA error: device lost")
	rig.Until(t, moment, "the engine that fails", func() (bool, string) {
		w, err := c.worker(id(7))
		return err == nil && w.State == hivebeat.Degraded && strings.Contains(w.Reason, "500"), fmt.Sprint(w.State, " ", w.Reason, err)
	})

	c.sidecar.Interrupt()
	rig.Until(t, moment, "all engines to leave", func() (bool, string) {
		for i := range c.engines {
			if w, err := c.worker(id(i)); err != nil || w.Live != hivebeat.Left {
				return false, fmt.Sprint(id(i), w.Live, err)
			}
		}
		return true, ""
	})
	c.up.Interrupt()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// incs returns the incarnation of each worker.
func (c *crowd) incs(tb testing.TB) map[string]uint64 {
	tb.Helper()
	list := map[string]uint64{}
	for i := range c.engines {
		w, err := c.worker(id(i))
		if err != nil {
			tb.Fatal(err)
		}
		list[w.Worker] = w.Inc
	}
	return list
}

var footprint = flag.Duration("footprint", 60*time.Second, "how long BenchmarkSidecar measures")

// BenchmarkSidecar measures a sidecar with 40 engines, which it reads every 10 s, with 64 KiB of
// metrics each: its memory and CPU time. The figures are reported, not judged; the aim is 40 MB of
// RSS and 1 % of a core.
func BenchmarkSidecar(b *testing.B) {
	c := gather(b)
	settle := time.NewTimer(15 * time.Second) // every engine was read twice
	<-settle.C
	from, begun := c.sidecar.CPU(), time.Now()
	var most, own int64
	for time.Since(begun) < *footprint {
		most, own = max(most, c.sidecar.Memory("VmRSS")), max(own, c.sidecar.Memory("RssAnon"))
		settle.Reset(time.Second)
		<-settle.C
	}
	used, took := c.sidecar.CPU()-from, time.Since(begun)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(most)/1e6, "MB-RSS")
	b.ReportMetric(float64(own)/1e6, "MB-own")
	b.ReportMetric(100*used.Seconds()/took.Seconds(), "%core")
	b.ReportMetric(took.Seconds(), "s")
}
