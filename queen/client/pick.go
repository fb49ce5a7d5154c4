package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat/queen/api"
)

// PickRequest describes work that needs a place: a worker with free slots, or a GPU with
// free memory for another worker. The zero PickRequest is any worker with a free slot.
type PickRequest struct {
	// For is the kind of place: api.ForWorker or api.ForGPU. Default: api.ForWorker.
	For string
	// Model is a glob over the whole name of the model: * is any text, ? is one character,
	// and case counts. A worker must serve it. GPUs on hives that serve it come first.
	// Default: any model.
	Model string
	// N is how many places to pick, 1 to 100. Default: 1.
	N int
	// Slots is how many slots of a worker each place takes. Default: 1.
	Slots uint64
	// FreeSlots is how many slots of a worker must be free. Default: Slots.
	FreeSlots uint64
	// FreeVRAM is how many bytes must be free on one GPU. Default: 0.
	FreeVRAM uint64
	// GPUs is how many GPUs of one machine a place has, each with FreeVRAM, 1 to 64. A hold
	// is on all of them or on none. It is for api.ForGPU only. Default: 1.
	GPUs int
	// FreeDisk is how many bytes must be free on the file system of the machine's model
	// cache. Default: 0.
	FreeDisk uint64
	// Driver and Kernel are globs over the versions of the machine's GPU driver and kernel.
	// Default: any.
	Driver, Kernel string
	// Hive, Zone and Selector limit where places are picked: on one hive, in one zone, and
	// by labels, in the syntax of api.ParseSelector. A Hive that the queen does not know is
	// ErrNotFound. Default: anywhere.
	Hive, Zone, Selector string
	// MaxAge is the greatest age of the facts about a place. Default: the queen's limit of
	// freshness, 45 s.
	MaxAge time.Duration
	// MinUptime leaves out workers that began later than this ago. It is not for GPUs.
	// Default: 0.
	MinUptime time.Duration
	// Spread is how several places are spread: api.SpreadZone, api.SpreadHive or
	// api.SpreadNone. Default: api.SpreadZone.
	Spread string
}

func (r *PickRequest) request() api.Request {
	return api.Request{
		Hive: r.Hive, For: r.For, N: r.N, Slots: r.Slots, GPUs: r.GPUs, Spread: r.Spread, MinUptime: millis(r.MinUptime),
		Filter: api.Filter{
			Model: r.Model, Zone: r.Zone, Selector: r.Selector, FreeVRAM: r.FreeVRAM, FreeSlots: r.FreeSlots, MaxAge: millis(r.MaxAge),
			FreeDisk: r.FreeDisk, Driver: r.Driver, Kernel: r.Kernel,
		},
	}
}

// HoldRequest describes places to pick and to hold.
type HoldRequest struct {
	PickRequest
	// ID is the asker's own id for the hold, such as that of the job it is for. It must be
	// a valid id (hivebeat.CheckID). Required.
	ID string
	// Duration is how long the places are held from now on, 1 s to 10 min. Default: 30 s.
	Duration time.Duration
}

// Pick is the answer to a PickRequest or a HoldRequest.
type Pick struct {
	// Places are the best first, each with its reasons. There may be fewer than N; without
	// an error there is at least one.
	Places []api.Pick
	// Passed counts the candidates that did not fit, by reason. If enough fit, the
	// queen does not look at the rest.
	Passed map[string]int
	Status api.Status
}

// Released lists what Release gave back.
type Released struct {
	Places []api.Hold
	Status api.Status
}

// Pick returns the best places for work. A worker is picked only if it is alive, ready or
// busy, and its facts are fresh. If no place fits, the error is ErrNothingFits, and Passed
// says why. Pick reserves nothing, so two callers may be given the same place; Hold
// prevents that.
func (c *Client) Pick(ctx context.Context, r PickRequest) (Pick, error) {
	return c.pick(ctx, api.VerbPick, r.request())
}

// Hold picks as Pick does, and holds the places under r.ID for r.Duration: no queen gives
// them to another asker. A second call with the same ID returns the same places and holds
// them for longer, so that it is safe to repeat a Hold that had no answer. The hold
// belongs to this client's asker; no other asker can renew or release it.
//
// Hold is ErrUnavailable while the queen cannot write to JetStream.
func (c *Client) Hold(ctx context.Context, r HoldRequest) (Pick, error) {
	req := r.request()
	req.Hold, req.HoldMS = r.ID, millis(r.Duration)
	return c.pick(ctx, api.VerbHold, req)
}

func (c *Client) pick(ctx context.Context, verb string, r api.Request) (Pick, error) {
	a, err := c.Ask(ctx, verb, r)
	if a == nil {
		return Pick{}, err
	}
	a.Whole(verb) // older queens may leave out empty lists
	p := Pick{Places: a.Picks, Passed: a.Passed, Status: a.Status}
	if err == nil && len(p.Places) == 0 {
		err = fmt.Errorf("client: %s: %w%s", verb, ErrNothingFits, passed(p.Passed))
	}
	return p, err
}

// passed describes, for people, what did not fit.
func passed(counts map[string]int) string {
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%d %s", counts[reason], reason))
	}
	if len(list) == 0 {
		return ""
	}
	return " (passed over: " + strings.Join(list, ", ") + ")"
}

// Release gives back all places of a hold of this client's asker. The hold of another
// asker is ErrNotFound. So is the client's own hold if its time is over, or if the client
// had to repeat the request and the first attempt has already released it.
func (c *Client) Release(ctx context.Context, id string) (Released, error) {
	a, err := c.Ask(ctx, api.VerbRelease, api.Request{Hold: id})
	if a == nil {
		return Released{}, err
	}
	return Released{Places: a.Holds, Status: a.Status}, err
}
