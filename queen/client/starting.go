package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/micro"
)

const (
	pingWithin = 500 * time.Millisecond // a queen that starts answers that at once
	minKnock   = 50 * time.Millisecond  // between two questions to a queen that starts, at first
	maxKnock   = 500 * time.Millisecond
)

// StartingError tells that a queen is there and answered nothing within
// Config.Timeout, as she has just started and hears her hives first. It wraps
// ErrNoQueen.
type StartingError struct {
	Queen string // her id
}

func (e *StartingError) Error() string {
	return "queen " + e.Queen + " has just started and does not answer yet"
}

// Unwrap returns ErrNoQueen.
func (*StartingError) Unwrap() error { return ErrNoQueen }

// starting returns the id of a queen of this prefix that answers a ping, warm or not;
// empty if none does in time, or the client may not ask.
func (c *Client) starting(ctx context.Context, within time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	subject, err := micro.ControlSubject(micro.PingVerb, "queen", "")
	if err != nil {
		return ""
	}
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return ""
	}
	defer func() { _ = sub.Unsubscribe() }()
	if c.nc.PublishRequest(subject, inbox, nil) != nil {
		return ""
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil { // nobody is there, or of other fabrics only
			return ""
		}
		var p micro.Ping
		if json.Unmarshal(m.Data, &p) == nil && p.Metadata["prefix"] == c.subjects.Prefix() && p.ID != "" {
			return p.ID
		}
	}
}
