//go:build e2e

package gpus

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

var footprint = flag.Duration("footprint", 60*time.Second, "how long BenchmarkFootprint measures")

// BenchmarkFootprint measures a hive with 16 workers and 8 GPUs at the default intervals:
// its memory and CPU time, and apart from them the CPU time of the nvidia-smi processes that
// it runs. The stand-in for nvidia-smi costs less than the real one. The figures are
// reported, not judged; the aim is 40 MB of RSS and 0.3 % of a core. Most of the RSS is pages
// of the program's file, which the kernel maps in larger or smaller pieces, depending on how
// the file came to be in its cache; the memory of the process itself is reported apart.
func BenchmarkFootprint(b *testing.B) {
	bin := b.TempDir()
	build(b, filepath.Join(bin, "nvidia-smi"), "./internal/e2e/gpus/smi")
	build(b, filepath.Join(bin, "engine"), "./internal/e2e/gpus/engine")
	scene, err := filepath.Abs(filepath.Join("testdata", "scenes", "eight-in-parts.json"))
	if err != nil {
		b.Fatal(err)
	}
	s := rig.Serve(b, rig.Server(b))
	at := []string{"HIVEBEAT_NATS=" + s.URL}
	rig.Start(b, "queen", at, rig.Hivebeat(b), "queen", "--http", "off")
	hive := rig.Start(b, "hive", append(at, "SCENE="+scene, "PATH="+bin+":"+os.Getenv("PATH")), rig.Hivebeat(b), "hive", "--id", "gpu-01", "--metrics", "off")
	want := rig.Fleet{"gpu-01": hivebeat.Alive}
	for i := range 16 {
		id := fmt.Sprintf("w%02d", i)
		rig.Start(b, id, at, filepath.Join(bin, "engine"), "-hive", "gpu-01", "-id", id, "-model", "m", "-every", "30s",
			"-gpus", fmt.Sprintf("GPU-b1000016-0000-0000-0000-%012d", i/2), "-child", filepath.Join(bin, id+".pid"))
		want["gpu-01/"+id] = hivebeat.Alive
	}
	rig.Sees(b, rig.Connect(b, s.URL), moment, want)
	settle := time.NewTimer(25 * time.Second) // two readings of all sources
	<-settle.C

	from, begun := usage(b, hive.PID()), time.Now()
	var most, own int64
	for time.Since(begun) < *footprint {
		most, own = max(most, hive.Memory("VmRSS")), max(own, hive.Memory("RssAnon"))
		settle.Reset(time.Second)
		<-settle.C
	}
	to, took := usage(b, hive.PID()), time.Since(begun)
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(most)/1e6, "MB-RSS")
	b.ReportMetric(float64(own)/1e6, "MB-own")
	b.ReportMetric(percent(to.self-from.self), "%core")
	b.ReportMetric(percent(to.children-from.children), "%core-nvidia-smi")
	b.ReportMetric(took.Seconds(), "s")
}

// cpuTime is the CPU time of a process, and of its children that have ended.
type cpuTime struct{ self, children time.Duration }

func usage(b *testing.B, pid int) (u cpuTime) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte(") ")) // the name may contain spaces
	f := bytes.Fields(rest)
	if len(f) < 15 {
		b.Fatalf("/proc says %q", text)
	}
	ticks := func(i int) time.Duration {
		n, err := strconv.ParseInt(string(f[i]), 10, 64)
		if err != nil {
			b.Fatalf("/proc says %q", text)
		}
		return time.Duration(n) * 10 * time.Millisecond // at 100 Hz
	}
	return cpuTime{self: ticks(11) + ticks(12), children: ticks(13) + ticks(14)}
}
