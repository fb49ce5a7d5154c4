package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
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
	w, err := askOne(ctx, a, api.VerbWorker, func(ctx context.Context) (client.Worker, error) { return a.Worker(ctx, hive, worker) })
	switch {
	case errors.Is(err, errNotFound):
		if _, e := a.hive(ctx, hive); errors.Is(e, errNotFound) {
			return failed(err, listHives)
		}
		return failed(err, "\"hivebeat get %s\" lists the workers of that hive", hive)
	case err != nil:
		return err
	}
	if cmd.json() {
		doc := newDocument(c.out)
		doc.field("status", w.Status)
		doc.field("worker", &w.WorkerInfo)
		return doc.close()
	}
	return printLines(c, show.Worker(&w.WorkerInfo, &w.Status, c.paint(cmd.Color), time.Now()))
}

func (cmd *getCmd) hive(ctx context.Context, c *console, a *asker) error {
	id, _, _ := cmd.ids()
	a = a.view()
	var sure show.Certainty
	h, err := a.hive(ctx, id)
	switch {
	case errors.Is(err, errNotFound):
		return failed(err, listHives)
	case err != nil:
		return err
	}
	sure.Add(h.Status)
	// The certainty of the whole answer is printed first, so all pages are read before that.
	var pages []client.Page[api.WorkerInfo]
	for page, err := range a.workers(ctx, client.Query{Hive: id}) {
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
		doc.field("hive", &h.HiveInfo)
		out = &jsonListing{doc}
	} else {
		for _, line := range show.Hive(&h.HiveInfo, sure.Sum(), paint) {
			fmt.Fprintln(text.w, line)
		}
		text.tables = 1 // leaves a line free before the next table
	}
	out.begin("workers")
	for _, page := range pages {
		for i := range page.Rows {
			out.worker(&page.Rows[i])
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
