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
)

type pickCmd struct {
	AskFlags
	PlaceFlags
	Hive      string        `placeholder:"ID" env:"HIVEBEAT_FILTER_HIVE" help:"Only on this hive." group:"Filter"`
	Count     int           `short:"n" default:"1" help:"So many places, 1 to 100."`
	For       string        `enum:"worker,gpu" default:"worker" help:"A worker that serves the model, or a GPU with room for one: ${enum}."`
	Slots     uint32        `placeholder:"N" env:"HIVEBEAT_FILTER_SLOTS" help:"Slots that each place takes (default 1)."`
	MinUptime time.Duration `placeholder:"DUR" env:"HIVEBEAT_FILTER_MIN_UPTIME" help:"Only workers that began at least so long ago, such as 1m."`
	Spread    string        `enum:"zone,hive,none" default:"zone" help:"How several places are spread: ${enum}."`
	Hold      string        `placeholder:"ID" help:"Hold the places under this id, so that nobody else is given them."`
	HoldFor   time.Duration `placeholder:"DUR" help:"How long, 1s to 10m (default 30s)."`
	Release   string        `placeholder:"ID" help:"Give the places of a hold back, and pick nothing."`
}

// Help is shown below the usage.
func (pickCmd) Help() string {
	return `Examples:

  hivebeat pick --model '*Llama-3*'                   a worker that serves it and has a free slot
  hivebeat pick --for gpu --free-vram 20GiB -n 3      three GPUs with room, in several zones
  hivebeat pick --model sdxl --min-uptime 1m          none that began less than a minute ago
  hivebeat pick --model sdxl --hold job-42            the same, and keep it for 30 s
  hivebeat pick --release job-42                      give it back

The best comes first; a worker that restarts over and over comes only where no other fits. The exit code is 1 if nothing fits, and 0 if there are fewer than -n.
A hold is on top of what a worker says is busy: release it when the work has begun. To ask again with the same
--hold gives the same places. With --asker holds are that asker's own: no other one renews or releases them. With -o json it prints one document {"picks":[…],"passed":{…},"status":{…}}, also
where nothing fits; --release prints {"released":[…],"status":{…}}.`
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
		return misused(errors.New("--hold-for: there is nothing to hold"), "add --hold ID")
	case cmd.Release != "" && cmd.Hold != "":
		return misused(errors.New("--release: --hold is the opposite"), "use one of them")
	case cmd.MinUptime < 0 || cmd.MinUptime > 0 && cmd.MinUptime < time.Millisecond:
		return misused(fmt.Errorf("--min-uptime: %s is no time to be up", cmd.MinUptime), "use something like --min-uptime 1m")
	case cmd.For == api.ForGPU && (cmd.Slots > 0 || cmd.FreeSlots > 0 || cmd.MinUptime > 0):
		return misused(errors.New("--slots, --free-slots and --min-uptime are of workers, not of a GPU"), "say what a GPU needs with --free-vram")
	}
	return first(checkID("--hive", cmd.Hive), checkID("--hold", cmd.Hold), checkID("--release", cmd.Release))
}

// errNothing reports that no worker or GPU fits.
var errNothing = errors.New("nothing fits")

// Run picks workers or GPUs, or releases a hold.
func (cmd *pickCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "pick", func(ctx context.Context, a *asker) error {
		if cmd.Release != "" {
			return cmd.release(ctx, c, a)
		}
		verb := api.VerbPick
		if cmd.Hold != "" {
			verb = api.VerbHold
		}
		ans, err := a.ask(ctx, verb, api.Request{
			Hive: cmd.Hive, Filter: cmd.filter(), N: cmd.Count, For: cmd.For, Spread: cmd.Spread, Slots: uint64(cmd.Slots),
			MinUptime: hivebeat.MillisOf(cmd.MinUptime),
			Hold:      cmd.Hold, HoldMS: hivebeat.MillisOf(cmd.HoldFor),
		})
		switch {
		case errors.Is(err, errNotFound):
			return failed(err, listHives)
		case err != nil:
			return refused(err, ans)
		}
		ans.Whole(api.VerbPick) // older queens may leave out empty lists
		return cmd.print(c, ans)
	})
}

func (cmd *pickCmd) print(c *console, ans *api.Answer) error {
	var nothing error
	if len(ans.Picks) == 0 {
		err := errNothing
		if passed := show.Passed(ans.Passed); passed != "" {
			err = fmt.Errorf("%w; passed over: %s", errNothing, passed)
		}
		hint := "\"hivebeat ls workers\" lists what there is; ask for less, or another --model (a glob of the whole name, and case counts)"
		if cmd.For == api.ForGPU {
			hint = "\"hivebeat ls hives\" lists the memory that is free; ask for less of it"
		}
		if ans.Passed[api.PassedNoSlots] > 0 {
			hint = "a worker is picked once it says how many requests it takes at a time: hivebeat worker --slots N, or Slots in its Config"
		}
		if len(ans.Status.Unsure) > 0 || !ans.Status.Warm {
			hint = "the queen is " + show.Sure(&ans.Status, false) + ": ask again in a moment"
		}
		nothing = failed(err, "%s", hint)
	}
	if cmd.json() {
		doc := newDocument(c.out)
		putList(doc, "picks", ans.Picks)
		doc.field("passed", ans.Passed)
		doc.field("status", ans.Status)
		return first(doc.close(), nothing)
	}
	if nothing != nil {
		return nothing
	}
	width, _ := c.size()
	paint := c.paint(cmd.Color)
	gpus := cmd.For == api.ForGPU
	var rows [][]show.Cell
	for i := range ans.Picks {
		rows = append(rows, show.PickRow(&ans.Picks[i], gpus))
	}
	lines := show.NewPicks(gpus, paint, width).Lines(true, rows)
	if len(ans.Picks) < cmd.Count {
		short := fmt.Sprintf("%d of %d places", len(ans.Picks), cmd.Count)
		if passed := show.Passed(ans.Passed); passed != "" {
			short += "; passed over: " + passed
		}
		lines = append(lines, "", paint.Text(short, show.Warn))
	}
	if len(ans.Status.Unsure) > 0 || !ans.Status.Warm {
		lines = append(lines, "", show.Sure(&ans.Status, paint))
	}
	return printLines(c, lines)
}

func (cmd *pickCmd) release(ctx context.Context, c *console, a *asker) error {
	ans, err := a.ask(ctx, api.VerbRelease, api.Request{Hold: cmd.Release})
	switch {
	case errors.Is(err, errNotFound):
		return failed(err, "it was released, or its time is over")
	case err != nil:
		return refused(err, ans)
	}
	if cmd.json() {
		doc := newDocument(c.out)
		putList(doc, "released", ans.Holds)
		doc.field("status", ans.Status)
		return doc.close()
	}
	var places []string
	for _, h := range ans.Holds {
		places = append(places, h.Hive+"/"+cmp.Or(h.Worker, h.GPU))
	}
	return printLines(c, []string{strings.TrimSuffix(plaintext.Line("released "+cmd.Release+": "+strings.Join(places, ", ")), ": ")})
}
