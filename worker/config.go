package worker

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Config describes the worker to beat for. Hive and ID are required; every other field
// has the default that its comment states.
type Config struct {
	// Hive is the id of the hive of this machine. ID is the id of the worker, unique
	// within the hive. Each is 1 to 64 of A-Z a-z 0-9 _ -.
	Hive, ID string
	// Prefix goes before all subjects, in a shared NATS. Default: none.
	Prefix string
	// Pinned makes the worker beat on hive.<hive>.workers.<id> instead of
	// hive.<hive>.workers, for a NATS whose permissions bind each worker to its own
	// subject.
	Pinned bool
	// Every is the promise: the next beat comes within it, after a random 0.85–0.95 ×
	// Every. From 100 ms to 1 h, in whole milliseconds. Default 30 s. A worker is late
	// after 1.5 × Every without a beat, and lost after 3 × Every.
	Every time.Duration
	// State is the initial state. Default ready; a worker that still has to load its
	// model starts with loading. stopped and failed are invalid.
	State hivebeat.State
	// Model and Endpoint are the model that the worker serves, and where it serves it.
	Model, Endpoint string
	// GPUs are the UUIDs of the GPUs that it uses.
	GPUs []string
	// Slots is how many requests it can serve at once.
	Slots uint64
	// Need is how many bytes of GPU memory it will hold once it has loaded, on all of GPUs
	// together. While its state is starting or loading, what it does not hold of that yet is
	// offered to no other worker. Default 0: nothing is announced.
	Need uint64
	// Labels are free-form.
	Labels map[string]string
	// Facts, if set, returns the facts for every beat, so that a program can keep its
	// counters where it likes. Its numbers except Slots and Need are used as they are. Slots,
	// Need, texts, GPUs, Labels and Data that it leaves empty keep their configured or
	// updated values.
	//
	// Facts is called on a separate goroutine, one call at a time. A beat waits 20 ms
	// for it and is then sent with the facts known before. A call that panics, or
	// returns facts that no beat may hold, is counted and changes nothing. The program
	// must not write to the returned maps and slices until the next call. Stop does not
	// wait for a call in progress.
	Facts func() Facts
	// Logger receives Info for the first beat and for a change of state, Warn where a
	// person should look, and Debug for every beat. Default: nothing is logged.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Every = cmp.Or(c.Every, hivebeat.WorkerEvery)
	c.State = cmp.Or(c.State, hivebeat.Ready)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) facts() Facts {
	return Facts{Model: c.Model, Endpoint: c.Endpoint, GPUs: c.GPUs, Slots: c.Slots, Need: c.Need, Labels: c.Labels}
}

// validate returns an error that names the field at fault.
func (c Config) validate() error {
	if err := hivebeat.CheckID("hive", c.Hive); err != nil {
		return fmt.Errorf("worker: Config.Hive: %w", err)
	}
	if err := hivebeat.CheckID("worker", c.ID); err != nil {
		return fmt.Errorf("worker: Config.ID: %w", err)
	}
	if c.Every < hivebeat.MinEvery || c.Every > hivebeat.MaxEvery {
		return fmt.Errorf("worker: Config.Every: %s is not between %s and %s", c.Every, hivebeat.MinEvery, hivebeat.MaxEvery)
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
