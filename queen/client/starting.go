package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/micro"
)

const (
	pingWithin = 500 * time.Millisecond // a starting queen answers a ping at once
	minKnock   = 50 * time.Millisecond  // between two requests to a starting queen, at first
	maxKnock   = 500 * time.Millisecond
)

// StartingError reports a queen that is present but answered nothing within
// Config.Timeout: it has just started and must hear its hives first. It wraps
// ErrNoQueen.
type StartingError struct {
	Queen string // its id
}

func (e *StartingError) Error() string {
	return "queen " + e.Queen + " has just started and does not answer yet"
}

// Unwrap returns ErrNoQueen.
func (*StartingError) Unwrap() error { return ErrNoQueen }

// starting returns the id of a queen of this prefix that answers a ping, warm or not.
// It returns "" if none does in time, or if the client has no permission to ping.
func (c *Client) starting(ctx context.Context, within time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	subject, err := micro.ControlSubject(micro.PingVerb, "queen", "")
	if err != nil {
		return ""
	}
	inbox := c.nc.NewInbox()
	answers, done, err := c.receive(inbox)
	if err != nil {
		return ""
	}
	defer done()
	if c.nc.PublishRequest(subject, inbox, nil) != nil {
		return ""
	}
	for {
		open := 1
		m, err := next(ctx, answers, within, &open)
		if err != nil { // no queen is present, or only queens of other fabrics
			return ""
		}
		var p micro.Ping
		if json.Unmarshal(m.Data, &p) == nil && p.Metadata["prefix"] == c.subjects.Prefix() && p.ID != "" {
			return p.ID
		}
	}
}
