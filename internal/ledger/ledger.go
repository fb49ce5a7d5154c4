package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Config says where and how to store. The zero Config stores one replica on disk.
type Config struct {
	// Subjects of the fabric. Its prefix also goes before the names of the buckets
	// and of the stream.
	Subjects hivebeat.Subjects
	// Replicas of the buckets and of the stream. Default 1.
	Replicas int
	// Storage of the buckets and of the stream. Default jetstream.FileStorage.
	Storage jetstream.StorageType
	// Placement of the buckets and of the stream in a cluster. nil leaves it to
	// the server.
	Placement *jetstream.Placement
	// EventsMax is the size of the stream of events, in bytes. JetStream reserves it.
	// Default 64 MiB.
	EventsMax int64
	// Domain of the JetStream to use, from a leaf node whose hub has one. Empty means the
	// JetStream of the connected server.
	Domain string
	// Timeout of one request to JetStream. Default 2 s.
	Timeout time.Duration
	// Logger gets Info and Warn records about streams and buckets that are created, lost
	// and created again. nil discards them.
	Logger *slog.Logger
}

// Defaults of Config.
const (
	DefaultEventsMax = 64 << 20
	defaultTimeout   = 2 * time.Second
)

func (c Config) withDefaults() Config {
	c.Replicas = cmp.Or(c.Replicas, 1)
	c.EventsMax = cmp.Or(c.EventsMax, DefaultEventsMax)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) validate() error {
	switch {
	case c.Replicas < 1 || c.Replicas > 5:
		return fmt.Errorf("ledger: Config.Replicas: %d is not 1 to 5", c.Replicas)
	case c.EventsMax < 1<<20:
		return fmt.Errorf("ledger: Config.EventsMax: %d is less than 1 MiB", c.EventsMax)
	case c.Timeout < 0:
		return fmt.Errorf("ledger: Config.Timeout: %v is negative", c.Timeout)
	case c.Storage != jetstream.FileStorage && c.Storage != jetstream.MemoryStorage:
		return fmt.Errorf("ledger: Config.Storage: %d is neither file nor memory", c.Storage)
	}
	return nil
}

// Ledger is the state of a queen that is stored in JetStream. It is safe for concurrent
// use. It needs no Close: it holds neither a subscription nor a goroutine.
type Ledger struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg Config
	api string // prefix of JetStream's API, with its dot
	pre string // goes before $KV if the API prefix is not the default

	seqs    sequences
	wrote   writes
	suspect chan struct{} // wakes Keep: something may be gone
	unacked [layouts]unacked

	// publish is js.PublishMsg; tests replace it with a fake.
	publish func(context.Context, *nats.Msg, ...jetstream.PublishOpt) (*jetstream.PubAck, error)

	mu      sync.Mutex
	ids     [layouts]time.Time // creation time of each stream of layout, as last seen by Open or Reopen
	renewed bool               // one of ids changed, and no Reopen has reported it yet
	keepers keepers            // as last seen by Open or Reopen
}

// Open creates the buckets and the stream, or checks those that exist. It never changes
// existing settings: if they differ, it returns an error that wraps ErrDiffers and names
// each difference. Other errors wrap ErrNoJetStream, ErrServerTooOld, ErrNoSpace or
// ErrAway. Any number of queens may call Open at the same moment.
//
// The Ledger borrows nc: it does not close it, and leaves its handlers alone.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Ledger, error) {
	l, err := newLedger(nc, cfg)
	if err != nil {
		return nil, err
	}
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	if _, err := l.Reopen(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// newLedger checks cfg. It sends nothing to NATS.
func newLedger(nc *nats.Conn, cfg Config) (*Ledger, error) {
	if nc == nil {
		return nil, errors.New("ledger: nc is nil")
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Ledger{nc: nc, cfg: cfg, api: jetstream.DefaultAPIPrefix, suspect: make(chan struct{}, 1)}
	opts := []jetstream.JetStreamOpt{jetstream.WithDefaultTimeout(cfg.Timeout)}
	var err error
	if cfg.Domain == "" {
		l.js, err = jetstream.New(nc, opts...)
	} else {
		l.js, err = jetstream.NewWithDomain(nc, cfg.Domain, opts...)
		l.api = "$JS." + cfg.Domain + ".API."
		l.pre = l.api
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l.publish = l.js.PublishMsg
	return l, nil
}

// minServer is the first nats-server with reliable expiry markers.
var minServer = [3]int{2, 11, 2}

// check verifies that JetStream has every feature that the buckets need.
func (l *Ledger) check(ctx context.Context) error {
	if !l.nc.IsConnected() {
		return fmt.Errorf("ledger: %w: not connected to NATS (%v)", ErrAway, l.nc.Status())
	}
	// A server before 2.11 refuses message TTLs with an obscure error. With a domain, the
	// server that answers is not the connected one, and only its API level is known.
	if v := l.nc.ConnectedServerVersion(); l.cfg.Domain == "" && tooOld(v) {
		return fmt.Errorf("ledger: %w: it is nats-server %s; per-message TTLs with markers need 2.11.2 or newer", ErrServerTooOld, v)
	}
	info, err := l.js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("ledger: %w: JetStream is not enabled for this account: %w", ErrNoJetStream, err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("ledger: %w: no server answers; start the server with JetStream (nats-server -js), or the queen with --no-jetstream; a server that stopped JetStream for lack of space needs free space and a restart: %w", ErrNoJetStream, err)
	case err != nil:
		return wrap(ctx, "account info", err)
	case info.API.Level < 1:
		return fmt.Errorf("ledger: %w: its JetStream API level is %d; per-message TTLs need level 1 (nats-server 2.11.2 or newer)", ErrServerTooOld, info.API.Level)
	}
	return nil
}

// tooOld reports whether a version such as 2.11.1 or 2.12.0-RC.1 is below minServer. A
// version that cannot be parsed counts as new: the API level decides in that case.
func tooOld(version string) bool {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	var v [3]int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2]); n < 2 {
		return false
	}
	for i := range v {
		if v[i] != minServer[i] {
			return v[i] < minServer[i]
		}
	}
	return false
}
