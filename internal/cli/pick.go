package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

type pickCmd struct {
	AskFlags
	PlaceFlags
	Hive      string        `placeholder:"ID" env:"HIVEBEAT_FILTER_HIVE" help:"Only on this hive." group:"Filter"`
	Count     int           `short:"n" default:"1" help:"Number of places, 1 to 100."`
	For       string        `enum:"worker,gpu" default:"worker" help:"A worker that serves the model, or a GPU with enough free VRAM for one: ${enum}."`
	Slots     uint32        `placeholder:"N" env:"HIVEBEAT_FILTER_SLOTS" help:"Slots that each place needs (default 1)."`
	GPUs      int           `name:"gpus" placeholder:"N" env:"HIVEBEAT_FILTER_GPUS" help:"With --for gpu: each place is this many GPUs of one machine, each with --free-vram, 1 to 64 (default 1)."`
	MinUptime time.Duration `placeholder:"DUR" env:"HIVEBEAT_FILTER_MIN_UPTIME" help:"Only workers that have been up for at least this long, such as 1m."`
	Spread    string        `enum:"zone,hive,none" default:"zone" help:"Spread several places over zones or hives: ${enum}."`
	Hold      string        `placeholder:"ID" help:"Hold the places under this id, so that no other asker gets them."`
	HoldFor   time.Duration `placeholder:"DUR" help:"How long to hold them, 1s to 10m (default 30s)."`
	Release   string        `placeholder:"ID" help:"Release the places of a hold, and pick nothing."`
}

// Help is shown below the usage.
func (pickCmd) Help() string {
	return `Examples:

  hivebeat pick --model '*Llama-3*'                   a worker that serves it and has a free slot
  hivebeat pick --for gpu --free-vram 20GiB -n 3      three GPUs with free VRAM, in several zones
  hivebeat pick --for gpu --gpus 2 --free-vram 40GiB  two GPUs of one machine
  hivebeat pick --model sdxl --min-uptime 1m          none that started less than a minute ago
  hivebeat pick --model sdxl --hold job-42            the same, and keep it for 30 s
  hivebeat pick --release job-42                      give it back

The best comes first; a worker that restarts repeatedly is picked only if no other fits. The exit code is 1 if nothing fits, and 0 if there are fewer than -n.
A hold adds to the busy slots that a worker reports: release it when the work has started. Another request with the
same --hold returns the same places. With --asker, no other asker can renew or release the hold. With -o json it prints one document {"picks":[…],"passed":{…},"status":{…}}, also
if nothing fits; --release prints {"released":[…],"status":{…}}.`
}

const (
	minHoldFor = time.Second
	maxHoldFor = 10 * time.Minute
)

// Validate checks what the queen would reject.
func (cmd *pickCmd) Validate() error {
	switch {
	case cmd.Count < 1 || cmd.Count > 100:
		return misused(fmt.Errorf("--count: %d places", cmd.Count), "use 1 to 100")
	case cmd.HoldFor != 0 && (cmd.HoldFor < minHoldFor || cmd.HoldFor > maxHoldFor):
		return misused(fmt.Errorf("--hold-for: %s is out of range", cmd.HoldFor), "use %s to %s", minHoldFor, maxHoldFor)
	case cmd.HoldFor != 0 && cmd.Hold == "":
		return misused(errors.New("--hold-for needs --hold"), "add --hold ID")
	case cmd.Release != "" && cmd.Hold != "":
		return misused(errors.New("--release and --hold exclude each other"), "use one of them")
	case cmd.MinUptime < 0 || cmd.MinUptime > 0 && cmd.MinUptime < time.Millisecond:
		return misused(fmt.Errorf("--min-uptime: %s is not a valid uptime", cmd.MinUptime), "use something like --min-uptime 1m")
	case cmd.GPUs < 0 || cmd.GPUs > hivebeat.MaxGPUs:
		return misused(fmt.Errorf("--gpus: %d GPUs", cmd.GPUs), "use 1 to %d", hivebeat.MaxGPUs)
	case cmd.GPUs > 0 && cmd.For != api.ForGPU:
		return misused(errors.New("--gpus applies to GPUs, not to a worker"), "add --for gpu")
	case cmd.For == api.ForGPU && (cmd.Slots > 0 || cmd.FreeSlots > 0 || cmd.MinUptime > 0):
		return misused(errors.New("--slots, --free-slots and --min-uptime apply to workers, not to a GPU"), "use --free-vram for a GPU")
	}
	return first(checkID("--hive", cmd.Hive), checkID("--hold", cmd.Hold), checkID("--release", cmd.Release))
}

// Run picks workers or GPUs, or releases a hold.
func (cmd *pickCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "pick", func(ctx context.Context, a *asker) error {
		if cmd.Release != "" {
			return cmd.release(ctx, c, a)
		}
		p, err := cmd.pick(ctx, a)
		switch {
		case errors.Is(err, client.ErrNothingFits): // print says so
		case errors.Is(err, errNotFound):
			return failed(err, listHives)
		case err != nil:
			return refused(err)
		}
		return cmd.print(c, p)
	})
}

// pick picks, and holds what it picked if that is asked for.
func (cmd *pickCmd) pick(ctx context.Context, a *asker) (client.Pick, error) {
	f := cmd.filter()
	r := client.PickRequest{
		For: cmd.For, Model: f.Model, N: cmd.Count, Slots: uint64(cmd.Slots), FreeSlots: f.FreeSlots, FreeVRAM: f.FreeVRAM, GPUs: cmd.GPUs, FreeDisk: f.FreeDisk, Driver: f.Driver, Kernel: f.Kernel,
		Hive: cmd.Hive, Zone: f.Zone, Selector: f.Selector, MaxAge: cmd.MaxAge, MinUptime: cmd.MinUptime, Spread: cmd.Spread,
	}
	if cmd.Hold == "" {
		return askOne(ctx, a, api.VerbPick, func(ctx context.Context) (client.Pick, error) { return a.Pick(ctx, r) })
	}
	return askOne(ctx, a, api.VerbHold, func(ctx context.Context) (client.Pick, error) {
		return a.Hold(ctx, client.HoldRequest{PickRequest: r, ID: cmd.Hold, Duration: cmd.HoldFor})
	})
}

func (cmd *pickCmd) print(c *console, p client.Pick) error {
	var nothing error
	if len(p.Places) == 0 {
		err := client.ErrNothingFits
		if passed := show.Passed(p.Passed); passed != "" {
			err = fmt.Errorf("%w; passed over: %s", client.ErrNothingFits, passed)
		}
		hint := "\"hivebeat ls workers\" lists all workers, and \"hivebeat get HIVE/WORKER\" why one is not picked; ask for less, or for another --model (a case-sensitive glob over the whole name)"
		if cmd.For == api.ForGPU {
			hint = "\"hivebeat get HIVE\" shows what is free at each GPU and MIG instance, and why one is not offered; ask for less, or for other machines"
		}
		if p.Passed[api.PassedNoSlots] > 0 {
			hint = "a worker is picked only if it reports how many requests it serves at once: hivebeat worker --slots N, or Slots in its Config"
		}
		if len(p.Status.Unsure) > 0 || !p.Status.Warm {
			hint = "the queen is " + show.Sure(&p.Status, false) + ": ask again in a moment"
		}
		nothing = failed(err, "%s", hint)
	}
	if cmd.json() {
		doc := newDocument(c.out)
		putList(doc, "picks", p.Places)
		doc.field("passed", p.Passed)
		doc.field("status", p.Status)
		return first(doc.close(), nothing)
	}
	if nothing != nil {
		return nothing
	}
	width, _ := c.size()
	paint := c.paint(cmd.Color)
	gpus := cmd.For == api.ForGPU
	var rows [][]show.Cell
	for i := range p.Places {
		rows = append(rows, show.PickRow(&p.Places[i], gpus))
	}
	lines := show.NewPicks(gpus, paint, width).Lines(true, rows)
	if len(p.Places) < cmd.Count {
		short := fmt.Sprintf("%d of %d places", len(p.Places), cmd.Count)
		if passed := show.Passed(p.Passed); passed != "" {
			short += "; passed over: " + passed
		}
		lines = append(lines, "", paint.Text(short, show.Warn))
	}
	if len(p.Status.Unsure) > 0 || !p.Status.Warm {
		lines = append(lines, "", show.Sure(&p.Status, paint))
	}
	return printLines(c, lines)
}

func (cmd *pickCmd) release(ctx context.Context, c *console, a *asker) error {
	back, err := askOne(ctx, a, api.VerbRelease, func(ctx context.Context) (client.Released, error) { return a.Release(ctx, cmd.Release) })
	switch {
	case errors.Is(err, errNotFound):
		return failed(err, "it was released, or it has expired")
	case err != nil:
		return refused(err)
	}
	if cmd.json() {
		doc := newDocument(c.out)
		putList(doc, "released", back.Places)
		doc.field("status", back.Status)
		return doc.close()
	}
	var places []string
	for _, h := range back.Places {
		places = append(places, h.Hive+"/"+cmp.Or(h.Worker, h.GPU))
	}
	return printLines(c, []string{strings.TrimSuffix(plaintext.Line("released "+cmd.Release+": "+strings.Join(places, ", ")), ": ")})
}
