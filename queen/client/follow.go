package client

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/api"
)

// followed is the queen that a client from Follow asks.
type followed struct {
	mu   sync.Mutex
	id   string // the queen of the last answer; empty if none has answered
	mute bool   // the last request had no answer
}

// Follow returns a client that sends all its requests to one queen. Use it for answers
// that are shown together, because two queens need not know the same. Any queen may
// answer the first request, and the client follows that queen. If that queen is gone,
// or does not answer within 0.5 s, another queen answers and is followed from then on;
// the Status.Unsure of its first answer says so.
//
// The returned client borrows the connection of c, and is safe for concurrent use.
func (c *Client) Follow() *Client {
	f := *c
	f.followed = &followed{}
	return &f
}

// follow asks the followed queen. It asks any queen if none is followed yet, or if the
// followed one is gone or stopping.
func (c *Client) follow(ctx context.Context, verb string, r api.Request) (*api.Answer, error) {
	before, mute := c.followed.get()
	var a *api.Answer
	var err error
	if before != "" && !mute {
		a, err = c.ask(ctx, c.at(verb, before), verb, r, c.waits(&r))
	} else {
		err = nats.ErrNoResponders
	}
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, ErrUnavailable) && !api.Acts(verb) {
		a, err = c.any(ctx, verb, r)
	}
	c.followed.set(a, err)
	if a != nil && before != "" && a.Status.Queen != before {
		a.Status.Unsure = append(slices.Clip(a.Status.Unsure), "queen "+before+" did not answer, queen "+a.Status.Queen+" did")
	}
	return a, err
}

func (f *followed) get() (id string, mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id, f.mute
}

// set records the outcome of a request.
func (f *followed) set(a *api.Answer, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case silent(err):
		f.mute = true
	case a != nil && hivebeat.ValidID(a.Status.Queen): // the id becomes part of a subject
		f.id, f.mute = a.Status.Queen, false
	}
}
