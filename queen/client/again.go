package client

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// askAgain is how long a question waits for an answer before it is asked again. It is
// long for a queen that is well, and short for somebody who waits.
const askAgain = 500 * time.Millisecond

// askedAtMost is how often a question is asked that is left waiting for a change: each
// is one of those that a queen lets wait.
const askedAtMost = 10

// waits returns how long a question waits for an answer before it is asked again. A
// hold may be asked again, since its id makes it the same hold.
func (c *Client) waits(r *api.Request) time.Duration {
	if r.Wait > 0 {
		return max(c.again, c.within(r)/askedAtMost)
	}
	return c.again
}

// first publishes a question at a subject, and after each wait without an answer once
// more, and returns the first answer; those that come later are dropped. NATS gives a
// question to one member of the queue group, by chance: one that is stopped is still a
// member. So the client first looks which queen answers a ping, and asks that one by
// its id. The next time, and where no queen answers the ping, it asks at all, the
// subject of all queens.
//
// Where all of the questions found nobody it is nats.ErrNoResponders: one that did may
// be answered still, by a queen that takes no more of them.
func (c *Client) first(ctx context.Context, subject, verb string, payload []byte, wait time.Duration) (*nats.Msg, error) {
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for n, open := 0, 0; ; n++ {
		if n > 0 {
			subject = c.at(verb, "")
		}
		if n%2 == 1 {
			if queen := c.starting(ctx, min(wait, pingWithin)); hivebeat.ValidID(queen) {
				subject = c.at(verb, queen)
			}
		}
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
