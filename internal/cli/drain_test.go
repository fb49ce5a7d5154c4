package cli

import (
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestDrain(t *testing.T) {
	hive := api.Answer{Hives: []api.HiveInfo{{Hive: "h", GPUs: []hivebeat.GPU{{UUID: "GPU-a"}, {UUID: "GPU-b", Index: 3}, {UUID: "GPU-c", Index: 4}, {UUID: "GPU-d", Index: 4}}}}}
	worker := api.Answer{Workers: []api.WorkerInfo{{Hive: "h", Record: hivebeat.Record{Worker: "w"}}}}
	fail := func(code, text string) api.Answer { return api.Answer{Error: &api.Error{Code: code, Message: text}} }
	none := fail(api.CodeNotFound, "none")
	said := func(d api.Directive) api.Answer {
		d.What, d.Hive, d.By = "drain", "h", "ann"
		return api.Answer{Directive: &d}
	}
	for _, c := range []struct {
		args    string
		answers map[string][]api.Answer
		code    int
		want    string
		asked   []api.Request
	}{
		{
			"drain h --reason why --for 2h",
			map[string][]api.Answer{api.VerbDrain: {said(api.Directive{Reason: "why", Left: 7_200_000})}},
			ExitDone, "h is drained by ann: why, 2h left\n",
			[]api.Request{{Hive: "h", Reason: "why", During: 7_200_000}},
		},
		{
			"drain h/w -o json",
			map[string][]api.Answer{api.VerbHive: {hive}, api.VerbWorker: {worker}, api.VerbDrain: {said(api.Directive{Worker: "w"})}},
			ExitDone, `"directive":{"what":"drain","hive":"h","worker":"w","by":"ann","since":0},`,
			[]api.Request{{Hive: "h"}, {Hive: "h", Worker: "w"}, {Hive: "h", Worker: "w"}},
		},
		{
			"drain h/3",
			map[string][]api.Answer{api.VerbHive: {hive}, api.VerbWorker: {none}, api.VerbDrain: {said(api.Directive{GPU: "GPU-b"})}},
			ExitDone, "h/GPU-b is drained by ann\n",
			[]api.Request{{Hive: "h"}, {Hive: "h", Worker: "3"}, {Hive: "h", GPU: "GPU-b"}},
		},
		{
			"drain h/GPU-b",
			map[string][]api.Answer{api.VerbHive: {hive}, api.VerbDrain: {said(api.Directive{GPU: "GPU-b"})}},
			ExitDone, "h/GPU-b is drained by ann\n",
			[]api.Request{{Hive: "h"}, {Hive: "h", GPU: "GPU-b"}},
		},
		{"drain h/4", map[string][]api.Answer{api.VerbHive: {hive}, api.VerbWorker: {none}}, ExitUsage, "h has 2 GPUs with index 4\nhint: use the UUID: GPU-c or GPU-d\n", []api.Request{{Hive: "h"}, {Hive: "h", Worker: "4"}}},
		{"drain h/3", map[string][]api.Answer{api.VerbHive: {hive}, api.VerbWorker: {worker}}, ExitUsage, "h has a worker 3, and a GPU with that index\nhint: for the GPU use its UUID: GPU-b\n", []api.Request{{Hive: "h"}, {Hive: "h", Worker: "3"}}},
		{"drain h/x", map[string][]api.Answer{api.VerbHive: {hive}, api.VerbWorker: {none}}, ExitFailed, "h has no worker and no GPU x\nhint: \"hivebeat get h\" lists them\n", []api.Request{{Hive: "h"}, {Hive: "h", Worker: "x"}}},
		{"drain h/x", map[string][]api.Answer{api.VerbHive: {none}}, ExitFailed, "hivebeat: not found: none\nhint: " + listHives + "\n", []api.Request{{Hive: "h"}}},
		{"drain h", map[string][]api.Answer{api.VerbDrain: {fail(api.CodeUnavailable, "JetStream is away")}}, ExitFailed, "JetStream is away\nhint: ask again", []api.Request{{Hive: "h"}}},
		{"drain", nil, ExitUsage, "<hive[/worker|/gpu]> is missing", nil},
		{"drain h/", nil, ExitUsage, "\"h/\" is not HIVE, HIVE/WORKER or HIVE/GPU\nhint: as in gpu-01, gpu-01/llama or gpu-01/3\n", nil},
		{"drain a.b", nil, ExitUsage, "hivebeat: invalid id", nil},
		{"drain h --for 10ms", nil, ExitUsage, "--for: 10ms is out of range", nil},
		{"drain h --reason " + strings.Repeat("x", 257), nil, ExitUsage, "is longer than 256 bytes", nil},
		{"undrain h", map[string][]api.Answer{api.VerbUndrain: {said(api.Directive{})}}, ExitDone, "h is drained no more: it was by ann\n", []api.Request{{Hive: "h"}}},
		// What is not listed any more may still be drained.
		{"undrain h/w", map[string][]api.Answer{api.VerbHive: {none}, api.VerbUndrain: {said(api.Directive{Worker: "w"})}}, ExitDone, "h/w is drained no more: it was by ann\n", []api.Request{{Hive: "h"}, {Hive: "h", Worker: "w"}}},
		{
			"undrain h/GPU-x",
			map[string][]api.Answer{api.VerbHive: {hive}, api.VerbWorker: {none}, api.VerbUndrain: {none}},
			ExitFailed, "hivebeat: not found: none\nhint: \"hivebeat ls hives\" and \"hivebeat get h\" show what is drained\n",
			[]api.Request{{Hive: "h"}, {Hive: "h", Worker: "GPU-x"}, {Hive: "h", GPU: "GPU-x"}},
		},
		{
			"silence h/w --reason why --for 2h",
			map[string][]api.Answer{api.VerbSilence: {said(api.Directive{Worker: "w", Reason: "why", Left: 7_200_000})}},
			ExitDone, "h/w is silenced by ann: why, 2h left\n",
			[]api.Request{{Hive: "h", Worker: "w", Reason: "why", During: 7_200_000}},
		},
		{"silence x --for 2h", map[string][]api.Answer{api.VerbSilence: {none}}, ExitFailed, "hivebeat: not found: none\nhint: \"hivebeat ls hives\" lists the known hives, ", []api.Request{{Hive: "x", During: 7_200_000}}},
		{"silence h", nil, ExitUsage, "--for", nil},
		{"silence h --for 169h", nil, ExitUsage, "--for: 169h0m0s is out of range\nhint: use 1s to 168h0m0s, such as 2h\n", nil},
		{"silence h/ --for 1h", nil, ExitUsage, "\"h/\" is neither HIVE nor HIVE/WORKER\n", nil},
		{"unsilence h", map[string][]api.Answer{api.VerbUnsilence: {said(api.Directive{})}}, ExitDone, "h is silenced no more: it was by ann\n", []api.Request{{Hive: "h"}}},
	} {
		url, o := serveOracle(t, c.answers)
		args := strings.Fields(c.args)
		code, out, errs := run(t, nil, append([]string{args[0], "--nats", url}, args[1:]...)...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: exit code %d, %q, %q; want %q", c.args, code, out, errs, c.want)
		}
		o.wasAsked(t, c.asked...)
	}
}
