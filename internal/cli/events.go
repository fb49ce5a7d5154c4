package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

type eventsCmd struct {
	AskFlags
	Hive   string        `placeholder:"ID" env:"HIVEBEAT_FILTER_HIVE" help:"Only events of this hive and its workers." group:"Filter"`
	Worker string        `placeholder:"ID" env:"HIVEBEAT_FILTER_WORKER" help:"Only events of this worker of --hive." group:"Filter"`
	Kind   []string      `placeholder:"WORD" env:"HIVEBEAT_FILTER_KIND" enum:"joined,state,stalled,looping,late,lost,recovered,left,restarted,unverified,conflict,gap,brake,gpu-lost,gpu-failing,gpu-degraded,gpu-recovered,gpu-orphan,gpu-forgotten,forgotten,drained,undrained,silenced,unsilenced" help:"Only this kind, or several with commas: ${enum}." group:"Filter"`
	Since  time.Duration `placeholder:"DUR" env:"HIVEBEAT_FILTER_SINCE" help:"Not older than this, such as 10m." group:"Filter"`
	Limit  int           `placeholder:"N" default:"200" env:"HIVEBEAT_FILTER_LIMIT" help:"At most this many events, the newest ones." group:"Filter"`
}

// Help is shown below the usage.
func (eventsCmd) Help() string {
	return `It shows past events, newest last; "hivebeat watch" shows new ones. With -o json it prints one document
{"events":[…],"status":{…}}, newest first: CloudEvents with their sequence number in the stream as stream_seq.`
}

const maxEvents = 100_000 // they are all held in memory until they are shown

// Validate checks the flags.
func (cmd *eventsCmd) Validate() error {
	switch {
	case cmd.Worker != "" && cmd.Hive == "":
		return misused(errors.New("--worker needs --hive"), "add --hive ID")
	case cmd.Since < 0:
		return misused(fmt.Errorf("--since: %s is not a valid age", cmd.Since), "use something like --since 10m")
	case cmd.Limit < 1 || cmd.Limit > maxEvents:
		return misused(fmt.Errorf("--limit: %d is out of range", cmd.Limit), "use 1 to %d", maxEvents)
	}
	return first(checkID("--hive", cmd.Hive), checkID("--worker", cmd.Worker))
}

// Run shows past events.
func (cmd *eventsCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "events", func(ctx context.Context, a *asker) error {
		q := client.EventQuery{Hive: cmd.Hive, Worker: cmd.Worker, Since: cmd.Since, Limit: cmd.Limit}
		for _, k := range cmd.Kind {
			q.Kinds = append(q.Kinds, hivebeat.Kind(k))
		}
		a = a.view()
		pages := func(ctx context.Context) iter.Seq2[client.Page[api.Happened], error] { return a.EventPages(ctx, q) }
		var sure show.Certainty
		var all []api.Happened
		for p, err := range askPages(ctx, a, api.VerbEvents, pages) {
			if err != nil {
				return refused(err)
			}
			sure.Add(p.Status)
			all = append(all, p.Rows...)
		}
		if cmd.json() {
			doc := newDocument(c.out)
			putList(doc, "events", all)
			doc.field("status", sure.Sum())
			return doc.close()
		}
		return cmd.print(c, all, sure.Sum())
	})
}

func (cmd *eventsCmd) print(c *console, all []api.Happened, st *api.Status) error {
	width, _ := c.size()
	paint := c.paint(cmd.Color)
	var lines []string
	day := ""
	for _, h := range slices.Backward(all) {
		if d := h.Time.In(time.Local).Format(time.DateOnly); d != day {
			day = d
			lines = append(lines, paint.Text(day, show.Strong))
		}
		line := show.Event(&h.Event, time.Local, paint)
		if width > 0 {
			line = show.Cut(line, width)
		}
		lines = append(lines, line)
	}
	if len(all) == 0 {
		lines = append(lines, "no event matches")
	}
	if len(st.Unsure) > 0 || !st.Warm {
		lines = append(lines, show.Sure(st, paint))
	}
	return printLines(c, lines)
}
