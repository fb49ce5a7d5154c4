package client

import (
	"context"
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Summary counts the fleet.
type Summary struct {
	api.Summary
	Status api.Status `json:"status"`
}

// Hive is one hive: its verdict, its machine and its GPUs.
type Hive struct {
	api.HiveInfo
	Status api.Status `json:"status"`
}

// Worker is one worker: its verdict and its last report.
type Worker struct {
	api.WorkerInfo
	Status api.Status `json:"status"`
}

// History holds figures over time.
type History struct {
	api.History
	Status api.Status `json:"status"`
}

// Summary returns the counts of the fleet.
func (c *Client) Summary(ctx context.Context) (Summary, error) {
	a, err := c.Ask(ctx, api.VerbSummary, api.Request{})
	v, st, err := single(api.VerbSummary, a, err, func(a *api.Answer) []api.Summary { return pointed(a.Summary) })
	return Summary{v, st}, err
}

// Hive returns one hive. A hive that the queen does not know is ErrNotFound.
func (c *Client) Hive(ctx context.Context, hive string) (Hive, error) {
	a, err := c.Ask(ctx, api.VerbHive, api.Request{Hive: hive})
	v, st, err := single(api.VerbHive, a, err, hivesOf)
	return Hive{v, st}, err
}

// Worker returns one worker. A worker that the queen does not know is ErrNotFound.
func (c *Client) Worker(ctx context.Context, hive, worker string) (Worker, error) {
	a, err := c.Ask(ctx, api.VerbWorker, api.Request{Hive: hive, Worker: worker})
	v, st, err := single(api.VerbWorker, a, err, workersOf)
	return Worker{v, st}, err
}

// History returns figures over time for one hive, or for the fleet if hive is empty. They
// reach back for the duration since, which is at most 24 h for the fleet and 6 h for a
// hive; 0 is the maximum. The queen has no figures from before its own start. A hive that
// the queen does not know is ErrNotFound.
func (c *Client) History(ctx context.Context, hive string, since time.Duration) (History, error) {
	a, err := c.Ask(ctx, api.VerbHistory, api.Request{Hive: hive, Since: millis(since)})
	v, st, err := single(api.VerbHistory, a, err, func(a *api.Answer) []api.History { return pointed(a.History) })
	return History{v, st}, err
}

// Forgot is a GPU that a hive was asked to forget.
type Forgot struct {
	api.GPUFault
	Status api.Status
}

// Forget asks a hive to forget a GPU that is gone, or that must be replaced, by its UUID. The
// hive removes it soon after, and makes the event gpu-forgotten; a GPU that is there is
// known again after the next reading. Any other GPU is ErrBadRequest, one that is not
// known ErrNotFound. A call that had no answer may be repeated.
func (c *Client) Forget(ctx context.Context, hive, gpu string) (Forgot, error) {
	a, err := c.Ask(ctx, api.VerbForget, api.Request{Hive: hive, GPU: gpu})
	v, st, err := single(api.VerbForget, a, err, func(a *api.Answer) []api.GPUFault { return pointed(a.Forgot) })
	return Forgot{v, st}, err
}

// ForgetHive removes a hive that is lost or left, with its workers and what is in force on it, and returns it as it was
// last shown. All queens forget it, and the event forgotten follows. If it returns, it has joined. A hive that is
// there, or has a worker that is alive, is ErrBadRequest; one that the queen does not know, also because the first
// attempt of a repeated call has removed it, is ErrNotFound. It is ErrUnavailable while the queen cannot write to JetStream.
func (c *Client) ForgetHive(ctx context.Context, hive string) (Hive, error) {
	a, err := c.Ask(ctx, api.VerbForget, api.Request{Hive: hive})
	v, st, err := single(api.VerbForget, a, err, hivesOf)
	return Hive{v, st}, err
}

// single returns the only value of an answer, and the answer's status. An answer without
// exactly one value is ErrUnreadable.
func single[T any](verb string, a *api.Answer, err error, values func(*api.Answer) []T) (v T, st api.Status, _ error) {
	if a != nil {
		st = a.Status
	}
	if err != nil {
		return v, st, err
	}
	all := values(a)
	if len(all) != 1 {
		return v, st, fmt.Errorf("client: %s: %w: it holds %d values instead of 1", verb, ErrUnreadable, len(all))
	}
	return all[0], st, nil
}

// pointed returns the value that v points to, if there is one.
func pointed[T any](v *T) []T {
	if v == nil {
		return nil
	}
	return []T{*v}
}

func hivesOf(a *api.Answer) []api.HiveInfo     { return a.Hives }
func workersOf(a *api.Answer) []api.WorkerInfo { return a.Workers }
func gpusOf(a *api.Answer) []api.GPUInfo       { return a.GPUs }
func modelsOf(a *api.Answer) []api.ModelInfo   { return a.Models }
func eventsOf(a *api.Answer) []api.Happened    { return a.Events }
func holdsOf(a *api.Answer) []api.Hold         { return a.Holds }
