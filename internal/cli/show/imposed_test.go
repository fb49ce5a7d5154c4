package show

import (
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// What is drained says so in the lists and in the details, with who, why and how long.
func TestImposed(t *testing.T) {
	hours := &api.Imposed{Of: "hive", By: "ann", Reason: "kernel update", Since: 60_000, Left: 2 * 3_600_000}
	gpu := api.Imposed{Of: "gpu", By: "bob", Since: 1_000}
	h := api.HiveInfo{Hive: "h", Live: hivebeat.Alive, Fresh: true, Warm: true, Drained: hours, GPUs: []hivebeat.GPU{{UUID: "GPU-a", Index: 3}}, DrainedGPUs: map[string]api.Imposed{"GPU-a": gpu}}
	w := api.WorkerInfo{Hive: "h", Fresh: true, Drained: hours, Record: hivebeat.Record{Worker: "w", Live: hivebeat.Alive}}
	g := api.GPUInfo{Hive: "h", Live: hivebeat.Alive, GPU: hivebeat.GPU{UUID: "GPU-a"}, Drained: &gpu}
	quiet := api.WorkerInfo{Hive: "h", Fresh: true, Silenced: hours, Record: hivebeat.Record{Worker: "w", Live: hivebeat.Lost}}
	last := func(row []Cell) string { return row[len(row)-1].Text }
	for _, c := range []struct{ what, got, want string }{
		{"hive", last(HiveRow(&h, time.Hour)), "drained by ann: kernel update, 60m left; GPU 3 drained by bob"},
		{"worker", last(WorkerRow(&w, 0, time.Now())), "drained with its hive by ann: kernel update, 2h left"},
		{"silenced worker", last(WorkerRow(&quiet, 0, time.Now())), "silenced with its hive by ann: kernel update, 2h left"},
		{"silenced worker in detail", strings.Join(Worker(&quiet, &api.Status{}, Paint(false), time.Now()), "\n"), "silenced  with its hive by ann: kernel update, 2h left · for 60s · no webhook and no alert"},
		{"silenced event", Event(&hivebeat.Event{Subject: "h/w", Data: hivebeat.EventData{Kind: hivebeat.KindLost, Cause: hivebeat.CauseExit, Silenced: true}}, time.UTC, Paint(false)), "exit · silenced"},
		{"GPU", last(GPURow(&g)), "drained by bob"},
		{"hive in detail", strings.Join(Hive(&h, &api.Status{}, Paint(false)), "\n"), "drained   by ann: kernel update, 2h left · for 60s · no new work"},
		{"GPU in detail", strings.Join(Hive(&h, &api.Status{}, Paint(false)), "\n"), "\n            drained by bob\n"},
		{"worker in detail", strings.Join(Worker(&w, &api.Status{}, Paint(false), time.Now()), "\n"), "drained   with its hive by ann: kernel update, 2h left"},
		{"event", Event(&hivebeat.Event{Subject: "h", Data: hivebeat.EventData{Kind: hivebeat.KindDrained, Hive: "h", GPU: "GPU-a", GPUIndex: new(uint64(3)), Asker: "ann", Reason: "why", DuringMS: new(hivebeat.Millis(7_200_000))}}, time.UTC, Paint(false)), "drained        h                         GPU 3 · by ann · for 2h · why"},
	} {
		if !strings.Contains(c.got, c.want) {
			t.Errorf("%s: %q has no %q", c.what, c.got, c.want)
		}
	}
}
