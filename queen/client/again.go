package client

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/queen/api"
)

// askAgain is when a question without an answer is asked again, at first; each time
// after that it waits twice as long. It is long for a queen that is well, and short
// for somebody who waits.
const askAgain = 500 * time.Millisecond

// acts tells whether a question does something that must not be done twice.
func acts(verb string, r *api.Request) bool {
	return verb == api.VerbRelease || verb == api.VerbPick && r.Hold != ""
}

// first publishes a question, and again after each wait as long as no answer came,
// and returns the first answer; those that come later are dropped. NATS gives a
// question to one member of the queue group, by chance: one that is stopped is still a
// member, and another gets it the next time.
//
// Where all of the questions found nobody it is nats.ErrNoResponders: one that did may
// be answered still, by a queen that takes no more of them.
func (c *Client) first(ctx context.Context, subject string, payload []byte, wait time.Duration) (*nats.Msg, error) {
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for open := 0; ; wait *= 2 {
		if err := c.nc.PublishRequest(subject, inbox, payload); err != nil {
			return nil, err
		}
		open++
		msg, err := next(ctx, sub, wait, &open)
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return msg, err
		}
	}
}

// next waits for an answer, for so long. open is how many questions somebody may have.
func next(ctx context.Context, sub *nats.Subscription, within time.Duration, open *int) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if !errors.Is(err, nats.ErrNoResponders) {
			return msg, err
		}
		if *open--; *open == 0 {
			return nil, err
		}
	}
}
