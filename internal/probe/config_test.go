package probe_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/internal/probe/enginetest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	const url = "http://127.0.0.1:8000"
	for _, c := range []struct {
		cfg  probe.Config
		says string // empty: it is accepted
	}{
		{probe.Config{URL: url}, ""},
		{probe.Config{URL: "https://[::1]:8000/engine/"}, ""},
		{probe.Config{URL: url, Every: time.Second}, ""},
		{probe.Config{Kind: probe.TCP, URL: "127.0.0.1:8000"}, ""},
		{probe.Config{Kind: probe.HTTP, URL: url + "/status?full=1"}, ""},
		{probe.Config{Kind: probe.Prometheus, URL: url, Mapping: probe.Mapping{Busy: `a:b_c{d="e",f="g\"h"}`, Model: `i{j="k"}.l`}}, ""},
		{probe.Config{}, "Config.URL"},
		{probe.Config{URL: "127.0.0.1:8000"}, "Config.URL"},
		{probe.Config{URL: "ftp://a"}, "Config.URL"},
		{probe.Config{URL: "http://"}, "Config.URL"},
		{probe.Config{URL: "http://a:secret@b"}, "Config.URL: has a user or password"},
		{probe.Config{URL: url + "?a=b"}, "Config.URL"},
		{probe.Config{Kind: probe.TCP, URL: url}, "Config.URL"},
		{probe.Config{Kind: "triton", URL: url}, "Config.Kind"},
		{probe.Config{URL: url, Every: time.Millisecond}, "Config.Every"},
		{probe.Config{URL: url, Timeout: time.Minute}, "Config.Timeout"},
		{probe.Config{URL: url, Timeout: -1}, "Config.Timeout"},
		{probe.Config{URL: url, CAFile: "/does/not/exist"}, "Config.CAFile"},
		{probe.Config{URL: url, CAFile: "config_test.go"}, "Config.CAFile"},
		{probe.Config{URL: url, Mapping: probe.Mapping{Busy: "a"}}, "Config.Mapping"},
		{probe.Config{Kind: probe.Prometheus, URL: url}, "Config.Mapping"},
		{probe.Config{Kind: probe.Prometheus, URL: url, Mapping: probe.Mapping{Busy: "a b"}}, "Config.Mapping.Busy"},
		{probe.Config{Kind: probe.Prometheus, URL: url, Mapping: probe.Mapping{Busy: "a.b"}}, "Config.Mapping.Busy"},
		{probe.Config{Kind: probe.Prometheus, URL: url, Mapping: probe.Mapping{Busy: `a{b="c"`}}, "Config.Mapping.Busy"},
		{probe.Config{Kind: probe.Prometheus, URL: url, Mapping: probe.Mapping{Busy: `a{b}`}}, "Config.Mapping.Busy"},
		{probe.Config{Kind: probe.Prometheus, URL: url, Mapping: probe.Mapping{Model: "a"}}, "Config.Mapping.Model"},
	} {
		_, err := probe.New(c.cfg)
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%+v: error %v, want %q", c.cfg, err, c.says)
		}
	}
}

// TestStates: the words of an engine that a Mapping reads.
func TestStates(t *testing.T) {
	t.Parallel()
	for json, want := range map[string]probe.Reading{
		`"OK"`: {State: hivebeat.Ready}, `true`: {State: hivebeat.Ready}, `"loading"`: {State: hivebeat.Loading},
		`"busy"`: {State: hivebeat.Busy}, `"sleeping"`: {State: hivebeat.Sleeping}, `"draining"`: {State: hivebeat.Draining},
		`false`: {State: hivebeat.Degraded, Reason: "state false"}, `"failed"`: {State: hivebeat.Degraded, Reason: "state failed"},
		`"\u001b[31mred\n"`: {State: hivebeat.Degraded, Reason: "state [31mred"}, `0`: {State: hivebeat.Degraded, Reason: "state 0"},
	} {
		e := enginetest.New(t, probe.HTTP, enginetest.With(func(s *enginetest.State) {
			s.Answers = map[string]string{"/status": `{"a":[{"b":` + json + `}],"run":[1,2],"wait":"3"}`}
		}))
		p := prober(t, probe.Config{Kind: probe.HTTP, URL: e.URL + "/status", Mapping: probe.Mapping{State: "a.0.b", Busy: "run", Queue: "wait"}})
		got := read(t, p)
		want.Engine, want.Models, want.Busy, want.Queue = "http", []probe.Model{}, n(2), n(3)
		if want.State == hivebeat.Ready {
			want.State = hivebeat.Busy // 2 requests run
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", json, diff)
		}
	}
	e := enginetest.New(t, probe.Prometheus)
	for _, c := range []struct {
		state string
		want  hivebeat.State
	}{{"app_up", hivebeat.Ready}, {"app_busy{part=\"a\"}", hivebeat.Degraded}} {
		p := prober(t, probe.Config{Kind: probe.Prometheus, URL: e.URL, Mapping: probe.Mapping{State: c.state}})
		if got := read(t, p); got.State != c.want {
			t.Errorf("%s: state %s (%s), want %s", c.state, got.State, got.Reason, c.want)
		}
	}
	p := prober(t, probe.Config{Kind: probe.Prometheus, URL: e.URL, Mapping: probe.Mapping{State: "other"}})
	if _, err := p.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("error %v, want one that names the metric", err)
	}
}
