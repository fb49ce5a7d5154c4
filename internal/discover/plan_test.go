package discover

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/probe"
)

var began = time.Unix(1_800_000_000, 0)

func at(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }

// machine returns a scan in which vLLM runs as process 7, child 9, on port 8000.
func machine() *Scan {
	return &Scan{
		Net: "host", Parents: map[uint64]uint64{7: 1, 9: 7, 500: 1},
		Procs: []Process{
			{PID: 7, Start: 1, Net: "host", Args: []string{"vllm", "serve"}, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8000")}},
			{PID: 9, Start: 1, Net: "host", Args: []string{"VLLM::EngineCore"}},
		},
	}
}

func (p *plan) ids(now time.Time) string {
	var ids []string
	for _, e := range p.decide(now) {
		ids = append(ids, e.id)
	}
	return strings.Join(ids, " ")
}

func (p *plan) said() string {
	var lines []string
	for _, f := range p.findings() {
		lines = append(lines, f.Subject()+": "+f.What)
	}
	return strings.Join(lines, "\n")
}

// One engine is one record, whoever reports it.
func TestReportedByAnother(t *testing.T) {
	for _, tt := range []struct {
		name string
		beat hivebeat.Beat
		want string // why it is left out; empty: it is another engine
	}{
		{"by its pid", hivebeat.Beat{Facts: hivebeat.Facts{PID: 7, NS: "boot/1"}}, "worker llama beats for its process already"},
		{"by the pid of a child", hivebeat.Beat{Facts: hivebeat.Facts{PID: 9, NS: "boot/1"}}, "worker llama beats for its process already"},
		{"the same pid elsewhere", hivebeat.Beat{Facts: hivebeat.Facts{PID: 7, NS: "boot/2"}}, ""},
		{"a pid, and no namespace", hivebeat.Beat{Facts: hivebeat.Facts{PID: 7}}, ""},
		{"by its endpoint", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "http://127.0.0.1:8000/v1", Host: "gpu-01"}}, "worker llama beats for http://127.0.0.1:8000/v1 already"},
		{"localhost", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "http://localhost:8000", Host: "gpu-01"}}, "worker llama beats for http://localhost:8000 already"},
		{"the name of the machine", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "http://gpu-01:8000", Host: "gpu-01"}}, "worker llama beats for http://gpu-01:8000 already"},
		{"loopback of a container", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "http://127.0.0.1:8000", Host: "pod-7"}}, ""},
		{"another port", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "http://127.0.0.1:8001", Host: "gpu-01"}}, ""},
		{"no port", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "http://127.0.0.1", Host: "gpu-01"}}, ""},
		{"another machine", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "http://gpu-02:8000", Host: "gpu-01"}}, ""},
		{"no URL", hivebeat.Beat{Facts: hivebeat.Facts{Endpoint: "%", Host: "gpu-01"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlan("boot/1", "gpu-01")
			asked := p.look(at(0), machine())
			if len(asked) != 1 {
				t.Fatalf("it asks %+v", asked)
			}
			p.asked(at(0), asked[0].key, probe.Found{Kind: probe.VLLM, Evidence: "e"}, nil)
			if got := p.ids(at(0)); got != "vllm-8000" {
				t.Fatalf("before the beat: %q", got)
			}
			tt.beat.Worker, tt.beat.Every = "llama", 30_000
			tt.beat.Model = "m"
			p.heard(at(0), &tt.beat)
			want := "vllm-8000"
			if tt.want != "" {
				want = ""
			}
			if got := p.ids(at(0)); got != want {
				t.Errorf("after the beat: %q, want %q", got, want)
			}
			if got := p.said(); !strings.Contains(got, tt.want) {
				t.Errorf("it says %q, want %q", got, tt.want)
			}
			if tt.want == "" {
				return
			}
			if got := p.ids(at(89)); got != "" {
				t.Errorf("before the other worker is lost: %q", got)
			}
			if got := p.ids(at(90)); got != "vllm-8000" {
				t.Errorf("after it: %q", got)
			}
			p.heard(at(91), &tt.beat)
			tt.beat.State = hivebeat.Stopped
			p.heard(at(92), &tt.beat)
			if got := p.ids(at(92)); got != "vllm-8000" {
				t.Errorf("after its goodbye: %q", got)
			}
		})
	}
}

// A worker in the same pod names the engine by the pod's loopback.
func TestReportedInItsPod(t *testing.T) {
	s := &Scan{Net: "host", Parents: map[uint64]uint64{7: 1}, Procs: []Process{{
		PID: 7, Start: 1, Net: "pod", NS: "77", Inner: 1, Addrs: []netip.Addr{netip.MustParseAddr("10.42.0.7")}, Env: map[string]string{"HOSTNAME": "llama-0"},
		Args: []string{"vllm", "serve"}, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8000")},
	}}}
	for _, tt := range []struct {
		beat hivebeat.Facts
		same bool
	}{
		{hivebeat.Facts{Endpoint: "http://127.0.0.1:8000", Host: "llama-0"}, true},
		{hivebeat.Facts{Endpoint: "http://llama-0:8000"}, true},
		{hivebeat.Facts{Endpoint: "http://10.42.0.7:8000"}, true},
		{hivebeat.Facts{PID: 1, NS: "boot/77"}, true},
		{hivebeat.Facts{PID: 1, NS: "boot/78"}, false},
		{hivebeat.Facts{Endpoint: "http://127.0.0.1:8000", Host: "llama-1"}, false},
		{hivebeat.Facts{Endpoint: "http://127.0.0.1:8000", Host: "gpu-01"}, false},
	} {
		p := newPlan("boot/1", "gpu-01")
		for _, c := range p.look(at(0), s) {
			p.asked(at(0), c.key, probe.Found{Kind: probe.VLLM}, nil)
		}
		tt.beat.Every = 30_000
		tt.beat.Model = "m"
		p.heard(at(0), &hivebeat.Beat{Worker: "w", Facts: tt.beat})
		if got := p.ids(at(0)) == ""; got != tt.same {
			t.Errorf("%+v: the same engine %t, want %t", tt.beat, got, tt.same)
		}
	}
}

// A worker whose process has ended does not keep its engine for 90 s.
func TestReporterHasEnded(t *testing.T) {
	p := newPlan("boot/1", "gpu-01")
	for _, c := range p.look(at(0), machine()) {
		p.asked(at(0), c.key, probe.Found{Kind: probe.VLLM}, nil)
	}
	p.heard(at(0), &hivebeat.Beat{Worker: "sidecar", Facts: hivebeat.Facts{Model: "m", PID: 500, NS: "boot/1", Host: "gpu-01", Every: 30_000, Endpoint: "http://127.0.0.1:8000"}})
	if got := p.ids(at(0)); got != "" {
		t.Fatalf("it beats for %q", got)
	}
	s := machine()
	delete(s.Parents, 500)
	p.look(at(10), s)
	if got := p.ids(at(10)); got != "vllm-8000" {
		t.Errorf("after the end of process 500: %q", got)
	}
}

// A port that is none of an engine is asked ever more seldom; one that refuses, or an engine that
// loads, at each look.
func TestAskAgain(t *testing.T) {
	engine := machine()
	guess := &Scan{Net: "host", Parents: map[uint64]uint64{}, Sockets: []Socket{{At: netip.MustParseAddrPort("127.0.0.1:8080")}}}
	for _, tt := range []struct {
		name string
		scan *Scan
		err  error
		at   string // when it is asked within the first two hours, in minutes
	}{
		{"an engine that answers as none", engine, probe.ErrAnswer, "0 1 3 7 15 25 35 45 55"},
		{"an engine that refuses", engine, probe.ErrRefused, "0 1 2 3 4 5"},
		{"an engine that loads", engine, &probe.StatusError{Code: 503}, "0 1 2 3 4 5"},
		{"an engine that hangs", engine, probe.ErrTimeout, "0 1 3 7 15 25"},
		{"a guess that is wrong", guess, probe.ErrAnswer, "0 10 30 70"},
		{"a guess with an error", guess, &probe.StatusError{Code: 500}, "0 10 30 70"},
	} {
		p := newPlan("boot/1", "gpu-01")
		var times []string
		for m := range 121 {
			now := at(60 * m)
			for _, c := range p.look(now, tt.scan) {
				times = append(times, fmt.Sprint(m))
				p.asked(now, c.key, probe.Found{}, fmt.Errorf("x: %w", tt.err))
			}
		}
		if got := strings.Join(times, " "); !strings.HasPrefix(got+" ", tt.at+" ") {
			t.Errorf("%s: it is asked at %s, want %s", tt.name, got, tt.at)
		}
		if got := p.ids(at(7200)); got != "" {
			t.Errorf("%s: it beats for %s", tt.name, got)
		}
	}
}

// An engine whose process is gone from a scan keeps its worker until the end of the process is
// seen, so that it is lost and did not leave. Another process on the port is another engine.
func TestProcessEnds(t *testing.T) {
	p := newPlan("boot/1", "gpu-01")
	for _, c := range p.look(at(0), machine()) {
		p.asked(at(0), c.key, probe.Found{Kind: probe.VLLM}, nil)
	}
	p.ids(at(0))
	if ask := p.look(at(10), &Scan{Net: "host", Parents: map[uint64]uint64{}}); len(ask) != 0 || p.ids(at(10)) != "vllm-8000" {
		t.Errorf("it asks %v and beats for %q", ask, p.ids(at(10)))
	}
	p.ended("vllm-8000")
	if got := p.ids(at(10)); got != "" {
		t.Errorf("after its end it beats for %q", got)
	}
	again := machine()
	again.Procs[0].Start = 2
	ask := p.look(at(20), again)
	if len(ask) != 1 {
		t.Fatalf("it asks %v", ask)
	}
	p.asked(at(20), ask[0].key, probe.Found{Kind: probe.VLLM}, nil)
	if got := p.ids(at(20)); got != "vllm-8000" {
		t.Errorf("the next process is %q", got)
	}
}

func TestCollisions(t *testing.T) {
	p := newPlan("boot/1", "gpu-01")
	s := machine()
	s.Procs = append(s.Procs, Process{PID: 20, Start: 1, Net: "host", Args: []string{"vllm", "serve"}, Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:8000")}})
	for _, c := range p.look(at(0), s) {
		p.asked(at(0), c.key, probe.Found{Kind: probe.VLLM, Evidence: "e"}, nil)
	}
	if got := p.ids(at(0)); got != "vllm-8000" {
		t.Errorf("it beats for %q", got)
	}
	if want := "left out: the engine at http://127.0.0.1:8000 has the id vllm-8000 already"; !strings.Contains(p.said(), want) {
		t.Errorf("it says %q, want %q", p.said(), want)
	}
	if p.asked(at(1), key{pid: 99}, probe.Found{}, errors.New("x")); p.ids(at(1)) != "vllm-8000" {
		t.Error("an answer of a process that is gone counts")
	}
}
