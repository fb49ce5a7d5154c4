package client

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/queen/api"
)

// askAgain is how long a question waits for an answer before it is asked again. It is
// long for a queen that is well, and short for somebody who waits. It does not grow:
// where half of the queens are mute, one of 1000 questions has no answer in 5 s, while
// with 0.5 s, 1 s, 2 s it were one of 16.
const askAgain = 500 * time.Millisecond

// askedAtMost is how often a question is asked that is left waiting for a change: each
// is one of those that a queen lets wait.
const askedAtMost = 10

// waits returns how long a question waits for an answer before it is asked again; 0 =
// it is asked once.
func (c *Client) waits(verb string, r *api.Request) time.Duration {
	switch {
	case api.Acts(verb): // it must not be done twice
		return 0
	case r.Wait > 0:
		return max(c.again, c.within(r)/askedAtMost)
	}
	return c.again
}

// first publishes a question at a subject, and after each wait without an answer at
// the one of all queens, and returns the first answer; those that come later are
// dropped. NATS gives a question to one member of the queue group, by chance: one that
// is stopped is still a member, and another gets it the next time.
//
// Where all of the questions found nobody it is nats.ErrNoResponders: one that did may
// be answered still, by a queen that takes no more of them.
func (c *Client) first(ctx context.Context, subject, all string, payload []byte, wait time.Duration) (*nats.Msg, error) {
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for open := 0; ; subject = all {
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
