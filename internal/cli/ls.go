package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/cli/show"
	"github.com/beatfabric/hivebeat/internal/plaintext"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

type lsCmd struct {
	AskFlags
	FilterFlags
	NoHeaders bool   `help:"Print no titles and no summary."`
	What      string `arg:"" optional:"" enum:"all,hives,hive,workers,worker,models,model,gpus,gpu" default:"all" help:"hives, workers, models or gpus; hives and workers if left out."`
	Hive      string `placeholder:"ID" env:"HIVEBEAT_FILTER_HIVE" help:"Only this hive and its workers." group:"Filter"`
}

// Help is shown below the usage.
func (lsCmd) Help() string {
	return `The queen filters, and a row must match all filters. For hives, --model, --state, --free-slots and
--stalled select those with such a worker. Hives are sorted by ` + strings.Join(api.HiveSortKeys, ", ") + `,
workers by ` + strings.Join(api.WorkerSortKeys, ", ") + `.

With -o wide it adds what the engines of workers say, in lines of any length. With -o name it prints
only names, HIVE or HIVE/WORKER (of GPUs the UUID), a line each. With -o json it prints one document {"hives":[…],"workers":[…],"summary":{…},"status":{…}},
with the lists that were asked for. The document is complete if and only if the exit code is 0.`
}

// Validate checks the flags.
func (cmd *lsCmd) Validate() error {
	if cmd.What != "all" { // one or many, as people type it
		cmd.What = strings.TrimSuffix(cmd.What, "s") + "s"
	}
	if cmd.What == "models" && (cmd.Hive != "" || cmd.Sort != "" || cmd.Limit != nil || !reflect.DeepEqual(cmd.filter(), api.Filter{Model: cmd.Model})) {
		return misused(errors.New("ls models takes no filter but --model: a model has workers on many hives"), "list the workers instead: hivebeat ls workers")
	}
	if cmd.What == "gpus" && cmd.Sort != "" {
		return misused(errors.New("ls gpus has one order, by hive and index"), "leave out --sort")
	}
	return first(checkID("--hive", cmd.Hive), cmd.checkSort(cmd.What))
}

// Run lists the fleet, page by page.
func (cmd *lsCmd) Run(ctx context.Context, c *console) error {
	return cmd.withQueen(ctx, c, "ls", func(ctx context.Context, a *asker) error {
		if err := cmd.checkStates(ctx, a); err != nil {
			return err
		}
		width, _ := c.size()
		text := newTextListing(c, c.paint(cmd.Color), width)
		text.bare = cmd.NoHeaders
		var out listing = text
		switch cmd.Output {
		case "json":
			out = &jsonListing{doc: newDocument(c.out)}
		case "wide":
			text.width, text.wide = 0, true
		case "name":
			out = &nameListing{w: bufio.NewWriter(c.out)}
		}
		return cmd.list(ctx, a.view(), out)
	})
}

// checkStates refuses a word of --state that the protocol does not define and no worker
// reports: an empty list would look as if no worker were in that state.
func (cmd *lsCmd) checkStates(ctx context.Context, a *asker) error {
	for _, s := range cmd.strange() {
		found := false
		for p, err := range a.workers(ctx, client.Query{Filter: api.Filter{State: []hivebeat.State{s}}, Limit: 1}) {
			if err != nil {
				return refused(err)
			}
			found = found || len(p.Rows) > 0
		}
		if !found {
			return misused(fmt.Errorf("--state: no worker reports %.40q", s), "use %s, or another state that a worker reports", joined(hivebeat.States()))
		}
	}
	return nil
}

// listing is the output of a list.
type listing interface {
	begin(what string) // hives, workers, models or gpus
	hive(h *api.HiveInfo)
	worker(w *api.WorkerInfo)
	model(m *api.ModelInfo)
	gpu(g *api.GPUInfo)
	page()                                                 // the end of a page
	end()                                                  // the end of the list that begin started
	close(s *api.Summary, st *api.Status, of string) error // of says what the list covers, and ends with a space
}

func (cmd *lsCmd) list(ctx context.Context, a *asker, out listing) error {
	switch cmd.What {
	case "models":
		return listRows(ctx, a, out, cmd, askPages(ctx, a, api.VerbModels, func(ctx context.Context) iter.Seq2[client.Page[api.ModelInfo], error] {
			return a.ModelPages(ctx, cmd.Model)
		}), out.model)
	case "gpus":
		return listRows(ctx, a, out, cmd, askPages(ctx, a, api.VerbGPUs, func(ctx context.Context) iter.Seq2[client.Page[api.GPUInfo], error] {
			return a.GPUPages(ctx, cmd.query())
		}), out.gpu)
	}
	var sure show.Certainty
	var listed rows
	var mine counter // of one hive, if only that is asked for
	if cmd.What != "workers" || cmd.Hive != "" && !cmd.some() {
		show := cmd.What != "workers"
		if show {
			out.begin("hives")
		}
		for p, err := range cmd.hives(ctx, a) {
			if err != nil {
				return cmd.explain(err)
			}
			sure.Add(p.Status)
			for i := range p.Rows {
				listed.hives++
				mine.hive(&p.Rows[i])
				if show {
					out.hive(&p.Rows[i])
				}
			}
			out.page()
		}
		if show {
			out.end()
		}
	}
	if cmd.What != "hives" {
		out.begin("workers")
		for p, err := range a.workers(ctx, cmd.query()) {
			if err != nil {
				return cmd.explain(err)
			}
			sure.Add(p.Status)
			for i := range p.Rows {
				listed.workers++
				mine.worker(&p.Rows[i])
				out.worker(&p.Rows[i])
			}
			out.page()
		}
		out.end()
	}
	if cmd.Hive != "" && !cmd.some() {
		return out.close(&mine.Summary, sure.Sum(), "only hive "+cmd.Hive+": ")
	}
	all, err := askOne(ctx, a, api.VerbSummary, a.Summary)
	if err != nil {
		return err
	}
	sure.Add(all.Status)
	of := ""
	if cmd.some() {
		of = listed.of(cmd.What) + " · all: "
	}
	return out.close(&all.Summary, sure.Sum(), of)
}

// listRows lists models or GPUs.
func listRows[T any](ctx context.Context, a *asker, out listing, cmd *lsCmd, pages iter.Seq2[client.Page[T], error], row func(*T)) error {
	var sure show.Certainty
	n := 0
	out.begin(cmd.What)
	for p, err := range pages {
		if err != nil {
			return cmd.explain(err)
		}
		sure.Add(p.Status)
		for i := range p.Rows {
			n++
			row(&p.Rows[i])
		}
		out.page()
	}
	out.end()
	all, err := askOne(ctx, a, api.VerbSummary, a.Summary)
	if err != nil {
		return err
	}
	sure.Add(all.Status)
	noun := map[string]string{"models": "model", "gpus": "GPU"}[cmd.What]
	return out.close(&all.Summary, sure.Sum(), show.Plural(n, noun)+" listed · all: ")
}

func (cmd *lsCmd) query() client.Query {
	return client.Query{Hive: cmd.Hive, Filter: cmd.filter(), Sort: cmd.Sort, Limit: cmd.limit()}
}

// hives returns the hives to list. Where only one is asked for, it must exist.
func (cmd *lsCmd) hives(ctx context.Context, a *asker) iter.Seq2[client.Page[api.HiveInfo], error] {
	if cmd.Hive == "" || cmd.some() {
		return a.hives(ctx, cmd.query())
	}
	return func(yield func(client.Page[api.HiveInfo], error) bool) {
		h, err := a.hive(ctx, cmd.Hive)
		yield(client.Page[api.HiveInfo]{Rows: []api.HiveInfo{h.HiveInfo}, Status: h.Status}, err)
	}
}

// rows counts the rows that were listed.
type rows struct{ hives, workers int }

func (n rows) of(what string) string {
	switch what {
	case "hives":
		return show.Plural(n.hives, "hive") + " listed"
	case "workers":
		return show.Plural(n.workers, "worker") + " listed"
	}
	return show.Plural(n.hives, "hive") + " and " + show.Plural(n.workers, "worker") + " listed"
}

func (cmd *lsCmd) explain(err error) error {
	if errors.Is(err, errNotFound) {
		return failed(err, "\"hivebeat ls hives\" lists the known hives (--hive, HIVEBEAT_FILTER_HIVE)")
	}
	return refused(err)
}

// counter sums up the listed rows.
type counter struct{ api.Summary }

func (n *counter) hive(h *api.HiveInfo) {
	inc(&n.Hives, h.Live)
	if n.Workers == nil {
		n.Workers = h.Workers
	}
	if h.Live == hivebeat.Lost || h.Live == hivebeat.Left {
		return
	}
	for i := range h.GPUs {
		g := &h.GPUs[i]
		state := g.Condition()
		inc(&n.GPUStates, state)
		if !h.Fresh || !state.Usable() { // its figures are old
			n.VRAMStale += g.Total
			continue
		}
		n.GPUs++
		n.VRAMTotal, n.VRAMUsed, n.VRAMOurs = n.VRAMTotal+g.Total, n.VRAMUsed+g.Used, n.VRAMOurs+g.Ours
		n.VRAMOrphaned, n.VRAMForeign = n.VRAMOrphaned+g.Orphaned, n.VRAMForeign+g.Foreign()
		n.VRAMUnattributed, n.VRAMReserved = n.VRAMUnattributed+g.Unattributed, n.VRAMReserved+g.Reserved
	}
}

func (n *counter) worker(w *api.WorkerInfo) {
	if w.Live == hivebeat.Alive {
		inc(&n.States, w.State)
	}
}

func inc[K comparable](m *map[K]int, k K) {
	if *m == nil {
		*m = map[K]int{}
	}
	(*m)[k]++
}

type jsonListing struct{ doc *document }

func (l *jsonListing) begin(what string)        { l.doc.array(what) }
func (l *jsonListing) hive(h *api.HiveInfo)     { l.doc.add(h) }
func (l *jsonListing) worker(w *api.WorkerInfo) { l.doc.add(w) }
func (l *jsonListing) model(m *api.ModelInfo)   { l.doc.add(m) }
func (l *jsonListing) gpu(g *api.GPUInfo)       { l.doc.add(g) }
func (l *jsonListing) page()                    {}
func (l *jsonListing) end()                     { l.doc.end() }

func (l *jsonListing) close(s *api.Summary, st *api.Status, _ string) error {
	l.doc.field("summary", s)
	l.doc.field("status", st)
	return l.doc.close()
}

// nameListing prints names for scripts.
type nameListing struct{ w *bufio.Writer }

func (l *nameListing) begin(string)         {}
func (l *nameListing) hive(h *api.HiveInfo) { fmt.Fprintln(l.w, plaintext.Line(h.Hive)) }
func (l *nameListing) worker(w *api.WorkerInfo) {
	fmt.Fprintln(l.w, plaintext.Line(w.Hive+"/"+w.Worker))
}
func (l *nameListing) model(m *api.ModelInfo) { fmt.Fprintln(l.w, plaintext.Line(m.Model)) }
func (l *nameListing) gpu(g *api.GPUInfo)     { fmt.Fprintln(l.w, plaintext.Line(g.UUID)) }
func (l *nameListing) page()                  {}
func (l *nameListing) end()                   {}

func (l *nameListing) close(*api.Summary, *api.Status, string) error { return flushed(l.w) }

func flushed(w *bufio.Writer) error {
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// textListing prints tables. It holds one page at a time.
type textListing struct {
	w       *bufio.Writer
	paint   show.Paint
	width   int
	wide    bool // with the facts of engines
	bare    bool // without titles and summary
	table   *show.Table
	rows    [][]show.Cell
	heading bool // the titles of the table are not printed yet
	tables  int  // number of tables that have rows
}

func newTextListing(c *console, p show.Paint, width int) *textListing {
	return &textListing{w: bufio.NewWriter(c.out), paint: p, width: width}
}

func (l *textListing) begin(what string) {
	l.heading = !l.bare
	switch {
	case what == "models":
		l.table = show.NewModels(l.paint, l.width)
	case what == "gpus":
		l.table = show.NewGPUTable(l.paint, l.width)
	case what == "hives":
		l.table = show.NewHives(l.paint, l.width)
	case l.wide:
		l.table = show.NewWideWorkers(l.paint)
	default:
		l.table = show.NewWorkers(l.paint, l.width)
	}
}

func (l *textListing) model(m *api.ModelInfo) { l.rows = append(l.rows, show.ModelRow(m)) }
func (l *textListing) gpu(g *api.GPUInfo)     { l.rows = append(l.rows, show.GPURow(g)) }
func (l *textListing) hive(h *api.HiveInfo)   { l.rows = append(l.rows, show.HiveRow(h, 0)) }
func (l *textListing) worker(w *api.WorkerInfo) {
	if l.wide {
		l.rows = append(l.rows, show.WideWorkerRow(w, time.Now()))
		return
	}
	l.rows = append(l.rows, show.WorkerRow(w, 0, time.Now()))
}

func (l *textListing) page() {
	if len(l.rows) == 0 {
		return
	}
	if l.heading {
		if l.tables++; l.tables > 1 {
			fmt.Fprintln(l.w)
		}
	}
	for _, line := range l.table.Lines(l.heading, l.rows) {
		fmt.Fprintln(l.w, line)
	}
	l.heading, l.rows = false, l.rows[:0]
}

func (l *textListing) end() {}

func (l *textListing) close(s *api.Summary, st *api.Status, of string) error {
	if l.bare {
		return flushed(l.w)
	}
	if l.tables > 0 {
		fmt.Fprintln(l.w)
	}
	switch {
	case show.Empty(s):
		fmt.Fprintln(l.w, "The fleet is empty: no hive has reported. "+show.Sure(st, l.paint))
		fmt.Fprintln(l.w, "Start a hive on each machine with \"hivebeat hive\", or a demo with \"hivebeat up --demo\".")
	default:
		fmt.Fprintln(l.w, of+show.Summary(s, st, l.paint))
	}
	return flushed(l.w)
}
