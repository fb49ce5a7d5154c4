// Package queen builds a view of the whole fleet from the snapshots of its hives and
// reaches the verdicts on hives. It keeps both in JetStream for others to read.
// Together with any number of other queens it announces every transition exactly once.
// It answers queries about the fleet.
//
// The view is in memory. It needs only the snapshots, and keeps working while JetStream
// is away. docs/PROTOCOL.md is normative for everything that other programs see.
package queen

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/inbox"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/queencore"
	"github.com/beatfabric/hivebeat/internal/query"
)

// Config configures a queen. The zero Config is usable.
type Config struct {
	// ID identifies this queen in answers and in its log. Default: a random one.
	ID string
	// Prefix of all subjects, buckets and the stream. Default: none.
	Prefix string
	// InboxPrefixes are the inbox prefixes of clients that set their own with
	// nats.CustomInboxPrefix. A queen replies only to inboxes: to subjects below _INBOX.
	// and below these. Default: none.
	InboxPrefixes []string
	// Fresh is the age up to which a worker's record may be shown as alive and a hive's
	// facts may be used. Default: hivebeat.Fresh, 45 s.
	Fresh time.Duration
	// NoJetStream makes the queen store nothing: each queen publishes events straight to
	// their subjects, and a queen that starts knows no hives. Default: false.
	NoJetStream bool
	// Replicas of the buckets and the stream. Default: 1.
	Replicas int
	// Storage of the buckets and the stream. Default: jetstream.FileStorage.
	Storage jetstream.StorageType
	// Placement of the buckets and the stream in a cluster. Default: the server's choice.
	Placement *jetstream.Placement
	// EventsMax is the size of the event stream in bytes, which JetStream reserves.
	// Default: 64 MiB.
	EventsMax int64
	// BrakeOff makes the queen believe every silence, however many hives of a zone it
	// would declare lost at once. Default: false, the queen holds a mass death as
	// unverified first; see docs/PROTOCOL.md.
	BrakeOff bool
	// BrakeShare is the share of a zone's hives, above 0 and up to 1, that may be lost by
	// silence within 10 s without the brake. Default: 0.3. Up to 3 hives may always be
	// lost.
	BrakeShare float64
	// Pending is how many snapshots may wait for this queen before NATS drops the newest.
	// Default: 4096.
	Pending int
	// System is a connection to the NATS system account. It lets the queen hear which
	// connections close ($SYS.ACCOUNT.*.DISCONNECT): a hive whose connection closes and that
	// does not come back within seconds is lost. The connection is borrowed, as nc is.
	// Default: nil, silence alone decides.
	System *nats.Conn
	// Own is the id of the NATS server that runs in this process, if there is one. That
	// server fails only together with the process, so the queen believes each of its
	// closed connections, however many close at once. Default: none.
	Own string
	// Logger receives the transitions of hives, and failures. Default: nil, which discards
	// them.
	Logger *slog.Logger
}

const (
	defaultPending = 4096
	lastWords      = 2 * time.Second // how long a stopping queen keeps publishing waiting events
)

func (c Config) withDefaults() Config {
	c.ID = cmp.Or(c.ID, "queen-"+strings.ToLower(crand.Text()[:10]))
	c.Fresh = cmp.Or(c.Fresh, hivebeat.Fresh)
	c.Pending = cmp.Or(c.Pending, defaultPending)
	c.Replicas = cmp.Or(c.Replicas, 1)
	c.BrakeShare = cmp.Or(c.BrakeShare, fleet.BrakeShare)
	c.EventsMax = cmp.Or(c.EventsMax, ledger.DefaultEventsMax)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) validate() error {
	if err := hivebeat.CheckID("queen", c.ID); err != nil {
		return fmt.Errorf("queen: Config.ID: %w", err)
	}
	switch {
	case c.Fresh < 0:
		return fmt.Errorf("queen: Config.Fresh: %v is negative", c.Fresh)
	case !(c.BrakeShare > 0 && c.BrakeShare <= 1): // NaN is refused too
		return fmt.Errorf("queen: Config.BrakeShare: %v is not above 0 and at most 1", c.BrakeShare)
	case c.Pending < 0:
		return fmt.Errorf("queen: Config.Pending: %d is negative", c.Pending)
	case c.Replicas < 1 || c.Replicas > 5:
		return fmt.Errorf("queen: Config.Replicas: %d is not 1 to 5", c.Replicas)
	case c.EventsMax < 1<<20:
		return fmt.Errorf("queen: Config.EventsMax: %d is less than 1 MiB", c.EventsMax)
	}
	return nil
}

// Queen is one queen. Any number of queens may run in one fabric. Its methods are safe
// for concurrent use.
type Queen struct {
	cfg      Config
	nc       *nats.Conn
	subjects hivebeat.Subjects
	inboxes  inbox.Allowed // it replies only to these
	log      *slog.Logger

	msgs  chan *nats.Msg
	calls chan func(now time.Time) // run by the loop, which owns all fields below
	wg    sync.WaitGroup           // goroutines that Run has started

	mu       sync.Mutex
	acting   map[query.HoldID]chan struct{} // holds with a request under way; closed when that is answered
	begun    bool
	stopping chan struct{} // closed by Stop
	once     sync.Once
	looping  atomic.Bool
	ended    chan struct{} // closed when the loop takes no more calls
	done     chan struct{} // closed when Run returns

	core    *queencore.Core
	view    *fleet.View // owned by core
	link    *link.Link
	began   time.Time
	subs    []*nats.Subscription
	dropped int // messages, as of the last count
	wake    time.Time
	timer   *time.Timer
	kept    time.Time // when the loop last did its housekeeping
	fatal   error     // ends Run

	adopted adoptedBeats
	store   store
	service *service

	events  query.Events
	holds   query.Holds
	history query.History
	gpus    gpuKeeper

	directives directives

	follows follower
	changed chan struct{} // closed at the next change of the view; nil when no watcher waits
	revTold uint64
	leaving chan struct{} // closed when the queen begins to leave

	long     chan struct{} // holds a value while a request takes many steps
	watchers chan struct{} // one value for each waiting watcher
	reads    chan struct{} // one value for each read of the event stream under way
}

// New returns a queen that works on nc. The connection is borrowed: the queen never
// closes it and leaves its handlers alone. Errors name the field of cfg at fault.
func New(nc *nats.Conn, cfg Config) (*Queen, error) {
	if nc == nil {
		return nil, errors.New("queen: nc is nil")
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	subjects, err := hivebeat.NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("queen: Config.Prefix: %w", err)
	}
	inboxes, err := inbox.New(subjects, cfg.InboxPrefixes...)
	if err != nil {
		return nil, fmt.Errorf("queen: Config.InboxPrefixes: %w", err)
	}
	q := &Queen{
		cfg: cfg, nc: nc, subjects: subjects, inboxes: inboxes, log: cfg.Logger.With(slog.String("queen", cfg.ID)),
		msgs:     make(chan *nats.Msg, cfg.Pending),
		adopted:  adoptedBeats{beats: make(chan *nats.Msg, core.PendingBeats), subs: make(map[string][]*nats.Subscription)},
		calls:    make(chan func(time.Time)),
		stopping: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{}),
		gpus: newGPUKeeper(), directives: newDirectives(), acting: make(map[query.HoldID]chan struct{}), began: time.Now(), leaving: make(chan struct{}),
	}
	q.core = queencore.New(queencore.Config{
		ID: cfg.ID, Subjects: subjects, Fresh: cfg.Fresh, NoJetStream: cfg.NoJetStream, Replicas: cfg.Replicas, EventsMax: cfg.EventsMax, Own: cfg.Own, Random: rand.Float64,
		Brake: fleet.BrakeRule{Off: cfg.BrakeOff, Share: cfg.BrakeShare}, Debug: debugs(q.log),
	}, q.began)
	q.view, q.store.core = q.core.View(), q.core
	q.long, q.watchers, q.reads = make(chan struct{}, 1), make(chan struct{}, maxWatchers), make(chan struct{}, 4)
	return q, nil
}

// Run works until ctx ends or Stop is called, and then returns nil. It returns early
// with an error that wraps hivebeat.ErrStopped if Stop was called first, ErrDiffers if
// a bucket or the stream exists with other settings (the error names each difference),
// or ErrServerTooOld. It is no error if NATS or JetStream is unavailable: the queen
// works without it and says so in its answers.
func (q *Queen) Run(ctx context.Context) error {
	q.mu.Lock()
	switch {
	case q.begun:
		q.mu.Unlock()
		return errors.New("queen: Run was called before")
	case q.isStopping():
		q.mu.Unlock()
		return fmt.Errorf("queen: %w", hivebeat.ErrStopped)
	}
	q.begun = true
	q.mu.Unlock()
	defer close(q.done)

	// The goroutines beside the loop outlive ctx until the queen has left in order.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer q.wg.Wait()
	defer cancel()
	err := q.begin(work)
	if err != nil {
		cancel()
		q.unsubscribe()
		close(q.ended)
		return err
	}
	q.log.Info("queen started", slog.String("prefix", q.cfg.Prefix), slog.Bool("jetstream", !q.cfg.NoJetStream))
	q.looping.Store(true)
	q.loop(ctx, work)
	q.looping.Store(false)
	cancel()
	q.unsubscribe()
	close(q.ended) // from here on Stats reads the counts itself
	if q.fatal != nil {
		q.log.Error("queen failed", slog.Any("err", q.fatal))
	} else {
		q.log.Info("queen stopped")
	}
	return q.fatal
}

// Stop ends Run in order: the queen answers the requests that came in, publishes
// waiting events for up to 2 s, and leaves no goroutine behind. Stop waits for that
// until ctx ends, and then returns the error of ctx. It may be called more than once,
// and before Run.
func (q *Queen) Stop(ctx context.Context) error {
	q.mu.Lock()
	q.once.Do(func() { close(q.stopping) })
	begun := q.begun
	q.mu.Unlock()
	if !begun {
		return nil
	}
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("queen: stop: %w", ctx.Err())
	}
}

func (q *Queen) isStopping() bool {
	select {
	case <-q.stopping:
		return true
	default:
		return false
	}
}

// Stats are a queen's counts since it started.
type Stats struct {
	Snapshots  uint64                     // pages applied
	Refused    map[hivebeat.Reason]uint64 // messages that changed nothing, by reason
	Dropped    int                        // messages that NATS dropped because this queen was too slow
	Incomplete uint64                     // snapshots that a newer one replaced before all their pages came

	RepliesRefused uint64 // requests not carried out because their reply subject is no inbox

	Hives, Workers int // currently known

	AdoptedHives   int    // lost hives whose workers this queen judges
	AdoptedWorkers int    // their workers
	AdoptedBeats   uint64 // beats of adopted workers

	// FalseDead and CutOff count verdicts of this queen, on hives and on adopted workers,
	// that the same incarnation disproved. After a FalseDead verdict the sender was heard,
	// but too late. After a CutOff verdict it had kept sending, but its messages did not
	// arrive. Margins counts how long after the verdict that was, by upper bound in ms.
	// MarginMax is the longest.
	FalseDead, CutOff uint64
	Margins           map[string]uint64
	MarginMax         time.Duration

	// DisconnectsIgnored counts closed connections that were attributed to a failing NATS
	// server and so declare nothing lost: more than 3 within a second, at one server to
	// which a hive or an adopted worker of this queen is connected.
	DisconnectsIgnored uint64

	SelfPause time.Duration // total time this process was stopped or starved
	Blind     time.Duration // time credited to all deadlines because this queen could not hear or could not be sure

	EventsWaiting   int    // worker transitions waiting to be published
	EventsPublished uint64 // worker transitions stored, or found already stored
	EventsDropped   uint64 // worker transitions given up; a gap event stands for them
	EventsUnstored  uint64 // deaths and returns published before the stream had them

	// StoreTrouble is "no_space" or "needs_restart" while JetStream waits for an operator,
	// and otherwise empty.
	StoreTrouble string

	Puts PutStats // snapshots written to the bucket
}

// PutStats counts the pages of snapshots that a queen has for the bucket, by outcome.
type PutStats struct {
	Offered  uint64 // pages received
	Put      uint64 // pages that this queen wrote
	Replaced uint64 // pages replaced by a newer snapshot of the same hive
	Stale    uint64 // pages that the bucket had already, or newer ones: another queen was faster
	Old      uint64 // pages that waited longer than the promise of their hive
	Failed   uint64 // attempts that failed; the page is tried again, unless a newer one comes
	Waiting  int    // hives with pages to write
}

// Stats returns the counts so far: zeros before Run, and the last ones after it.
func (q *Queen) Stats() Stats {
	var s Stats
	if q.do(context.Background(), func(time.Time) { s = q.stats() }) != nil {
		select {
		case <-q.ended:
			return q.stats() // no goroutine touches the counts any more
		default:
		}
	}
	return s
}

func (q *Queen) stats() Stats {
	c := q.view.Counts()
	s := Stats{
		Snapshots: c.Accepted, Refused: c.Refused, Dropped: q.countDropped(), Incomplete: c.Incomplete, Hives: q.view.Len(), Workers: c.Workers,
	}
	if q.service != nil {
		s.RepliesRefused = q.service.refused.Load()
	}
	s.SelfPause, s.Blind = q.core.Hearing().Paused(), q.core.Hearing().Blind()
	s.AdoptedHives, s.AdoptedWorkers, s.AdoptedBeats = q.view.Adoptions()
	score := q.view.Score()
	s.FalseDead, s.CutOff, s.Margins, s.MarginMax = score.FalseDead, score.CutOff, score.Margins.Buckets(), score.Margins.Max
	s.DisconnectsIgnored = q.core.Hearing().Ignored()
	s.EventsWaiting, s.EventsPublished, s.EventsDropped = q.core.Outbox()
	s.EventsUnstored, s.StoreTrouble = q.core.PublishedLive(), string(q.core.StoreTrouble())
	if q.store.putter != nil {
		s.Puts = PutStats(q.store.putter.Stats())
	}
	return s
}

// do runs f in the loop and waits for it.
func (q *Queen) do(ctx context.Context, f func(now time.Time)) error {
	if !q.looping.Load() {
		return errors.New("queen: not running")
	}
	ran := make(chan struct{})
	if err := q.post(ctx, func(now time.Time) { f(now); close(ran) }); err != nil {
		return err
	}
	<-ran // the loop runs every call that it has received
	return nil
}

// post hands f to the loop.
func (q *Queen) post(ctx context.Context, f func(now time.Time)) error {
	if err := ctx.Err(); err != nil { // select takes any of the cases that are ready
		return err
	}
	select {
	case q.calls <- f:
		return nil
	case <-q.ended:
		return fmt.Errorf("queen: %w", hivebeat.ErrStopped)
	case <-ctx.Done():
		return ctx.Err()
	}
}
