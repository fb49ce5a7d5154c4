package client

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// askAgain is how long a request waits for an answer before it is sent again. It is
// long for a healthy queen, and short for a person who waits.
const askAgain = 500 * time.Millisecond

// askedAtMost is how often the client sends a request that waits for a change, because
// each copy takes one of the watchers that a queen allows.
const askedAtMost = 10

// waits returns how long a request waits for an answer before it is sent again. It is
// safe to send a hold again, because its id makes it the same hold.
func (c *Client) waits(r *api.Request) time.Duration {
	if r.Wait > 0 {
		return max(c.again, c.within(r)/askedAtMost)
	}
	return c.again
}

// first publishes a request on a subject, and again after each wait without an answer.
// It returns the first answer and drops the later ones. NATS gives a request to a
// random member of the queue group, and a stopped queen is still a member. So for the
// second attempt the client looks for a queen that answers a ping, and addresses that
// one by its id. For the third, and whenever no queen answers the ping, it uses the
// subject that all queens share; then the two alternate.
//
// If no attempt found a responder, the error is nats.ErrNoResponders. An attempt that
// did find one may still be answered by a queen that accepts no more requests.
func (c *Client) first(ctx context.Context, subject, verb string, payload []byte, wait time.Duration) (*nats.Msg, error) {
	inbox := c.nc.NewInbox()
	answers, done, err := c.receive(inbox)
	if err != nil {
		return nil, err
	}
	defer done()
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
		msg, err := next(ctx, answers, wait, &open)
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return msg, err
		}
	}
}

// mostAnswers is how many answers to one request the client keeps until it reads them.
const mostAnswers = 64

// receive subscribes to inbox. It gives the subscription a channel of its own:
// nats.Conn.SubscribeSync allocates 512 KiB for each. Closing the connection does not
// close the channel; the caller notices that when it sends again.
func (c *Client) receive(inbox string) (<-chan *nats.Msg, func(), error) {
	answers := make(chan *nats.Msg, mostAnswers)
	sub, err := c.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, nil, err
	}
	return answers, func() { _ = sub.Unsubscribe() }, nil
}

// next waits for an answer for at most within. open is how many attempts may have
// reached a queen.
func next(ctx context.Context, answers <-chan *nats.Msg, within time.Duration, open *int) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		select {
		case msg := <-answers:
			if !noResponders(msg) {
				return msg, nil
			}
			if *open--; *open == 0 {
				return nil, nats.ErrNoResponders
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// noResponders reports whether the server says with msg that nobody subscribes to the
// subject of a request.
func noResponders(msg *nats.Msg) bool {
	return len(msg.Data) == 0 && msg.Header.Get("Status") == "503"
}
