package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// PlaceArg names a hive, or one of its workers or GPUs.
type PlaceArg struct {
	ID string `arg:"" name:"hive[/worker|/gpu]" help:"A hive, a worker of it, or a GPU of it by its UUID or index."`
}

func (p *PlaceArg) ids() (hive, part string, one bool) { return strings.Cut(p.ID, "/") }

// Validate checks the ids.
func (p *PlaceArg) Validate() error {
	hive, part, one := p.ids()
	if p.ID != "" && (hive == "" || one && part == "") { // kong reports one that is missing
		return misused(fmt.Errorf("%q is not HIVE, HIVE/WORKER or HIVE/GPU", p.ID), "as in gpu-01, gpu-01/llama or gpu-01/3")
	}
	return first(checkID("hive", hive), checkText("worker or gpu", part, hivebeat.MaxGPUID))
}

// place resolves the argument by the list of the hive's GPUs and workers: a word may be either. With gone set, an
// unlisted one may be meant too.
func (p *PlaceArg) place(ctx context.Context, a *asker, gone bool) (client.Place, error) {
	hive, part, one := p.ids()
	if !one {
		return client.Place{Hive: hive}, nil
	}
	guess := client.Place{Hive: hive, Worker: part}
	if strings.HasPrefix(part, "GPU-") || !hivebeat.ValidID(part) {
		guess = client.Place{Hive: hive, GPU: part}
	}
	h, err := a.hive(ctx, hive)
	switch {
	case errors.Is(err, errNotFound) && gone:
		return guess, nil
	case errors.Is(err, errNotFound):
		return client.Place{}, failed(err, listHives)
	case err != nil:
		return client.Place{}, err
	}
	var uuids []string
	for i := range h.GPUs {
		g := &h.GPUs[i]
		if g.UUID != "" && (g.UUID == part || strconv.FormatUint(g.Index, 10) == part) {
			uuids = append(uuids, g.UUID)
		}
	}
	if slices.Contains(uuids, part) {
		return client.Place{Hive: hive, GPU: part}, nil
	}
	worker := false
	if hivebeat.ValidID(part) {
		_, err = askOne(ctx, a, api.VerbWorker, func(ctx context.Context) (client.Worker, error) { return a.Worker(ctx, hive, part) })
		if worker = err == nil; err != nil && !errors.Is(err, errNotFound) {
			return client.Place{}, err
		}
	}
	switch {
	case worker && len(uuids) > 0:
		return client.Place{}, misused(fmt.Errorf("%s has a worker %s, and a GPU with that index", hive, part), "for the GPU use its UUID: %s", strings.Join(uuids, " or "))
	case worker:
		return client.Place{Hive: hive, Worker: part}, nil
	case len(uuids) == 1:
		return client.Place{Hive: hive, GPU: uuids[0]}, nil
	case len(uuids) > 1:
		return client.Place{}, misused(fmt.Errorf("%s has %s with index %s", hive, show.Plural(len(uuids), "GPU"), part), "use the UUID: %s", strings.Join(uuids, " or "))
	}
	if gone {
		return guess, nil
	}
	return client.Place{}, failed(fmt.Errorf("%s has no worker and no GPU %s", hive, part), "\"hivebeat get %s\" lists them", hive)
}

type drainCmd struct {
	AskFlags
	PlaceArg
	Reason string        `placeholder:"TEXT" env:"HIVEBEAT_DRAIN_REASON" help:"Why, for everyone who looks."`
	For    time.Duration `placeholder:"DUR" env:"HIVEBEAT_DRAIN_FOR" help:"End by itself after this time, such as 2h. Default: it stays until undrain."`
}

// Help is shown below the usage.
func (drainCmd) Help() string {
	return `What is drained is in no pick, and holds on it are not given. Work that goes on there, and holds that exist, are not
touched: look at busy until it is 0. A hive is drained with its workers and GPUs, a GPU with the workers that use it.

  hivebeat drain gpu-01 --reason 'kernel update' --for 2h
  hivebeat drain gpu-01/llama
  hivebeat drain gpu-01/3

It needs the permission to hold places. With --asker, everyone sees who drained it. Another drain replaces it. With
-o json it prints one document {"directive":{…},"status":{…}}.`
}

// maxDrain is the longest time that a drain may be given.
const maxDrain = 365 * 24 * time.Hour

// Validate checks the flags.
func (cmd *drainCmd) Validate() error {
	if cmd.For != 0 && (cmd.For < time.Second || cmd.For > maxDrain) {
		return misused(fmt.Errorf("--for: %s is out of range", cmd.For), "use 1s to %s, or leave it out and end the drain with undrain", maxDrain)
	}
	return checkText("--reason", cmd.Reason, hivebeat.MaxReason)
}

// Run drains.
func (cmd *drainCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "drain", func(ctx context.Context, a *asker) error {
		p, err := cmd.place(ctx, a, false)
		if err != nil {
			return err
		}
		r := client.DrainRequest{Place: p, Reason: cmd.Reason, During: cmd.For}
		d, err := askOne(ctx, a, api.VerbDrain, func(ctx context.Context) (client.Drained, error) { return a.Drain(ctx, r) })
		switch {
		case errors.Is(err, errNotFound):
			return failed(err, "\"hivebeat ls hives\" lists the known hives, \"hivebeat get %s\" what is on it", p.Hive)
		case err != nil:
			return err
		}
		return cmd.printDirective(c, &d.Directive, d.Status, show.Drained)
	})
}

type undrainCmd struct {
	AskFlags
	PlaceArg
}

// Help is shown below the usage.
func (undrainCmd) Help() string {
	return `It ends a drain: "hivebeat undrain gpu-01". A worker that is drained with its hive or a GPU is not drained itself: undrain the
hive or the GPU. It needs the permission to hold places. With -o json it prints one document {"directive":{…},"status":{…}},
with the drain that has ended.`
}

// Run ends a drain.
func (cmd *undrainCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "undrain", func(ctx context.Context, a *asker) error {
		p, err := cmd.place(ctx, a, true)
		if err != nil {
			return err
		}
		d, err := askOne(ctx, a, api.VerbUndrain, func(ctx context.Context) (client.Drained, error) { return a.Undrain(ctx, p) })
		switch {
		case errors.Is(err, errNotFound):
			return failed(err, "\"hivebeat ls hives\" and \"hivebeat get %s\" show what is drained", p.Hive)
		case err != nil:
			return err
		}
		return cmd.printEnded(c, &d.Directive, d.Status, show.Drained)
	})
}

// printDirective prints a directive that is in force.
func (f *AskFlags) printDirective(c *console, d *api.Directive, st api.Status, past string) error {
	is := api.Imposed{Of: "hive", By: d.By, Reason: d.Reason, Left: d.Left}
	return f.printSaid(c, d, st, show.PlaceOf(d)+" is "+show.Imposed(past, &is, "hive", 0))
}

// printEnded prints a directive that has ended.
func (f *AskFlags) printEnded(c *console, d *api.Directive, st api.Status, past string) error {
	return f.printSaid(c, d, st, show.PlaceOf(d)+" is "+past+" no more: it was by "+plaintext.Line(d.By))
}

func (f *AskFlags) printSaid(c *console, d *api.Directive, st api.Status, line string) error {
	if f.json() {
		doc := newDocument(c.out)
		doc.field("directive", d)
		doc.field("status", st)
		return doc.close()
	}
	return printLines(c, []string{line})
}
