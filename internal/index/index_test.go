package index_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/index/indextest"
	"github.com/beatfabric/hivebeat/internal/sampletest"
	"github.com/beatfabric/hivebeat/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const fresh = 45 * time.Second

// TestAgainstLoops: after any inputs the index keeps what loops over everything find.
func TestAgainstLoops(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := index.New(fresh, new(index.Score))
		now := sampletest.Epoch
		hives := make(map[string]*index.Hive)
		workers := make(map[string]*index.Worker)
		uuids := []string{"MIG-0-0", "MIG-1-1", "elsewhere", sampletest.Machine("h", 0).GPUs[0].UUID, sampletest.Machine("h", 0).GPUs[1].UUID}
		names := func() *rapid.Generator[[]string] { return rapid.SliceOfN(rapid.SampledFrom(uuids), 0, 2) }
		facts := func() index.Facts {
			return index.Facts{
				Live:     rapid.SampledFrom([]hivebeat.Live{hivebeat.Alive, hivebeat.Alive, hivebeat.Late, hivebeat.Lost}).Draw(t, "live"),
				Doubtful: rapid.Bool().Draw(t, "doubtful"), Zone: rapid.SampledFrom([]string{"", "eu", "us"}).Draw(t, "zone"),
				Inc: 1, Received: now, Since: now,
			}
		}
		record := func(id string) hivebeat.Record {
			r := sampletest.Record(id)
			r.Model = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "model")
			r.Slots, r.Busy = 8, rapid.Uint64Range(0, 8).Draw(t, "busy")
			r.Looping, r.Closed = rapid.Bool().Draw(t, "looping"), rapid.Bool().Draw(t, "closed")
			if r.Need = rapid.SampledFrom([]uint64{0, 0, 40 << 30}).Draw(t, "need"); r.Need > 0 {
				r.State = rapid.SampledFrom([]hivebeat.State{hivebeat.Loading, hivebeat.Starting, hivebeat.Ready}).Draw(t, "loads")
				r.VRAM, r.Proc.VRAM = rapid.Uint64Range(0, 50).Draw(t, "vram")<<30, rapid.Uint64Range(0, 50).Draw(t, "seen")<<30
			}
			r.GPUs = names().Draw(t, "names")
			r.On = names().Draw(t, "on")
			r.Age = hivebeat.Millis(rapid.IntRange(0, 60_000).Draw(t, "age"))
			if rapid.Bool().Draw(t, "labelled") {
				r.Labels = map[string]string{"tier": rapid.SampledFrom([]string{"gold", "tin"}).Draw(t, "tier")}
			}
			return r
		}
		hive := func() (string, *index.Hive) {
			id := fmt.Sprintf("h%d", rapid.IntRange(0, 3).Draw(t, "hive"))
			if hives[id] == nil {
				hives[id] = x.Add(id)
			}
			return id, hives[id]
		}
		t.Repeat(map[string]func(*rapid.T){
			"head": func(t *rapid.T) {
				id, h := hive()
				s := sampletest.Machine(id, 1)
				s.GPUs[0].Used = rapid.Uint64Range(0, s.GPUs[0].Total).Draw(t, "used")
				s.GPUs = s.GPUs[:rapid.IntRange(1, 4).Draw(t, "gpus")]
				for i := range s.GPUs {
					g := &s.GPUs[i]
					g.State = rapid.SampledFrom([]hivebeat.GPUState{"", "", "", hivebeat.GPUDegraded, hivebeat.GPUFailing, hivebeat.GPUGone, hivebeat.GPUUnknown, "odd"}).Draw(t, "state")
					if g.MIG = rapid.IntRange(0, 3).Draw(t, "mig") == 0; g.MIG {
						for k := range rapid.IntRange(0, 2).Draw(t, "instances") {
							g.Instances = append(g.Instances, hivebeat.GPUInstance{UUID: fmt.Sprintf("MIG-%d-%d", i, k), Total: 40 << 30, Used: rapid.Uint64Range(0, 40<<30).Draw(t, "part")})
						}
					}
				}
				s.VRAMBudget = rapid.SampledFrom([]uint64{0, 0, 400 << 30, 10 << 30}).Draw(t, "budget")
				b, err := wire.EncodeSnapshot(s)
				if err != nil {
					t.Fatal(err)
				}
				var page wire.SnapshotView
				if err := wire.ParseSnapshot(b, &page); err != nil {
					t.Fatal(err)
				}
				x.ApplyHead(h, &page)
				f := facts()
				f.Zone = h.Head().Labels["zone"]
				x.SetHive(h, f, now)
			},
			"verdict": func(*rapid.T) { _, h := hive(); x.SetHive(h, facts(), now) },
			"worker": func(t *rapid.T) {
				id, h := hive()
				w := fmt.Sprintf("w%d", rapid.IntRange(0, 4).Draw(t, "worker"))
				at := id + "/" + w
				if workers[at] == nil {
					workers[at] = new(index.Worker)
					x.AddWorker(h, workers[at], w)
				}
				x.Set(workers[at], record(w), now, now)
				x.SetHive(h, facts(), now)
			},
			"hold": func(t *rapid.T) {
				id, _ := hive()
				x.SetHeld(index.Place{Hive: id, Worker: fmt.Sprintf("w%d", rapid.IntRange(0, 4).Draw(t, "worker"))}, rapid.Uint64Range(0, 9).Draw(t, "slots"), now)
			},
			"hold memory": func(t *rapid.T) {
				id, _ := hive()
				x.SetHeld(index.Place{Hive: id, GPU: rapid.SampledFrom(uuids).Draw(t, "place")}, rapid.Uint64Range(0, 60<<30).Draw(t, "bytes"), now)
			},
			"drain": func(t *rapid.T) {
				var list []*index.Directive
				for range rapid.IntRange(0, 2).Draw(t, "drains") {
					d := &index.Directive{By: "ann"}
					switch rapid.IntRange(0, 4).Draw(t, "of") {
					case 0:
					case 1:
						d.Worker = fmt.Sprintf("w%d", rapid.IntRange(0, 4).Draw(t, "worker"))
					default:
						d.GPU = rapid.SampledFrom(uuids).Draw(t, "gpu")
					}
					list = append(list, d)
				}
				x.SetDrains(fmt.Sprintf("h%d", rapid.IntRange(0, 3).Draw(t, "hive")), list, now)
			},
			"drop": func(*rapid.T) {
				id, h := hive()
				if w := h.Worker("w1"); w != nil {
					x.DropWorker(w)
					delete(workers, id+"/w1")
					x.SetHive(h, facts(), now)
				}
			},
			"remove": func(*rapid.T) {
				id, h := hive()
				for _, w := range h.Workers() {
					delete(workers, id+"/"+w.ID())
				}
				x.Remove(h)
				delete(hives, id)
			},
			"pass": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "ms")) * time.Millisecond)
			},
			"": func(t *rapid.T) {
				x.Settle(now)
				if err := indextest.Verify(x, now); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}
