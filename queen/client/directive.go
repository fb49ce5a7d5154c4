package client

import (
	"context"
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Place is a hive, or one of its workers or GPUs.
type Place struct {
	Hive string // required
	// Worker or GPU is a worker of the hive, or the UUID of a GPU. Default: the hive itself.
	Worker, GPU string
}

// DrainRequest describes what to drain.
type DrainRequest struct {
	Place
	// Reason says why, in at most 256 bytes. It is shown wherever the place is. Default: none.
	Reason string
	// During is after what time the drain ends by itself, 1 s to 365 days. Default: 0, it
	// stays until Undrain.
	During time.Duration
}

// Drained is a drain that is in force, or that has ended.
type Drained struct {
	api.Directive
	Status api.Status
}

// Drain takes a hive, worker or GPU out of every pick, until Undrain or the time given. With a GPU, the workers that
// name it or hold memory of it are drained too. Work that goes on there, and holds, are not touched. The event drained
// follows, once. A drain of a place that is drained replaces the drain; if it is the same, nothing changes.
//
// A place that the queen does not know is ErrNotFound. Drain is ErrUnavailable while the queen cannot write to
// JetStream.
func (c *Client) Drain(ctx context.Context, r DrainRequest) (Drained, error) {
	return c.direct(ctx, api.VerbDrain, api.Request{Hive: r.Hive, Worker: r.Worker, GPU: r.GPU, Reason: r.Reason, During: millis(r.During)})
}

// Undrain ends a drain, and returns it. The event undrained follows. A place that is not drained itself is ErrNotFound:
// also a worker that is drained with its hive or a GPU, and a place whose drain the first attempt of a repeated request
// has ended.
func (c *Client) Undrain(ctx context.Context, p Place) (Drained, error) {
	return c.direct(ctx, api.VerbUndrain, api.Request{Hive: p.Hive, Worker: p.Worker, GPU: p.GPU})
}

// SilenceRequest describes what to silence.
type SilenceRequest struct {
	Place // a hive or a worker
	// Reason says why, in at most 256 bytes. It is shown wherever the place is. Default: none.
	Reason string
	// During is after what time the silence ends by itself, 1 s to 7 days. Required.
	During time.Duration
}

// Silenced is a silence that is in force, or that has ended.
type Silenced struct {
	api.Directive
	Status api.Status
}

// Silence lets deaths and faults of a hive, or of one worker, wake nobody for a time: their events are recorded and
// shown, marked as silenced, but no webhook delivers them, and no counter for alerts counts them. It replaces a silence
// that is there. Its errors are those of Drain.
func (c *Client) Silence(ctx context.Context, r SilenceRequest) (Silenced, error) {
	d, err := c.direct(ctx, api.VerbSilence, api.Request{Hive: r.Hive, Worker: r.Worker, GPU: r.GPU, Reason: r.Reason, During: millis(r.During)})
	return Silenced(d), err
}

// Unsilence ends a silence, and returns it. What is not silenced itself is ErrNotFound.
func (c *Client) Unsilence(ctx context.Context, p Place) (Silenced, error) {
	d, err := c.direct(ctx, api.VerbUnsilence, api.Request{Hive: p.Hive, Worker: p.Worker, GPU: p.GPU})
	return Silenced(d), err
}

func (c *Client) direct(ctx context.Context, verb string, r api.Request) (Drained, error) {
	a, err := c.Ask(ctx, verb, r)
	v, st, err := single(verb, a, err, func(a *api.Answer) []api.Directive { return pointed(a.Directive) })
	return Drained{v, st}, err
}
