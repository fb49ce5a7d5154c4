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
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/proctree"
)

// Config configures a Hive. The zero Config is the hive of this machine, with its host
// name as the id.
type Config struct {
	// ID is the hive's id: workers name it in their beats. Default: DefaultID.
	ID string
	// Prefix is prepended to all subjects, for a shared NATS. Default: none.
	Prefix string
	// Every is the interval that the hive promises: the next snapshot follows within
	// it. From hivebeat.MinEvery to hivebeat.MaxEvery. Default: hivebeat.HiveEvery
	// (15 s).
	Every time.Duration
	// Labels are free-form and part of every snapshot. The queen interprets only
	// "zone". New takes a copy.
	Labels map[string]string
	// Pinned publishes snapshots on the hive's own subject, for permissions that allow
	// each hive only that one.
	Pinned bool
	// PushFacts sends an extra snapshot when facts of workers change (VRAM, slots,
	// load, ready and busy), at most one per PushFacts, for schedulers that cannot wait
	// for the next regular one. At least 1 s. Default: 0, which is off.
	PushFacts time.Duration
	// StallAfter is how long a worker may be busy without finishing anything before the
	// hive reports it as stalled, which is not a verdict. A worker overrides it with
	// its label "stall_after" (a Go duration). At least 1 s. Default: 0, which is
	// never.
	StallAfter time.Duration
	// NoExitWatch leaves the processes of workers unwatched. Without it, a worker in
	// the hive's pid namespace is lost (cause exit) when its process ends: on Linux
	// within milliseconds, elsewhere within a second. Processes of other namespaces are
	// never watched.
	NoExitWatch bool
	// System is a connection to the system account of the NATS that the workers use. It
	// reports to the hive which connections close. A worker whose connection closed is
	// lost (cause disconnect), wherever its process runs, if it does not come back
	// within 5 s, or 2 s if its reconnect wait is at most 500 ms. The hive borrows
	// System like the main connection, and it need not be connected yet. Without it, or
	// while it delivers nothing, a worker is lost only by silence or by the end of its
	// process. Default: none.
	System *nats.Conn
	// Own is the id of the NATS server that runs in this process, if one does. That
	// server fails only with the process. So the hive believes each of its closed
	// connections, however many close at once. Default: none.
	Own string
	// CacheDir is the directory of the model cache. A snapshot has the size of its file
	// system, or of that of its nearest parent that exists, and what an unprivileged
	// process may still write. It is read every 10 s on a goroutine of its own. Default:
	// DefaultCacheDir.
	CacheDir string
	// StoreDir is the directory of a store whose file system is reported likewise, such
	// as that of a NATS server on this machine. Default: none.
	StoreDir string
	// Host reads the facts of the machine, GPUs those of its GPUs. Each is called every
	// 10 s on a separate goroutine, with a context that ends after 5 s (GPUs: after
	// GPULimit), never before the previous call has returned, and no sooner than that
	// call took. No snapshot waits for it. An error is reported in the snapshot's
	// collect, and the previous facts stay. GPUs returns an empty list where there are
	// none; a GPU that was in its list and no longer is has gone. A GPU may have a State
	// other than ok, with Cause, Evidence and Action. Default: gopsutil, and the drivers
	// of the machine. The processes of workers are read in the same way: from /proc on
	// Linux, elsewhere with gopsutil. With a Host, CacheDir and StoreDir are not read: it
	// reports the sizes itself.
	Host func(context.Context) (hivebeat.Host, error)
	GPUs func(context.Context) ([]hivebeat.GPU, error)
	// GPUsExpected is how many GPUs the machine has. If fewer answer, the snapshot's
	// collect says so, even if no hive ever saw the others. From 0 to hivebeat.MaxGPUs.
	// Default: 0, which is unknown.
	GPUsExpected int
	// GPULimit bounds one reading of the GPUs. It may take long: without persistence mode,
	// a driver takes a second or more for each GPU. From 1 s to 10 min. Default: 30 s.
	GPULimit time.Duration
	// FaultTable is the content of a file whose rules replace some of those that say what an
	// XID, a memory error or throttling means. Each line is a fact, its meaning, an action and
	// words, such as "xid 79 failing reboot fell off the bus". It has no effect with GPUs.
	// Default: empty, which changes no rule.
	FaultTable []byte
	// VRAMBudget is the most GPU memory, in bytes, that the workers of this hive may hold
	// together. Queens offer no more. Default: 0, which is no limit.
	VRAMBudget uint64
	// Logger gets Info for each transition, Warn where a person should act, and Debug
	// for each beat. Default: nothing is logged.
	Logger *slog.Logger

	processes processes                                            // for tests; nil: those of this machine
	readers   []gpu.Reader                                         // for tests; nil: newReaders
	owners    func() gpu.OwnerOf                                   // for tests; nil: the hive's own table of processes
	readSpace func(ctx context.Context, dir string) (space, error) // for tests; nil: gopsutil
}

// defaultGPULimit is the default of Config.GPULimit.
const defaultGPULimit = 30 * time.Second

// minPush is the pace of facts: bus.Pulse sends them no faster.
const minPush = time.Second

// minStall is the pace of facts: a worker reports finished work no faster.
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
	if c.GPULimit == 0 {
		c.GPULimit = defaultGPULimit
	}
	if c.CacheDir == "" {
		c.CacheDir = DefaultCacheDir()
	}
	if c.processes == nil {
		c.processes = proctree.NewReader()
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
		return fmt.Errorf("hive: Config.Every: %s is not between %s and %s", c.Every, hivebeat.MinEvery, hivebeat.MaxEvery)
	}
	if c.PushFacts != 0 && (c.PushFacts < minPush || c.PushFacts > hivebeat.MaxEvery) {
		return fmt.Errorf("hive: Config.PushFacts: %s must be 0, or between %s and %s", c.PushFacts, minPush, hivebeat.MaxEvery)
	}
	if c.StallAfter != 0 && c.StallAfter < minStall {
		return fmt.Errorf("hive: Config.StallAfter: %s must be 0, or at least %s", c.StallAfter, minStall)
	}
	if c.GPUsExpected < 0 || c.GPUsExpected > hivebeat.MaxGPUs {
		return fmt.Errorf("hive: Config.GPUsExpected: %d is not between 0 and %d", c.GPUsExpected, hivebeat.MaxGPUs)
	}
	if c.GPULimit < time.Second || c.GPULimit > 10*time.Minute {
		return fmt.Errorf("hive: Config.GPULimit: %s is not between 1s and 10m", c.GPULimit)
	}
	if c.VRAMBudget > hivebeat.MaxInt {
		return fmt.Errorf("hive: Config.VRAMBudget: %d is above 2^53 - 1", c.VRAMBudget)
	}
	if len(c.Labels) > hivebeat.MaxLabels {
		return fmt.Errorf("hive: Config.Labels: %d labels; at most %d are allowed", len(c.Labels), hivebeat.MaxLabels)
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

// ErrNoDefaultID says that the machine's host name cannot be a hive's id. The error
// that wraps it says why, and what to do.
var ErrNoDefaultID = errors.New("no default id")

// DefaultID returns the host name of this machine if it is a valid hive id. Any error
// wraps ErrNoDefaultID.
func DefaultID() (string, error) {
	name, err := os.Hostname()
	return defaultID(name, err)
}

func defaultID(name string, err error) (string, error) {
	const hint = "choose an id that no other machine has, with --id"
	first, _, _ := strings.Cut(name, ".")
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: the host name is unknown: %w; %s", ErrNoDefaultID, err, hint)
	case strings.EqualFold(first, "localhost"):
		return "", fmt.Errorf("%w: the host name is %q, as on many machines; %s", ErrNoDefaultID, name, hint)
	case first != name && hivebeat.ValidID(first):
		return "", fmt.Errorf("%w: the host name %q is not an id: an id has no dot; %s, such as %s", ErrNoDefaultID, name, hint, first)
	case !hivebeat.ValidID(name):
		return "", fmt.Errorf("%w: %w; %s", ErrNoDefaultID, hivebeat.CheckID("host name", name), hint)
	}
	return name, nil
}
