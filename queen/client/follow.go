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

// followed is the queen that all answers are to be of.
type followed struct {
	mu   sync.Mutex
	id   string // whose the last answer was; empty: none has answered
	mute bool   // since then nobody has answered
}

// Follow returns a client whose answers are of one queen, for those that are shown
// together: two queens need not know the same. Any queen answers its first question,
// and that queen is asked the others. Where it is gone, or has not answered after 0.5 s,
// any other answers and is asked from then on: the Status.Unsure of its first answer
// says so.
//
// It borrows what c borrows, and is safe for concurrent use.
func (c *Client) Follow() *Client {
	f := *c
	f.followed = &followed{}
	return &f
}

// follow asks the queen that is followed, or any where that is none, is gone or stops.
func (c *Client) follow(ctx context.Context, verb string, r api.Request) (*api.Answer, error) {
	before, mute := c.followed.get()
	var a *api.Answer
	err := error(nats.ErrNoResponders)
	if before != "" && !mute {
		a, err = c.ask(ctx, c.at(verb, before), verb, r, c.waits(verb, &r))
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

// set takes an outcome over.
func (f *followed) set(a *api.Answer, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case errors.Is(err, ErrNoQueen):
		f.mute = true
	case a != nil && hivebeat.ValidID(a.Status.Queen): // it becomes a part of a subject
		f.id, f.mute = a.Status.Queen, false
	}
}
