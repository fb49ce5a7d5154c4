package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/doctor"
	"github.com/beatfabric/hivebeat/internal/inbox"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
)

// asker sends requests to a queen.
type asker struct {
	*client.Client
	nc       *nats.Conn
	subjects hivebeat.Subjects
	name     string // the asker in the subject of a request; empty: none
	timeout  time.Duration
	denials  *denials // permission errors of the connection
}

// open connects as name and returns an asker. An answer may take up to timeout. The caller
// closes the connection.
func (f *AskerFlags) open(ctx context.Context, name string, timeout time.Duration) (*asker, error) {
	nc, err := f.connect(ctx, name)
	if err != nil {
		return nil, err
	}
	a, err := f.newAsker(nc, timeout)
	if err != nil {
		nc.Close()
	}
	return a, err
}

// newAsker returns an asker on nc, as f says, and sets the error handler of nc.
func (f *AskerFlags) newAsker(nc *nats.Conn, timeout time.Duration) (*asker, error) {
	c, err := client.New(nc, client.Config{Prefix: f.Prefix, Asker: f.Asker, Timeout: timeout})
	if err != nil {
		return nil, err
	}
	heard := new(denials)
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { heard.told(err) })
	return &asker{Client: c, nc: nc, subjects: f.subjects(), name: f.Asker, timeout: timeout, denials: heard}, nil
}

// feed delivers events as they are published.
type feed struct {
	messages chan *nats.Msg
	sub      *nats.Subscription
}

// listen subscribes to events.
func (a *asker) listen(ctx context.Context) (*feed, error) {
	f := &feed{messages: make(chan *nats.Msg, eventsAhead)}
	events := a.subjects.Events()
	var err error
	if f.sub, err = a.nc.ChanSubscribe(events, f.messages); err == nil {
		err = a.nc.FlushWithContext(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", events, err)
	}
	return f, nil
}

// view returns an asker for answers that are shown together. They come from one queen, or
// their Status.Unsure says that they do not.
func (a *asker) view() *asker {
	v := *a
	v.Client = a.Follow()
	return &v
}

// denials passes permission errors of a connection to requests that wait for an answer.
// Without it, a request that NATS refuses waits for its timeout, and the error blames the
// queen.
type denials struct {
	mu      sync.Mutex
	waiting map[*func(error)]struct{}
}

// told is called by the error handler of a connection.
func (d *denials) told(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for hear := range d.waiting {
		(*hear)(err)
	}
}

// listen calls hear for every permission error until stop is called. hear must not block.
func (d *denials) listen(hear func(error)) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == nil {
		d.waiting = map[*func(error)]struct{}{}
	}
	d.waiting[&hear] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.waiting, &hear)
	}
}

// denied turns a permission error of NATS into one for people, with a hint for role.
func denied(err error, role doctor.Role) error {
	what := err.Error()
	if _, rest, ok := strings.Cut(what, "Permissions Violation for "); ok {
		what = strings.NewReplacer("Publish to", "publish to", "Subscription to", "subscribe to").Replace(rest)
	}
	return failed(fmt.Errorf("%w %s", errDenied, what), "\"hivebeat doctor --role %s\" shows which permissions are missing", role)
}

// hearing returns a context that is cancelled with errDenied when NATS refuses requests of
// this verb or their answers.
func (a *asker) hearing(ctx context.Context, verb string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	question := `Publish to "` + a.subjects.Ask(a.name, verb, "")
	role := doctor.Viewer
	if api.Acts(verb) {
		role = doctor.Scheduler
	}
	answer := `Subscription to "` + cmp.Or(a.nc.Opts.InboxPrefix, nats.InboxPrefix)
	stop := a.denials.listen(func(err error) {
		if text := err.Error(); strings.Contains(text, question+`"`) || strings.Contains(text, question+".") || strings.Contains(text, answer) {
			cancel(denied(err, role))
		}
	})
	return ctx, func() { stop(); cancel(nil) }
}

// Errors of ask, besides those of the client.
var (
	errNotFound = client.ErrNotFound
	errDenied   = errors.New("NATS does not allow this user to")
)

// ask sends one request and returns the answer as it is on the wire.
func (a *asker) ask(ctx context.Context, verb string, req api.Request) (*api.Answer, error) {
	ctx, done := a.hearing(ctx, verb)
	defer done()
	ans, err := a.Ask(ctx, verb, req)
	return ans, a.explain(err)
}

// explain turns an error of the client into one for people.
func (a *asker) explain(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok {
		if errors.Is(e, errNotFound) {
			return e // it says what
		}
		said := &reworded{fmt.Sprintf("the queen says %s: %s", e.Code, e.Message), e}
		if e.Code == api.CodeUnavailable {
			return failed(said, "ask again in a moment; \"hivebeat doctor --role queen\" shows what a queen lacks in NATS")
		}
		return said
	}
	if e, ok := errors.AsType[*client.StartingError](err); ok {
		return failed(e, "ask again in a moment; its log says what it is waiting for; a longer --timeout waits for it")
	}
	switch {
	case err == nil, errors.Is(err, errDenied), errors.Is(err, client.ErrNothingFits):
		return err
	case errors.Is(err, nats.ErrNoResponders):
		return failed(fmt.Errorf("%w on %s", client.ErrNoQueen, a.where()),
			"start one with \"hivebeat queen\" (or all with \"hivebeat up\"), or check --nats and --prefix")
	case errors.Is(err, client.ErrNoAnswer) && !(inbox.Allowed{}).Accept(a.nc.NewInbox()):
		return failed(a.noAnswer(err),
			"this connection has its own inbox prefix: start the queens with --inbox-prefix %s", a.nc.Opts.InboxPrefix)
	case errors.Is(err, client.ErrNoAnswer):
		return failed(a.noAnswer(err),
			"look at the queen's log; \"hivebeat doctor\" checks the connection; a longer --timeout waits longer")
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrDisconnected):
		return failed(errors.New("the connection to NATS is lost"), "is the server still running? hivebeat keeps trying to reconnect")
	case errors.Is(err, client.ErrUnreadable):
		return failed(&reworded{strings.TrimPrefix(err.Error(), "client: "), err}, "do the queen and this command have the same version? compare \"hivebeat version\"")
	}
	return fmt.Errorf("ask the queen: %w", err)
}

// noAnswer rewords a client.ErrNoAnswer.
func (a *asker) noAnswer(err error) error {
	return &reworded{fmt.Sprintf("no queen answers on %s within %s", a.where(), a.timeout), err}
}

func (a *asker) where() string {
	where := cmp.Or(a.nc.ConnectedUrlRedacted(), "NATS")
	if p := a.subjects.Prefix(); p != "" {
		where += " below " + p + "."
	}
	return where
}

// askOne calls one method of the client for a verb, as ask does.
func askOne[T any](ctx context.Context, a *asker, verb string, ask func(context.Context) (T, error)) (T, error) {
	ctx, done := a.hearing(ctx, verb)
	defer done()
	v, err := ask(ctx)
	return v, a.explain(err)
}

// askPages returns the pages that one method of the client returns for a verb, as ask does.
func askPages[T any](ctx context.Context, a *asker, verb string, pages func(context.Context) iter.Seq2[client.Page[T], error]) iter.Seq2[client.Page[T], error] {
	return func(yield func(client.Page[T], error) bool) {
		ctx, done := a.hearing(ctx, verb)
		defer done()
		for p, err := range pages(ctx) {
			if !yield(p, a.explain(err)) {
				return
			}
		}
	}
}

// hive returns one hive.
func (a *asker) hive(ctx context.Context, id string) (client.Hive, error) {
	return askOne(ctx, a, api.VerbHive, func(ctx context.Context) (client.Hive, error) { return a.Hive(ctx, id) })
}

// hives returns the hives that match q, page by page.
func (a *asker) hives(ctx context.Context, q client.Query) iter.Seq2[client.Page[api.HiveInfo], error] {
	return askPages(ctx, a, api.VerbHives, func(ctx context.Context) iter.Seq2[client.Page[api.HiveInfo], error] { return a.HivePages(ctx, q) })
}

// workers returns the workers that match q, page by page.
func (a *asker) workers(ctx context.Context, q client.Query) iter.Seq2[client.Page[api.WorkerInfo], error] {
	return askPages(ctx, a, api.VerbWorkers, func(ctx context.Context) iter.Seq2[client.Page[api.WorkerInfo], error] { return a.WorkerPages(ctx, q) })
}

// withQueen connects, and calls do with an asker. A signal ends the context of do.
func (f *AskFlags) withQueen(ctx context.Context, c *console, name string, do func(context.Context, *asker) error) error {
	ctx, stop := c.untilSignal(ctx)
	defer stop()
	connecting, cancel := context.WithTimeoutCause(ctx, f.Timeout,
		failed(fmt.Errorf("NATS did not answer within %s", f.Timeout), "check --nats, or wait longer with --timeout"))
	defer cancel()
	a, err := f.open(connecting, name, f.Timeout)
	if err != nil {
		return err
	}
	defer a.nc.Close()
	return do(ctx, a)
}
