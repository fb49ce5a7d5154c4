package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	pingWithin = 500 * time.Millisecond // a queen that starts answers at once
	knockAgain = 50 * time.Millisecond
)

var errStarting = errors.New("does not answer yet")

// await asks again while a queen is there that has just started: it answers once it
// has heard its hives. Where there is none, err stands.
func (a *asker) await(ctx context.Context, err error, ask func() (*api.Answer, error)) (*api.Answer, error) {
	within, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	queen := a.starting(within)
	if queen == "" {
		return nil, err
	}
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-within.Done():
			return nil, failed(fmt.Errorf("queen %s has just started and %w", queen, errStarting),
				"ask again in a moment; its log says what it waits for; --timeout waits longer")
		case <-time.After(knockAgain):
		}
		if ans, err := ask(); !errors.Is(err, nats.ErrNoResponders) {
			return ans, err
		}
	}
}

// starting returns the id of a queen of this prefix that is there, warm or not.
func (a *asker) starting(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, pingWithin)
	defer cancel()
	subject, err := micro.ControlSubject(micro.PingVerb, "queen", "")
	if err != nil {
		return ""
	}
	inbox := a.nc.NewInbox()
	sub, err := a.nc.SubscribeSync(inbox)
	if err != nil {
		return ""
	}
	defer func() { _ = sub.Unsubscribe() }()
	if a.nc.PublishRequest(subject, inbox, nil) != nil {
		return ""
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil { // nobody is there, or of other fabrics only
			return ""
		}
		var p micro.Ping
		if json.Unmarshal(m.Data, &p) == nil && p.Metadata["prefix"] == a.subjects.Prefix() && p.ID != "" {
			return p.ID
		}
	}
}
