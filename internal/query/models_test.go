package query

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestModels(t *testing.T) {
	v := newView()
	a := engineOf("a", "llama", 2, 1, 1.5)
	a.Slots, a.TPS, a.VRAM, a.Ver = 8, 900, 40<<30, "0.11.2"
	b := engineOf("b", "llama", 0, 0, 0.5)
	b.Slots, b.VRAM, b.Ver = 4, 20<<30, "0.11.0"
	loading := engineOf("c", "llama", 0, 0, 0)
	loading.State = hivebeat.Loading
	lost := engineOf("d", "llama", 5, 0, 9)
	lost.Live = hivebeat.Lost
	feed(t, v, snapshotOf("h1", "eu", 1, a, loading, workerOf("q", "qwen", 4, 4)), at(0))
	feed(t, v, snapshotOf("h2", "us", 1, b, lost), at(0))
	got := Models(v.Index(), &api.Request{})
	want := []api.ModelInfo{
		{
			Model: "llama", Workers: map[hivebeat.Live]int{"alive": 3, "lost": 1}, States: stateOf(a, b, loading), Hives: 2,
			Able: 2, Zones: map[string]int{"eu": 1, "us": 1}, Slots: 12, Busy: 2, Free: 6 + 4, Queue: 1, Rate: 2, TPS: 900, VRAM: 60 << 30,
			Engines: map[string]int{"vllm 0.11.2": 1, "vllm 0.11.0": 1, "vllm": 1},
		},
		{Model: "qwen", Workers: map[hivebeat.Live]int{"alive": 1}, States: stateOf(workerOf("q", "qwen", 4, 4)), Hives: 1, Zones: map[string]int{}, Slots: 4, Busy: 4},
	}
	if diff := cmp.Diff(want, got.Models); diff != "" {
		t.Errorf("models (-want +got):\n%s", diff)
	}
	if got.Total == nil || *got.Total != 2 {
		t.Errorf("total %v, want 2", got.Total)
	}
	if a := Models(v.Index(), &api.Request{Filter: api.Filter{Model: "q*"}}); len(a.Models) != 1 || a.Models[0].Model != "qwen" {
		t.Errorf("--model q*: %+v", a.Models)
	}
}

func stateOf(list ...hivebeat.Record) map[hivebeat.State]int {
	m := make(map[hivebeat.State]int)
	for i := range list {
		m[list[i].State]++
	}
	return m
}

// Pages of models and of GPUs hold each once.
func TestPagesOfModelsAndGPUs(t *testing.T) {
	v := newView()
	var models, gpus []string
	for i := range 7 {
		s := snapshotOf(fmt.Sprintf("h%d", i), "eu", 1, workerOf("w", fmt.Sprintf("m%d", i), 4, 0))
		models = append(models, fmt.Sprintf("m%d", i))
		for k := range i % 4 {
			id := fmt.Sprintf("GPU-%d-%d", i, k)
			s.GPUs = append(s.GPUs, hivebeat.GPU{UUID: id, Index: uint64(k), Total: 80 << 30, Used: 10 << 30})
			gpus = append(gpus, id)
		}
		s.Workers[0].GPUs = []string{fmt.Sprintf("GPU-%d-0", i)}
		feed(t, v, s, at(0))
	}
	for limit := 1; limit <= 8; limit++ {
		var names, ids []string
		for r := (api.Request{Limit: limit}); ; {
			a := Models(v.Index(), &r)
			for _, m := range a.Models {
				names = append(names, m.Model)
			}
			if r.After = a.Next; r.After == "" {
				break
			}
		}
		for r := (api.Request{Limit: limit}); ; {
			a := GPUs(v.Index(), &r, at(1))
			for _, g := range a.GPUs {
				ids = append(ids, g.UUID)
				if used := g.Index == 0; used != slices.Equal(g.Workers, []string{"w"}) {
					t.Errorf("%s: workers %v", g.UUID, g.Workers)
				}
				if g.Free != 70<<30 {
					t.Errorf("%s: %d bytes free, want 70 GiB", g.UUID, g.Free)
				}
			}
			if r.After = a.Next; r.After == "" {
				break
			}
		}
		if !slices.Equal(names, models) || !slices.Equal(ids, gpus) {
			t.Errorf("limit %d: models %v, GPUs %v; want %v, %v", limit, names, ids, models, gpus)
		}
	}
	if a := GPUs(v.Index(), &api.Request{Hive: "none"}, at(1)); a.Error == nil || a.Error.Code != api.CodeNotFound {
		t.Errorf("an unknown hive: %+v", a.Error)
	}
}
