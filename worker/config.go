package worker

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Config says for whom a Worker beats. Hive and ID are required; what is left out
// has the default written at its field.
type Config struct {
	// Hive is the id of the hive of this machine, ID that of the worker, unique
	// within the hive: each 1 to 64 of A-Z a-z 0-9 _ -.
	Hive, ID string
	// Prefix goes before all subjects, in a NATS that is shared. Default: none.
	Prefix string
	// Pinned beats on hive.<hive>.workers.<id> instead of hive.<hive>.workers, for
	// a NATS whose permissions bind each worker to a subject of its own.
	Pinned bool
	// Every is the promise: the next beat comes within it, after a random 0.85 to
	// 0.95 of it. From 100 ms to 1 h, in whole milliseconds. Default 30 s.
	// A worker is late after 1.5 × Every without a beat, and lost after 3 ×.
	Every time.Duration
	// State is the first one. Default ready; a worker that still has to load its
	// model begins with loading. Not stopped or failed.
	State hivebeat.State
	// Model and Endpoint say what the worker serves, and where.
	Model, Endpoint string
	// GPUs are the UUIDs of those it uses.
	GPUs []string
	// Slots is how many requests it can serve at once.
	Slots uint64
	// Labels are free.
	Labels map[string]string
	// Facts, if set, is asked for the facts of every beat, so that a program can
	// keep its counters where it likes. Its numbers but Slots are taken as they
	// are; Slots, texts, GPUs, Labels and Data that it leaves empty stay as they were
	// configured or updated. It is called in a goroutine of its own, one call at a
	// time. A beat waits 20 ms for it and then goes out with what was known before;
	// one that panics, or returns what no beat may hold, is counted and changes
	// nothing. Nobody may write to the maps and slices it returns until it is called
	// again. A call that lasts when Stop is called is not waited for.
	Facts func() Facts
	// Logger gets Info for the first beat and for a change of state, Warn where a
	// person should look, and Debug for every beat. Default: nothing is logged.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Every == 0 {
		c.Every = hivebeat.WorkerEvery
	}
	if c.State == "" {
		c.State = hivebeat.Ready
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) facts() Facts {
	return Facts{Model: c.Model, Endpoint: c.Endpoint, GPUs: c.GPUs, Slots: c.Slots, Labels: c.Labels}
}

// validate names the field at fault.
func (c Config) validate() error {
	if err := hivebeat.CheckID("hive", c.Hive); err != nil {
		return fmt.Errorf("worker: Config.Hive: %w", err)
	}
	if err := hivebeat.CheckID("worker", c.ID); err != nil {
		return fmt.Errorf("worker: Config.ID: %w", err)
	}
	if c.Every < hivebeat.MinEvery || c.Every > hivebeat.MaxEvery {
		return fmt.Errorf("worker: Config.Every: %s is not within %s and %s", c.Every, hivebeat.MinEvery, hivebeat.MaxEvery)
	}
	if err := checkState(c.State); err != nil {
		return fmt.Errorf("worker: Config.State: %w", err)
	}
	facts := c.facts()
	if err := facts.check(); err != nil {
		return fmt.Errorf("worker: Config.%w", err)
	}
	return nil
}
