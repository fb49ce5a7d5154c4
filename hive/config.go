package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// Config says which hive this is. The zero Config is the hive of this machine,
// named like it.
type Config struct {
	// ID is the hive's id: workers name it in their beats. Default: DefaultID.
	ID string
	// Prefix stands before all subjects, in a NATS that is shared. Default: none.
	Prefix string
	// Every is the promise: the next snapshot comes within it. From
	// hivebeat.MinEvery to hivebeat.MaxEvery; default hivebeat.HiveEvery (15 s).
	Every time.Duration
	// Labels are free, and go out with every snapshot; "zone" is the one that the
	// queen knows. New takes a copy.
	Labels map[string]string
	// Pinned sends snapshots to the hive's own subject, for permissions that allow
	// each hive that one only.
	Pinned bool
	// PushFacts sends an extra snapshot when facts of workers changed (VRAM, slots,
	// load, ready and busy), at most one in this time, for schedulers that can not
	// wait for the next one. At least 1 s; 0 is off, which is the default.
	PushFacts time.Duration
	// StallAfter is how long a worker may be busy without finishing anything before
	// it is told as stalled, which is no verdict. The label "stall_after" of a worker
	// (a Go duration) is its own limit. At least 1 s; 0 is never, which is the
	// default.
	StallAfter time.Duration
	// NoExitWatch leaves the processes of workers alone. Without it, a worker that
	// runs in the pid namespace of the hive is lost (cause exit) when its process
	// ends, on Linux within milliseconds and elsewhere within a second. The processes
	// of other namespaces are never watched.
	NoExitWatch bool
	// System is a connection to the system account of the NATS that the workers use.
	// With it the hive hears which connections close, and a worker whose closed and
	// who does not come back within 5 s, or 2 s if its reconnect wait is at most
	// 500 ms, is lost (cause disconnect), wherever its process runs. It is borrowed
	// like the other one, and need not be connected yet. Without it, or if it hears
	// nothing, silence and the ends of processes remain. Default: none.
	System *nats.Conn
	// Own is the id of the NATS server that runs in this process, if one does. It fails
	// with the process alone, so that however many of its connections close at once each
	// is believed. Default: none.
	Own string
	// Host reads the facts of the machine, GPUs those of its GPUs. Each is called
	// every 10 s on a goroutine of its own, with a context that ends after 5 s, and
	// never while a call before has not returned; no snapshot waits for it. An
	// error is told in the snapshot's collect, and the facts read before stay. GPUs
	// returns an empty list where there are none. Default: gopsutil and nvidia-smi.
	// The processes of workers are read in the same way, always by gopsutil.
	Host func(context.Context) (hivebeat.Host, error)
	GPUs func(context.Context) ([]hivebeat.GPU, error)
	// Logger gets Info for each transition, Warn where a person should look, Debug
	// for each beat. Default: nothing is logged.
	Logger *slog.Logger

	readProcess func(ctx context.Context, pid uint64) (reading, error) // of tests; nil: by gopsutil
}

// minPush is the pace of facts, which bus.Pulse does not exceed.
const minPush = time.Second

// minStall is the pace of facts: a worker that finishes something says so within it.
const minStall = time.Second

func (c Config) withDefaults() (Config, error) {
	if c.ID == "" {
		id, err := DefaultID()
		if err != nil {
			return c, fmt.Errorf("hive: Config.ID: %w", err)
		}
		c.ID = id
	}
	if c.Every == 0 {
		c.Every = hivebeat.HiveEvery
	}
	if c.readProcess == nil {
		c.readProcess = readProcess
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func (c Config) validate() error {
	if err := hivebeat.CheckID("hive", c.ID); err != nil {
		return fmt.Errorf("hive: Config.ID: %w", err)
	}
	if c.Every < hivebeat.MinEvery || c.Every > hivebeat.MaxEvery {
		return fmt.Errorf("hive: Config.Every: %s is not within %s and %s", c.Every, hivebeat.MinEvery, hivebeat.MaxEvery)
	}
	if c.PushFacts != 0 && (c.PushFacts < minPush || c.PushFacts > hivebeat.MaxEvery) {
		return fmt.Errorf("hive: Config.PushFacts: %s is neither 0 nor within %s and %s", c.PushFacts, minPush, hivebeat.MaxEvery)
	}
	if c.StallAfter != 0 && c.StallAfter < minStall {
		return fmt.Errorf("hive: Config.StallAfter: %s is neither 0 nor at least %s", c.StallAfter, minStall)
	}
	if len(c.Labels) > hivebeat.MaxLabels {
		return fmt.Errorf("hive: Config.Labels: %d, at most %d are allowed", len(c.Labels), hivebeat.MaxLabels)
	}
	for k, v := range c.Labels {
		switch {
		case k == "" || len(k) > hivebeat.MaxLabelKey || !utf8.ValidString(k):
			return fmt.Errorf("hive: Config.Labels: key %.80q is not 1 to %d bytes of UTF-8", k, hivebeat.MaxLabelKey)
		case len(v) > hivebeat.MaxLabelVal || !utf8.ValidString(v):
			return fmt.Errorf("hive: Config.Labels: value %.160q of %s is not at most %d bytes of UTF-8", v, k, hivebeat.MaxLabelVal)
		}
	}
	return nil
}

// ErrNoDefaultID: the machine's host name can not be a hive's id. The error says
// why, and what to do.
var ErrNoDefaultID = errors.New("no default id")

// DefaultID returns the host name of this machine, if that can be a hive's id. An
// error wraps ErrNoDefaultID.
func DefaultID() (string, error) {
	name, err := os.Hostname()
	return defaultID(name, err)
}

func defaultID(name string, err error) (string, error) {
	const hint = "choose an id that no other machine has (--id)"
	first, _, _ := strings.Cut(name, ".")
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: the host name is not known: %w; %s", ErrNoDefaultID, err, hint)
	case strings.EqualFold(first, "localhost"):
		return "", fmt.Errorf("%w: the host name is %q, as on many machines; %s", ErrNoDefaultID, name, hint)
	case first != name && hivebeat.ValidID(first):
		return "", fmt.Errorf("%w: the host name %q is not an id, which has no dot; %s, such as %s", ErrNoDefaultID, name, hint, first)
	case !hivebeat.ValidID(name):
		return "", fmt.Errorf("%w: %w; %s", ErrNoDefaultID, hivebeat.CheckID("host name", name), hint)
	}
	return name, nil
}
