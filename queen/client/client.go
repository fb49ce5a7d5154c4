// Package client queries queens over NATS: which workers are alive, what they serve,
// what changed, and which can take work. Its only dependency beyond the root package is
// nats.go.
//
// Any queen may give an answer, and the Status of the answer says how sure it is; the
// answers of a client from Follow all come from one queen. The package implements
// docs/PROTOCOL.md, section 8.
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

// Errors of requests, besides those of ctx and of NATS.
var (
	// ErrNoQueen means that no queen listens, or that none answered in time. A
	// *StartingError wraps it.
	ErrNoQueen = errors.New("no queen answers")
	// ErrBadRequest means that the queen does not accept the request.
	ErrBadRequest = errors.New("bad request")
	// ErrNotFound means that there is no such hive, worker or hold.
	ErrNotFound = errors.New("not found")
	// ErrTooLarge means that the answer does not fit into a message.
	ErrTooLarge = errors.New("too large")
	// ErrUnavailable means that the queen cannot answer this now.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnreadable means that the message received is no answer that this package
	// understands.
	ErrUnreadable = errors.New("the answer can not be read")
)

// Error is an error in the answer of a queen. It wraps one of the errors above.
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

// Unwrap returns the error of the code, or nil for an unknown code.
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

// Config configures a Client. The zero Config is usable. If the connection has a custom
// inbox prefix, the queens must know it (queen.Config.InboxPrefixes), or they do not
// answer.
type Config struct {
	// Prefix of all subjects. Default: none.
	Prefix string
	// Asker is the id under which the client asks, on queen.as.<asker>.<verb>. NATS
	// permissions can bind it to a credential, and its holds belong to it alone. Default:
	// none; the client asks on queen.api.<verb> and shares the holds of api.Anyone.
	Asker string
	// Timeout is how long one answer may take. If the queen has only just started, the
	// client first waits for it for up to the same time. Default: 5 s.
	Timeout time.Duration
}

// Client queries queens. Its methods are safe for concurrent use.
type Client struct {
	nc       *nats.Conn
	subjects hivebeat.Subjects
	asker    string
	timeout  time.Duration
	again    time.Duration // askAgain
	followed *followed     // set by Follow, else nil
}

const (
	defaultTimeout = 5 * time.Second
	pageSize       = 500 // bounds the memory that a long list takes, here and in a message
)

// New returns a client on nc. The connection is borrowed: the client never closes it.
// Errors name the field of cfg at fault.
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

// at returns the subject of a verb, for one queen, or for any if queen is empty.
func (c *Client) at(verb, queen string) string { return c.subjects.Ask(c.asker, verb, queen) }

// Ask sends a request for one verb of api.Verbs and returns the answer. If the answer
// holds an error, Ask returns both: the answer still says how sure it is.
//
// If no queen listens, Ask returns ErrNoQueen at once. A queen that has just started is
// present before it answers. Ask tries it again for up to Config.Timeout, or until ctx
// ends, and then returns a *StartingError.
//
// If another queen is available, a queen that is present but does not answer (it is
// stopped, or its link is dead) costs half a second rather than the whole of
// Config.Timeout. Within that timeout Ask repeats an unanswered request every 0.5 s
// (one with r.Wait at most ten times), the first time to a queen that answers a ping,
// and takes the first answer. All other methods work in the same way.
func (c *Client) Ask(ctx context.Context, verb string, r api.Request) (*api.Answer, error) {
	if c.followed == nil {
		return c.any(ctx, verb, r)
	}
	return c.follow(ctx, verb, r)
}

// any queries any queen.
func (c *Client) any(ctx context.Context, verb string, r api.Request) (*api.Answer, error) {
	ask := func() (*api.Answer, error) { return c.ask(ctx, c.at(verb, ""), verb, r, c.waits(&r)) }
	a, err := ask()
	if !errors.Is(err, nats.ErrNoResponders) {
		return a, err
	}
	within, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	queen := c.starting(within, pingWithin)
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

// within returns how long the answer may take.
func (c *Client) within(r *api.Request) time.Duration { return c.timeout + r.Wait.Duration() }

// ask sends a request on one subject. If wait is not 0, it sends the request again,
// also to other queens, after each wait without an answer.
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
		msg, err = c.first(limited, subject, verb, payload, wait)
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
		if text := msg.Header.Get("Nats-Service-Error"); text != "" { // the error header of NATS micro services
			return nil, fmt.Errorf("client: %s: %w: %s", verb, ErrUnreadable, text)
		}
		return nil, fmt.Errorf("client: %s: %w: %w", verb, ErrUnreadable, err)
	}
	if a.Error != nil {
		return &a, fmt.Errorf("client: %s: %w", verb, &Error{Verb: verb, Code: a.Error.Code, Message: a.Error.Message})
	}
	return &a, nil
}

// Summary returns the counts of the fleet.
func (c *Client) Summary(ctx context.Context) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbSummary, api.Request{})
}

// Hive returns one hive, as the only element of Hives.
func (c *Client) Hive(ctx context.Context, hive string) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbHive, api.Request{Hive: hive})
}

// Worker returns one worker, as the only element of Workers.
func (c *Client) Worker(ctx context.Context, hive, worker string) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbWorker, api.Request{Hive: hive, Worker: worker})
}

// Hives returns the hives that match r, page by page. r.Limit is the size of a page,
// 500 by default. A page may be shorter, even empty, without being the last. The first
// error ends the sequence.
func (c *Client) Hives(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbHives, r)
}

// Workers returns the workers that match r, page by page, as Hives does.
func (c *Client) Workers(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbWorkers, r)
}

// Events returns the events that match r, newest first, page by page, as Hives does.
func (c *Client) Events(ctx context.Context, r api.Request) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbEvents, r)
}

// Holds returns the known holds, page by page, as Hives does.
func (c *Client) Holds(ctx context.Context) iter.Seq2[*api.Answer, error] {
	return c.Pages(ctx, api.VerbHolds, api.Request{})
}

// Pages returns the answers of a verb that has pages, from after r.After to the last
// one. The first error ends the sequence. All pages come from the queen that gave the
// first, as with Follow.
func (c *Client) Pages(ctx context.Context, verb string, r api.Request) iter.Seq2[*api.Answer, error] {
	return func(yield func(*api.Answer, error) bool) {
		c, r := c, r // a sequence may be iterated more than once
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

// History returns figures over time for the fleet, or for one hive. They reach back for
// the duration since, or as far as the queen has them.
func (c *Client) History(ctx context.Context, hive string, since time.Duration) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbHistory, api.Request{Hive: hive, Since: hivebeat.MillisOf(since)})
}

// Pick returns the best places for work in Picks. It is no error if there are none, but
// an unknown r.Hive is ErrNotFound.
func (c *Client) Pick(ctx context.Context, r api.Request) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbPick, r)
}

// Hold picks as Pick does, and holds the places under r.Hold for r.HoldMS: no queen
// gives them to another asker. A second call with the same id holds the same places for
// longer. The hold belongs to this client's asker; no other asker can renew or release
// it.
func (c *Client) Hold(ctx context.Context, r api.Request) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbHold, r)
}

// Release gives back a hold of this client's asker. The hold of another asker is
// ErrNotFound. So is the client's own hold if Ask had to repeat the request and the
// first attempt has already released it.
func (c *Client) Release(ctx context.Context, hold string) (*api.Answer, error) {
	return c.Ask(ctx, api.VerbRelease, api.Request{Hold: hold})
}
