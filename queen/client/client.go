package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

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

const defaultTimeout = 5 * time.Second

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

// Ask is the low-level form of all other methods: it sends a request for one verb of
// api.Verbs and returns the answer as it is on the wire. Use it to pass answers on as
// JSON, or for a verb or key that has no typed method yet. If the answer holds an error,
// Ask returns both the answer and an *Error.
//
// If no queen listens, Ask returns ErrNoQueen at once. A queen that has just started is
// present before it answers. Ask tries it again for up to Config.Timeout, or until ctx
// ends, and then returns a *StartingError.
//
// If another queen is available, a queen that is present but does not answer (it is
// stopped, or its link is dead) costs half a second rather than the whole of
// Config.Timeout. Within that timeout Ask repeats an unanswered request every 0.5 s
// (one with r.Wait at most ten times), the first time to a queen that answers a ping,
// and takes the first answer. If none comes, Ask returns ErrNoAnswer.
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
		return nil, fmt.Errorf("client: %s: %w within %s: %w", verb, ErrNoAnswer, within, context.DeadlineExceeded)
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

// millis returns d in milliseconds, rounded up, so that a short duration does not become
// 0, which stands for the default. A negative d becomes a number that every queen refuses.
func millis(d time.Duration) hivebeat.Millis {
	if d < 0 {
		return math.MaxUint64
	}
	m := hivebeat.MillisOf(d)
	if m.Duration() < d {
		m++
	}
	return m
}
