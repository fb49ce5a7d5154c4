package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/term"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/top"
)

type topCmd struct {
	AskerFlags
	ColorFlag
	Timeout time.Duration `default:"2s" help:"How long an answer may take before the view says that it is cut off."`
	What    string        `arg:"" optional:"" enum:"hives,workers,events" default:"hives" help:"First tab: ${enum}."`
	Filter  string        `placeholder:"WORDS" help:"Start with this filter, as typed after / (the key ? lists the words)."`
}

// Help is shown below the usage.
func (topCmd) Help() string {
	return `A full-screen view of hives, workers and events, sorted and filtered by the queen, with any number
of them. Enter opens a hive or worker, ? shows all keys, q quits. "hivebeat watch" is similar, but takes no keys.`
}

// Validate checks the flags.
func (cmd *topCmd) Validate() error {
	if cmd.Timeout <= 0 {
		return misused(fmt.Errorf("--timeout: %s is not a valid timeout", cmd.Timeout), "use something like --timeout 2s")
	}
	if _, err := cmd.model("", nil); err != nil {
		return misused(fmt.Errorf("--%w", err), "\"hivebeat top\" and then ? lists the words")
	}
	return nil
}

func (cmd *topCmd) model(where string, c *console) (*top.Model, error) {
	cfg := top.Config{Where: where, Zone: time.Local, Tab: cmd.What, Filter: cmd.Filter}
	if c != nil {
		cfg.Paint = c.paint(cmd.Color)
	}
	return top.New(cfg, time.Now())
}

// Run shows the fleet until the user quits or a signal comes.
func (cmd *topCmd) Run(ctx context.Context, c *console) error {
	in, ok := c.in.(*os.File)
	if c.outTerm < 0 || !ok || !term.IsTerminal(int(in.Fd())) {
		return misused(errors.New("top needs a terminal for its input and output"), "\"hivebeat ls\" lists, \"hivebeat watch\" prints events as they come")
	}
	ctx, stop := c.untilSignal(ctx)
	defer stop()
	connecting, cancel := context.WithTimeout(ctx, max(cmd.Timeout, 5*time.Second))
	defer cancel()
	a, err := cmd.open(connecting, "top", cmd.Timeout)
	if err != nil {
		return err
	}
	defer a.nc.Close()
	f, err := a.listen(connecting)
	if err != nil {
		return err
	}
	m, err := cmd.model(a.where(), c)
	if err != nil {
		return err
	}
	defer c.takeTerminal(nil)
	return top.Run(ctx, m, top.Queen{Ask: a.view().ask, Events: f.next}, top.Terminal{In: in, Out: c.out, Take: c.takeTerminal})
}

// next waits for an event, and returns it together with those that have arrived with it.
func (f *feed) next(ctx context.Context) (events []hivebeat.Event, dropped int) {
	take := func(m *nats.Msg) {
		var e hivebeat.Event
		if json.Unmarshal(m.Data, &e) == nil && !e.IsLive() {
			events = append(events, e)
		}
	}
	select {
	case m := <-f.messages:
		take(m)
	case <-ctx.Done():
		return nil, 0
	}
	gather := time.NewTimer(gatherFor)
	defer gather.Stop()
	for waiting := true; waiting && len(events) < eventsAhead; {
		select {
		case m := <-f.messages:
			take(m)
		case <-gather.C:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	dropped, _ = f.sub.Dropped()
	return events, dropped
}
