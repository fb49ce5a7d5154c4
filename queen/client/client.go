// Package client asks queens over NATS: who is alive, what they serve, what
// changed, and who can take work. It links nats.go and nothing heavier.
//
// Every answer is that of whichever queen gives it, and its Status says how sure it
// is; the answers of Follow are of one queen. docs/PROTOCOL.md, section 8, is what it
// speaks.
package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// What a question fails with, beside the errors of ctx and of NATS.
var (
	// ErrNoQueen: nobody listens, or nobody answered in time. A *StartingError wraps it.
	ErrNoQueen = errors.New("no queen answers")
	// ErrBadRequest: the queen does not take the request as it is.
	ErrBadRequest = errors.New("bad request")
	// ErrNotFound: there is no such hive, worker or hold.
	ErrNotFound = errors.New("not found")
	// ErrTooLarge: the answer does not fit into a message.
	ErrTooLarge = errors.New("too large")
	// ErrUnavailable: the queen can not answer this now.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnreadable: what came is no answer of a queen that this package knows.
	ErrUnreadable = errors.New("the answer can not be read")
)

// Error is an error that a queen answered with. It wraps one of the errors above.
type Error struct {
	Verb    string
	Code    string // of the answer
	Message string // for people
}

func (e *Error) Error() string {
	if err := e.Unwrap(); err != nil {
		return err.Error() + ": " + e.Message
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the error of the code, or nil for a code that is not known.
func (e *Error) Unwrap() error {
	switch e.Code {
	case api.CodeBadRequest:
		return ErrBadRequest
	case api.CodeNotFound:
		return ErrNotFound
	case api.CodeTooLarge:
		return ErrTooLarge
	case api.CodeUnavailable:
		return ErrUnavailable
	}
	return nil
}

// Config says how a Client asks. The zero Config is usable. Of a connection with an
// inbox prefix of its own queens need to know (queen.Config.InboxPrefixes): others do
// not answer it.
type Config struct {
	// Prefix of all subjects. Default none.
	Prefix string
	// Asker is the id under which the client asks, at queen.as.<asker>.<verb>: NATS
	// permissions can bind it to a credential, and its holds are its own. Default
	// none: the client asks at queen.api.<verb>, and shares the holds of api.Anyone.
	Asker string
	// Timeout is how long one answer may take, and before that how long a queen is
	// waited for that has just started. Default 5 s.
	Timeout time.Duration
}

// Client asks queens. Its methods are safe for concurrent use.
type Client struct {
	nc       *nats.Conn
	subjects hivebeat.Subjects
	asker    string
	timeout  time.Duration
	again    time.Duration // askAgain
	followed *followed     // by Follow; else nil
}

const (
	defaultTimeout = 5 * time.Second
	pageSize       = 500 // what a long list costs in memory, here and in a message
)

// New returns a client on nc, which is borrowed: it is never closed. Errors name
// the field of cfg at fault.
func New(nc *nats.Conn, cfg Config) (*Client, error) {
	if nc == nil {
		return nil, errors.New("client: nc is nil")
	}
	subjects, err := hivebeat.NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("client: Config.Prefix: %w", err)
	}
	if cfg.Asker != "" {
		if err := hivebeat.CheckID("asker", cfg.Asker); err != nil {
			return nil, fmt.Errorf("client: Config.Asker: %w", err)
		}
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("client: Config.Timeout: %v is negative", cfg.Timeout)
	}
	return &Client{nc: nc, subjects: subjects, asker: cfg.Asker, timeout: cmp.Or(cfg.Timeout, defaultTimeout), again: askAgain}, nil
}

// at is where a verb is asked of a queen, or of any where queen is empty.
func (c *Client) at(verb, queen string) string { return c.subjects.Ask(c.asker, verb, queen) }

// Ask asks one verb, one of api.Verbs, and returns the answer. Where that holds an
// error Ask returns both: the answer still says how sure it is.
//
// Where nobody answers it is ErrNoQueen at once. A queen that has just started is
// there before she answers: she is asked again, for up to Config.Timeout or until ctx
// ends, and then it is a *StartingError.
//
// A queen that is there and does not answer (she is stopped, or her link is dead) costs
// half a second and not the whole of Config.Timeout where there is another: a question
// that has no answer is asked again every 0.5 s within the same timeout (one with
// r.Wait ten times at most), and the first answer counts. Hold and Release are asked
// once, as they change something. All other methods ask in the same way.
func (c *Client) Ask(ctx context.Context, verb string, r api.Request) (*api.Answer, error) {
	if c.followed == nil {
		return c.any(ctx, verb, r)
	}
	return c.follow(ctx, verb, r)
}

// any asks whichever queen answers.
func (c *Client) any(ctx context.Context, verb string, r api.Request) (*api.Answer, error) {
	wait := c.waits(verb, &r)
	ask := func() (*api.Answer, error) { return c.ask(ctx, c.at(verb, ""), verb, r, wait) }
	a, err := ask()
	if !errors.Is(err, nats.ErrNoResponders) {
		return a, err
	}
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	queen := c.starting(within)
	if queen == "" {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	for again := minKnock; ; again = min(2*again, maxKnock) {
		pause(within, again/2+rand.N(again/2))
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case within.Err() != nil:
			return nil, fmt.Errorf("client: %s: %w", verb, &StartingError{queen})
		}
		if a, err := ask(); !errors.Is(err, nats.ErrNoResponders) {
			return a, err
		}
	}
}

// within is how long the answer may take.
func (c *Client) within(r *api.Request) time.Duration { return c.timeout + r.Wait.Duration() }

// ask asks at one subject, and of any queen after each wait without an answer; 0 =
// once.
func (c *Client) ask(ctx context.Context, subject, verb string, r api.Request, wait time.Duration) (*api.Answer, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("client: %s: %w", verb, err)
	}
	within := c.within(&r)
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var msg *nats.Msg
	if wait > 0 {
		msg, err = c.first(limited, subject, c.at(verb, ""), payload, wait)
	} else {
		msg, err = c.nc.RequestWithContext(limited, subject, payload)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("client: %s: %w: %w", verb, ErrNoQueen, err)
	case limited.Err() != nil:
		return nil, fmt.Errorf("client: %s: %w within %s: %w", verb, ErrNoQueen, within, context.DeadlineExceeded)
	default:
		return nil, fmt.Errorf("client: %s: %w", verb, err)
	}
	var a api.Answer
	if err := json.Unmarshal(msg.Data, &a); err != nil {
		if text := msg.Header.Get("Nats-Service-Error"); text != "" { // as every micro service says it
			return nil, fmt.Errorf("client: %s: %w: %s", verb, ErrUnreadable, text)
		}
		return nil, fmt.Errorf("client: %s: %w: %w", verb, ErrUnreadable, err)
	}
	if a.Error != nil {
		return &a, fmt.Errorf("client: %s: %w", verb, &Error{Verb: verb, Code: a.Error.Code, Message: a.Error.Message})
	}
	return &a, nil
}

// Summary counts the fleet.
func (c *Client) Summary(ctx context.Context) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbSummary, api.Request{})
}

// Hive returns one hive, as the only one of Hives.
func (c *Client) Hive(ctx context.Context, hive string) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbHive, api.Request{Hive: hive})
}

// Worker returns one worker, as the only one of Workers.
func (c *Client) Worker(ctx context.Context, hive, worker string) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbWorker, api.Request{Hive: hive, Worker: worker})
}

// Hives returns the hives that fit r, page by page. r.Limit is the size of a page,
// 500 by default; a page may be shorter, even empty, and not be the last. The
// first error ends it.
func (c *Client) Hives(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbHives, r)
}

// Workers returns the workers that fit r, page by page, as Hives does.
func (c *Client) Workers(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbWorkers, r)
}

// Events returns the events that fit r, newest first, page by page, as Hives does.
func (c *Client) Events(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbEvents, r)
}

// Holds returns the holds that are known, page by page, as Hives does.
func (c *Client) Holds(ctx context.Context) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbHolds, api.Request{})
}

// Pages returns the answers of a verb that has pages, until the last, beginning
// after r.After. The first error ends it. All pages are asked of the queen that gave
// the first, as by Follow.
func (c *Client) Pages(ctx context.Context, verb string, r api.Request) iter.Seq2[*api.Answer, error] {
	return func(yield func(*api.Answer, error) bool) {
		c, r := c, r // a sequence may be walked more than once
		if c.followed == nil {
			c = c.Follow()
		}
		r.Limit = cmp.Or(r.Limit, pageSize)
		for {
			a, err := c.Ask(ctx, verb, r)
			if !yield(a, err) || err != nil || a.Next == "" {
				return
			}
			if a.Next == r.After {
				yield(nil, fmt.Errorf("client: %s: %w: its pages do not go on after %q", verb, ErrUnreadable, a.Next))
				return
			}
			r.After, r.Offset = a.Next, 0
		}
	}
}

// History returns numbers over time of the fleet, or of one hive, for as far back
// as the queen has them, or since so long ago.
func (c *Client) History(ctx context.Context, hive string, since time.Duration) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbHistory, api.Request{Hive: hive, Since: hivebeat.MillisOf(since)})
}

// Pick returns the best places for work, in Picks: none is no error, but r.Hive not
// being known is ErrNotFound.
func (c *Client) Pick(ctx context.Context, r api.Request) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbPick, r)
}

// Hold picks as Pick does, and holds the places under r.Hold, for r.HoldMS: no queen
// gives them to another. Asked again with the same id, the same places are held for
// longer. The hold belongs to this client's asker: no other asker can renew or release
// it.
func (c *Client) Hold(ctx context.Context, r api.Request) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbHold, r)
}

// Release gives back a hold of this client's asker. A hold of another asker is
// ErrNotFound.
func (c *Client) Release(ctx context.Context, hold string) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbRelease, api.Request{Hold: hold})
}
