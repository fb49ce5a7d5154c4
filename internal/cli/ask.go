package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// pageSize is how many hives or workers are asked for at once: what a long list
// costs in memory here, and in one message there.
const pageSize = 500

// asker asks the queen.
type asker struct {
	nc       *nats.Conn
	subjects hivebeat.Subjects
	timeout  time.Duration
	denials  *denials // what the connection is told of permissions; nil = nobody listens
}

// denials tells whoever waits for an answer that NATS refuses the question or the
// answer: without, one waits until the time is up, and blames the queen.
type denials struct {
	mu      sync.Mutex
	waiting map[*func(error)]struct{}
}

// told is for the error handler of a connection.
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

// listen calls hear, which must not wait, until the returned stop.
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

// denied makes an error for people of one of NATS.
func denied(err error) error {
	what := err.Error()
	if _, rest, ok := strings.Cut(what, "Permissions Violation for "); ok {
		what = strings.NewReplacer("Publish to", "publish to", "Subscription to", "subscribe to").Replace(rest)
	}
	return failed(fmt.Errorf("%w %s", errDenied, what), "\"hivebeat doctor --role reader\" tells which permissions are missing")
}

// request sends one request and returns its answer, or errDenied.
func (a *asker) request(ctx context.Context, subject string, payload []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if a.denials != nil {
		question := fmt.Sprintf("Publish to %q", subject)
		answer := `Subscription to "` + cmp.Or(a.nc.Opts.InboxPrefix, nats.InboxPrefix)
		defer a.denials.listen(func(err error) {
			if text := err.Error(); strings.Contains(text, question) || strings.Contains(text, answer) {
				cancel(denied(err))
			}
		})()
	}
	msg, err := a.nc.RequestWithContext(ctx, subject, payload)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errDenied) {
		return nil, cause
	}
	return msg, err
}

// Errors of ask, beside those of the queen.
var (
	errNoQueen  = errors.New("no queen answers")
	errNotFound = errors.New("not found")
	errDenied   = errors.New("NATS does not let this user")
)

// ask sends one request and returns the answer of whichever queen gives it.
func (a *asker) ask(ctx context.Context, verb string, req api.Request) (*api.Answer, error) {
	payload, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	msg, err := a.request(ctx, a.subjects.API(verb), payload)
	switch {
	case errors.Is(err, errDenied):
		return nil, err
	case errors.Is(err, nats.ErrNoResponders):
		return nil, failed(fmt.Errorf("%w on %s", errNoQueen, a.where()),
			"start one with \"hivebeat queen\" (or all with \"hivebeat up\"), or check --nats and --prefix")
	case errors.Is(err, context.DeadlineExceeded):
		return nil, failed(fmt.Errorf("%w on %s within %s", errNoQueen, a.where(), a.timeout),
			"look at the queen's log; \"hivebeat doctor\" checks the connection; --timeout waits longer")
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrDisconnected):
		return nil, failed(errors.New("the connection to NATS is lost"), "is the server still there? it is tried again")
	case err != nil:
		return nil, fmt.Errorf("ask the queen: %w", err)
	}
	var ans api.Answer
	if err := json.Unmarshal(msg.Data, &ans); err != nil {
		if text := msg.Header.Get("Nats-Service-Error"); text != "" {
			return nil, fmt.Errorf("the queen refused to answer %s: %s", verb, text)
		}
		return nil, failed(fmt.Errorf("the answer to %s can not be read: %w", verb, err), "are queen and command of the same version? compare \"hivebeat version\"")
	}
	if e := ans.Error; e != nil {
		if e.Code == api.CodeNotFound {
			return &ans, fmt.Errorf("%w: %s", errNotFound, e.Message)
		}
		return &ans, fmt.Errorf("the queen says %s: %s", e.Code, e.Message)
	}
	return &ans, nil
}

func (a *asker) where() string {
	where := a.nc.ConnectedUrlRedacted()
	if where == "" {
		where = "NATS"
	}
	if p := a.subjects.Prefix(); p != "" {
		where += " below " + p + "."
	}
	return where
}

// pages yields answer after answer until the last page, or until there were as many
// rows as the request's Limit, where it has one.
func (a *asker) pages(ctx context.Context, verb string, req api.Request) iter.Seq2[*api.Answer, error] {
	left := req.Limit
	return func(yield func(*api.Answer, error) bool) {
		for {
			if req.Limit = pageSize; left > 0 {
				req.Limit = min(left, pageSize)
			}
			if verb == api.VerbHive { // there is one
				req.Limit = 0
			}
			ans, err := a.ask(ctx, verb, req)
			if !yield(ans, err) || err != nil || ans.Next == "" {
				return
			}
			if left > 0 {
				if left -= len(ans.Hives) + len(ans.Workers) + len(ans.Events); left <= 0 {
					return
				}
			}
			if ans.Next == req.After {
				yield(nil, fmt.Errorf("the queen's pages of %s do not go on after %q", verb, ans.Next))
				return
			}
			req.After = ans.Next
		}
	}
}

// certainty adds up how sure several answers are together.
type certainty struct {
	status api.Status
	any    bool
}

func (c *certainty) add(st api.Status) {
	was := c.status
	c.status = st
	if !c.any {
		c.any = true
		return
	}
	c.status.Warm = st.Warm && was.Warm
	c.status.JetStream = st.JetStream && was.JetStream
	c.status.Unsure = was.Unsure
	for _, why := range st.Unsure {
		seen := false
		for _, w := range was.Unsure {
			seen = seen || w == why
		}
		if !seen {
			c.status.Unsure = append(c.status.Unsure[:len(c.status.Unsure):len(c.status.Unsure)], why)
		}
	}
}

// withQueen connects, and runs f with somebody to ask, until a signal comes.
func (f *AskFlags) withQueen(ctx context.Context, c *console, name string, do func(context.Context, *asker) error) error {
	ctx, stop := c.untilSignal(ctx)
	defer stop()
	connecting, cancel := context.WithTimeoutCause(ctx, f.Timeout,
		failed(fmt.Errorf("NATS did not answer within %s", f.Timeout), "check --nats, or wait longer with --timeout"))
	defer cancel()
	heard := new(denials)
	nc, err := f.connect(connecting, name, true, nil, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { heard.told(err) }))
	if err != nil {
		return err
	}
	defer nc.Close()
	return do(ctx, &asker{nc: nc, subjects: f.subjects(), timeout: f.Timeout, denials: heard})
}
