package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
)

type getCmd struct {
	AskFlags
	ID string `arg:"" name:"hive[/worker]" help:"Which one."`
}

// Help is shown below the usage.
func (getCmd) Help() string {
	return `With -o json it prints one document {"status":{…},"hive":{…},"workers":[…]}, or {"status":{…},"worker":{…}}.`
}

func (cmd *getCmd) ids() (hive, worker string, one bool) {
	hive, worker, one = strings.Cut(cmd.ID, "/")
	return hive, worker, one
}

// Validate checks the flags and the ids.
func (cmd *getCmd) Validate() error {
	hive, worker, one := cmd.ids()
	if one && (hive == "" || worker == "") {
		return misused(fmt.Errorf("%q is neither HIVE nor HIVE/WORKER", cmd.ID), "as in hivebeat get gpu-01/llama")
	}
	return first(checkID("hive", hive), checkID("worker", worker))
}

// Run shows one hive with its workers, or one worker.
func (cmd *getCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "get", func(ctx context.Context, a *asker) error {
		if _, _, one := cmd.ids(); one {
			return cmd.worker(ctx, c, a)
		}
		return cmd.hive(ctx, c, a)
	})
}

const listHives = "\"hivebeat ls hives\" lists the hives that are known"

func (cmd *getCmd) worker(ctx context.Context, c *console, a *asker) error {
	hive, worker, _ := cmd.ids()
	ans, err := a.ask(ctx, api.VerbWorker, api.Request{Hive: hive, Worker: worker})
	switch {
	case errors.Is(err, errNotFound):
		if _, e := a.ask(ctx, api.VerbHive, api.Request{Hive: hive}); errors.Is(e, errNotFound) {
			return failed(err, listHives)
		}
		return failed(err, "\"hivebeat get %s\" lists the workers of that hive", hive)
	case err != nil:
		return err
	case len(ans.Workers) != 1:
		return fmt.Errorf("the queen's answer holds %d workers", len(ans.Workers))
	}
	if cmd.json() {
		doc := newDocument(c.out)
		doc.field("status", ans.Status)
		doc.field("worker", &ans.Workers[0])
		return doc.close()
	}
	return printLines(c, show.Worker(&ans.Workers[0], &ans.Status, c.paint(cmd.Color), time.Now()))
}

func (cmd *getCmd) hive(ctx context.Context, c *console, a *asker) error {
	id, _, _ := cmd.ids()
	a = a.view()
	var sure show.Certainty
	ans, err := a.ask(ctx, api.VerbHive, api.Request{Hive: id})
	switch {
	case errors.Is(err, errNotFound):
		return failed(err, listHives)
	case err != nil:
		return err
	case len(ans.Hives) != 1:
		return fmt.Errorf("the queen's answer holds %d hives", len(ans.Hives))
	}
	sure.Add(ans.Status)
	// The certainty of the whole answer is printed first, so all pages are read before that.
	var pages []*api.Answer
	for page, err := range a.pages(ctx, api.VerbWorkers, api.Request{Hive: id}) {
		if err != nil {
			return err
		}
		sure.Add(page.Status)
		pages = append(pages, page)
	}
	width, _ := c.size()
	paint := c.paint(cmd.Color)
	text := newTextListing(c, paint, width)
	var out listing = text
	if cmd.json() {
		doc := newDocument(c.out)
		doc.field("status", sure.Sum())
		doc.field("hive", &ans.Hives[0])
		out = &jsonListing{doc}
	} else {
		for _, line := range show.Hive(&ans.Hives[0], sure.Sum(), paint) {
			fmt.Fprintln(text.w, line)
		}
		text.tables = 1 // leaves a line free before the next table
	}
	out.begin("workers")
	for _, page := range pages {
		for i := range page.Workers {
			out.worker(&page.Workers[i])
		}
		out.page()
	}
	out.end()
	if j, ok := out.(*jsonListing); ok {
		return j.doc.close()
	}
	return text.w.Flush()
}

func printLines(c *console, lines []string) error {
	if _, err := fmt.Fprintln(c.out, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
