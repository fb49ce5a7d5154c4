package probe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// scanned scans text for the metrics a, b{x="1"} and c, and returns what it found.
func scanned(text string) (found string, err error) {
	set := newMetricSet("own:")
	var labels []string
	for _, w := range []*series{set.want("a"), set.want("b", label{name: "x", value: "1"}), set.want("c", label{name: "y", value: "0", orNone: true})} {
		w.each = func(l []byte, v float64) {
			name, _ := labelOf(l, "name")
			labels = append(labels, fmt.Sprintf("%s=%g(%s)", w.name, v, name))
		}
		defer func() {
			if w.sum.bad {
				found += " bad:" + w.name
			}
		}()
	}
	err = set.scan(strings.NewReader(text))
	return strings.Join(labels, " "), err
}

func TestScan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"a 1", "a=1()"},
		{"# HELP a b\n# TYPE a gauge\na 1.5e+03\r\n\n  a\t2 1764500000000\n", "a=1500() a=2()"},
		{"a{} 1\na{name=\"x\"} 2\na { name = \"y\" , } 3\n", "a=1() a=2(x) a=3(y)"},
		{`a{name="a \"b\" \\ {c} ,\n"} 4`, "a=4(a \"b\" \\ {c} ,\n)"},
		{"b 1\nb{x=\"2\"} 2\nb{x=\"1\",name=\"n\"} 3\nb{z=\"x=\\\"1\\\"\"} 4", "b=3(n)"},
		{"c 1\nc{y=\"0\"} 2\nc{y=\"1\"} 3", "c=1() c=2()"},
		{"a 1 # {trace=\"1\"} 0.5 1.2\n# EOF", "a=1()"},
		{"a NaN\nb{x=\"1\"} -1\nc +Inf", " bad:c bad:b bad:a"},
		{"a x\nc 1", "c=1() bad:a"},
		{"ab 1\na_total 2\n_a 3\na:b 4\nc 5", "c=5()"},
		{"a\nc 1", "c=1()"},
		{"a{name=\"x} 1\nc 1", "c=1()"},
		{"a{name=} 1\nc 1", "a=1() c=1()"},
		{"some text\nc 1", "c=1()"},
		{"long{l=\"" + strings.Repeat("x", 2*maxSample) + "\"} 1\nc 1", "c=1()"},
		{"c 1\na{name=\"" + strings.Repeat("x", 3*maxSample), "c=1()"},
	} {
		if got, err := scanned(c.text); got != c.want || err != nil {
			t.Errorf("%.60q: found %q, %v; want %q", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"<html>\n<body>\nup 1\n</body>", "{\"a\": 1}", "[]", "not found", "\x00\x01"} {
		if _, err := scanned(text); !errors.Is(err, errNoMetrics) {
			t.Errorf("%q: error %v, want %v", text, err, errNoMetrics)
		}
	}
	broken := errors.New("broken")
	if err := newMetricSet("").scan(io.MultiReader(strings.NewReader("a 1\n"), readerOf{broken})); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the reader", err)
	}
}

type readerOf struct{ err error }

func (r readerOf) Read([]byte) (int, error) { return 0, r.err }

func TestNotice(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"go_x 1\n": " false", "vllm:a 1\nsglang:b 1\n": "vllm:a false", "own:a 1\nvllm:a 1\n": " true", "tgi_a{b=\"c\"} 1\nown:a 2\n": "tgi_a true",
	} {
		set := newMetricSet("own:")
		if err := set.scan(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(set.other, " ", set.own); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzScan: no text makes the scanner panic, and none makes it use a number that is not a count.
func FuzzScan(f *testing.F) {
	for _, s := range []string{"a 1\n", "a{name=\"x\\\"\"} 2 3", "b{x=\"1\"} NaN\n# c", "c{y=\"0\",} 1e3 # {} 1", "a{name=\"", "a{=", "<html>", "a{\"a\"} 1", "a{name=\"\\"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set := newMetricSet("own:")
		all := []*series{set.want("a"), set.want("b", label{name: "x", value: "1"})}
		all[0].each = func(labels []byte, v float64) {
			if !(v >= 0) {
				t.Errorf("%g is used", v)
			}
			fieldsOf(labels, "name")
			numberOf(labels, "size")
		}
		err := set.scan(bytes.NewReader(text))
		if err != nil && !errors.Is(err, errNoMetrics) {
			t.Errorf("error %v", err)
		}
		for _, w := range all {
			if w.sum.ok && (w.sum.bad || !(w.sum.value >= 0)) || w.high.ok && !(w.high.value <= w.sum.value) && !w.sum.bad {
				t.Errorf("%s: sum %+v, highest %+v", w.name, w.sum, w.high)
			}
		}
	})
}

// FuzzSelector: a selector that is accepted names a metric, and none panics.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{"a", "a.b", `a{b="c"}`, `a{b="c",d="e}"}.f`, "a{", "a{b}", `a{b="c"`, `a{b="\`, `a{="}"}`} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, at string, text bool) {
		w, of, err := selector(entry{"X", at, text})
		if err == nil && (w.name == "" || text != (of != "")) {
			t.Errorf("%q: %+v, label %q", at, w, of)
		}
	})
}

// vllmText is about 64 KiB of metrics, mostly buckets of histograms, as vLLM writes them.
func vllmText() []byte {
	var b bytes.Buffer
	const l = `engine="0",model_name="meta-llama/Llama-3.3-70B-Instruct"`
	for _, h := range []string{"time_to_first_token", "inter_token_latency", "e2e_request_latency", "request_queue_time", "request_inference_time", "request_prefill_time", "request_decode_time"} {
		fmt.Fprintf(&b, "# HELP vllm:%s_seconds Histogram of seconds.\n# TYPE vllm:%s_seconds histogram\n", h, h)
		for i := range 80 {
			fmt.Fprintf(&b, "vllm:%s_seconds_bucket{%s,le=\"%d.0\"} %d.0\n", h, l, i, 1000*i)
		}
	}
	for _, m := range []string{"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "generation_tokens_total", "request_success_total"} {
		fmt.Fprintf(&b, "# HELP vllm:%s What it is.\n# TYPE vllm:%s gauge\nvllm:%s{%s} 17.0\n", m, m, m, l)
	}
	return b.Bytes()
}

func BenchmarkScan(b *testing.B) {
	text := vllmText()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		set := newMetricSet("vllm:")
		busy := set.want("vllm:num_requests_running")
		set.want("vllm:num_requests_waiting")
		set.wantOne("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
		set.wantOne("vllm:request_success_total", "vllm:request_success")
		set.wantOne("vllm:generation_tokens_total", "vllm:generation_tokens")
		if err := set.scan(bytes.NewReader(text)); err != nil || busy.sum.value != 17 {
			b.Fatal(err, busy.sum)
		}
	}
}

// TestScanAllocates: skipped lines cost no memory.
func TestScanAllocates(t *testing.T) {
	text := vllmText()
	allocs := func(text []byte) float64 {
		return testing.AllocsPerRun(20, func() {
			set := newMetricSet("vllm:")
			set.want("vllm:num_requests_running")
			if err := set.scan(bytes.NewReader(text)); err != nil {
				t.Fatal(err)
			}
		})
	}
	if one, ten := allocs(text), allocs(bytes.Repeat(text, 10)); ten > one {
		t.Errorf("%g allocations for %d bytes, and %g for ten times as many", one, len(text), ten)
	}
}
