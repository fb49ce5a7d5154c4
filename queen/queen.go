// Package queen builds the view of the whole fleet from the snapshots of its
// hives, reaches the verdicts on hives, keeps both in JetStream for others to
// read, tells every transition exactly once together with any number of other
// queens, and answers who is alive.
//
// The view is in memory. It needs nothing but the snapshots, and goes on while
// JetStream is away. docs/PROTOCOL.md is normative for all that others see.
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
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/link"
	"github.com/beatfabric/hivebeat/internal/queencore"
	"github.com/beatfabric/hivebeat/internal/query"
)

// Config says how a queen works. The zero Config is usable.
type Config struct {
	// ID tells this queen from others, in answers and in its log. Default: a
	// random one.
	ID string
	// Prefix of all subjects, buckets and the stream. Default none.
	Prefix string
	// InboxPrefixes are the inbox prefixes of clients that have one of their own
	// (nats.CustomInboxPrefix). A queen answers to inboxes alone: to those below
	// _INBOX. and below these. Default none.
	InboxPrefixes []string
	// Fresh is the age up to which a worker's record may be shown as alive, and a
	// hive's facts may be used. Default hivebeat.Fresh, 45 s.
	Fresh time.Duration
	// NoJetStream keeps nothing: events go straight to their subjects, once from
	// each queen, and a queen that starts knows nobody. Default false.
	NoJetStream bool
	// Replicas of buckets and stream. Default 1.
	Replicas int
	// Storage of buckets and stream. Default jetstream.FileStorage.
	Storage jetstream.StorageType
	// Placement of buckets and stream in a cluster. Default: the server's choice.
	Placement *jetstream.Placement
	// EventsMax is the size of the stream of events in bytes, which JetStream
	// reserves. Default 64 MiB.
	EventsMax int64
	// BrakeOff believes every silence: however many hives of a zone would be lost at
	// once, they are. Default false: a mass death is held first, see
	// docs/PROTOCOL.md.
	BrakeOff bool
	// BrakeShare is the share of a zone's hives, above 0 and up to 1, that may be
	// lost by silence within 10 s without the brake. Default 0.3; 3 hives always may.
	BrakeShare float64
	// Pending is how many snapshots may wait for this queen before NATS drops the
	// newest. Default 4096.
	Pending int
	// System is a connection into the NATS system account, by which the queen hears
	// which connections close (bus.DisconnectSubject): a hive whose connection closes,
	// and that does not come back within seconds, is lost. It is borrowed as nc is.
	// Default nil: silence alone decides.
	System *nats.Conn
	// Own is the id of the NATS server that runs in this process, if one does. It fails
	// with the process alone, so that however many of its connections close at once each
	// is believed. Default: none.
	Own string
	// Logger gets the transitions of hives, and what goes wrong. nil discards it.
	Logger *slog.Logger
}

const (
	defaultPending = 4096
	lastWords      = 2 * time.Second // how long a queen that stops goes on telling what it knows
)

func (c Config) withDefaults() Config {
	c.ID = cmp.Or(c.ID, "queen-"+strings.ToLower(crand.Text()[:10]))
	c.Fresh = cmp.Or(c.Fresh, hivebeat.Fresh)
	c.Pending = cmp.Or(c.Pending, defaultPending)
	c.Replicas = cmp.Or(c.Replicas, 1)
	c.BrakeShare = cmp.Or(c.BrakeShare, fleet.BrakeShare)
	c.EventsMax = cmp.Or(c.EventsMax, ledger.DefaultEventsMax)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if err := hivebeat.CheckID("queen", c.ID); err != nil {
		return fmt.Errorf("queen: Config.ID: %w", err)
	}
	switch {
	case c.Fresh < 0:
		return fmt.Errorf("queen: Config.Fresh: %v is negative", c.Fresh)
	case !(c.BrakeShare > 0 && c.BrakeShare <= 1): // NaN is not either
		return fmt.Errorf("queen: Config.BrakeShare: %v is not above 0 and up to 1", c.BrakeShare)
	case c.Pending < 0:
		return fmt.Errorf("queen: Config.Pending: %d is negative", c.Pending)
	case c.Replicas < 1 || c.Replicas > 5:
		return fmt.Errorf("queen: Config.Replicas: %d is not 1 to 5", c.Replicas)
	case c.EventsMax < 1<<20:
		return fmt.Errorf("queen: Config.EventsMax: %d is less than 1 MiB", c.EventsMax)
	}
	return nil
}

// Queen is one queen. Any number of them may run in one fabric. Its methods are
// safe for concurrent use.
type Queen struct {
	cfg      Config
	nc       *nats.Conn
	subjects hivebeat.Subjects
	inboxes  bus.Inboxes // that it answers to
	log      *slog.Logger

	msgs  chan *nats.Msg
	calls chan func(now time.Time) // run by the loop, which owns all below
	wg    sync.WaitGroup           // what Run has started

	mu       sync.Mutex
	acting   map[query.HoldID]chan struct{} // holds of which a question is under way; closed when it was answered
	begun    bool
	stopping chan struct{} // closed by Stop
	once     sync.Once
	looping  atomic.Bool
	ended    chan struct{} // closed when the loop takes no more calls
	done     chan struct{} // closed when Run returns

	core    *queencore.Core
	view    *fleet.View // the core's
	link    *link.Link
	began   time.Time
	subs    []*nats.Subscription
	dropped int // messages, as of the last look
	wake    time.Time
	timer   *time.Timer
	kept    time.Time // when the loop kept house last
	fatal   error     // ends Run

	wards   wards
	store   store
	service *service

	events  query.Events
	holds   query.Holds
	history query.History
	follows follower
	changed chan struct{} // closed at the next change of the view; nil where nobody waits
	revTold uint64
	leaving chan struct{} // closed when the queen begins to leave

	long     chan struct{} // has one while a question takes many steps
	watchers chan struct{} // one for each that waits
	reads    chan struct{} // one for each read of the stream of events under way
}

// New returns a queen that works on nc, which is borrowed: it is never closed, and
// its handlers stay as they are. Errors name the field of cfg at fault.
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
	inboxes, err := bus.NewInboxes(subjects, cfg.InboxPrefixes...)
	if err != nil {
		return nil, fmt.Errorf("queen: Config.InboxPrefixes: %w", err)
	}
	q := &Queen{
		cfg: cfg, nc: nc, subjects: subjects, inboxes: inboxes, log: cfg.Logger.With(slog.String("queen", cfg.ID)),
		msgs:     make(chan *nats.Msg, cfg.Pending),
		wards:    wards{beats: make(chan *nats.Msg, core.PendingBeats), subs: make(map[string][]*nats.Subscription)},
		calls:    make(chan func(time.Time)),
		stopping: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{}),
		acting: make(map[query.HoldID]chan struct{}), began: time.Now(), leaving: make(chan struct{}),
	}
	q.core = queencore.New(queencore.Config{
		ID: cfg.ID, Subjects: subjects, Fresh: cfg.Fresh, NoJetStream: cfg.NoJetStream, Replicas: cfg.Replicas, EventsMax: cfg.EventsMax, Own: cfg.Own, Random: rand.Float64,
		Brake: fleet.BrakeRule{Off: cfg.BrakeOff, Share: cfg.BrakeShare}, Debug: debugs(q.log),
	}, q.began)
	q.view, q.store.core = q.core.View(), q.core
	q.long, q.watchers, q.reads = make(chan struct{}, 1), make(chan struct{}, maxWatchers), make(chan struct{}, 4)
	return q, nil
}

// Run works until ctx ends or Stop is called, and returns nil then. It returns
// early with an error that wraps hivebeat.ErrStopped where Stop came first,
// ledger.ErrDiffers where a bucket or the stream exists with other settings (it
// names each difference), and ledger.ErrServerTooOld. A NATS or a JetStream that
// is not there is no error: the queen goes on without, and says so.
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

	// What runs beside the loop outlives ctx by the time it takes to leave in order.
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
	q.log.Info("queen runs", slog.String("prefix", q.cfg.Prefix), slog.Bool("jetstream", !q.cfg.NoJetStream))
	q.looping.Store(true)
	q.loop(ctx, work)
	q.looping.Store(false)
	cancel()
	q.unsubscribe()
	close(q.ended) // from here on Stats looks by itself
	if q.fatal != nil {
		q.log.Error("queen ends", slog.Any("err", q.fatal))
	} else {
		q.log.Info("queen stopped")
	}
	return q.fatal
}

// Stop ends Run in order: requests that came are answered, events that wait are
// published for 2 s at most, and no goroutine is left. It waits for that until
// ctx ends, whose error it then returns. It may be called more than once, and
// before Run.
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

// Stats are a queen's counts since it began.
type Stats struct {
	Snapshots  uint64                     // pages taken over
	Refused    map[hivebeat.Reason]uint64 // messages that changed nothing, by reason
	Dropped    int                        // messages that NATS dropped as this queen was too slow
	Incomplete uint64                     // snapshots of which not all pages came

	RepliesRefused uint64 // requests that named a subject to answer to that is no inbox: nothing was done

	Hives, Workers int // known now

	AdoptedHives   int    // hives that were lost, whose workers this queen judges
	AdoptedWorkers int    // those workers
	AdoptedBeats   uint64 // beats of such

	// Verdicts of this queen, on hives and on workers it adopted, that were disproved
	// by the same incarnation: FalseDead was heard too late, CutOff had gone on, but
	// its messages did not come. Margins is how long after the verdict, in ms by
	// upper bound; MarginMax the longest.
	FalseDead, CutOff uint64
	Margins           map[string]uint64
	MarginMax         time.Duration

	// Connections that closed and were taken for their server's, by which nobody is
	// lost: more than 3 of a server at which a hive is, or a worker that this queen
	// judges, within a second.
	DisconnectsIgnored uint64

	SelfPause time.Duration // time this queen was stopped or starved, in all
	Blind     time.Duration // time credited to all deadlines, as it could not hear or could not be sure

	EventsWaiting   int    // worker transitions that wait to be published
	EventsPublished uint64 // worker transitions stored, or found to be stored
	EventsDropped   uint64 // worker transitions given up: told by a gap
	EventsUnstored  uint64 // deaths and returns that went out before the stream had them

	// StoreTrouble is "no_space" or "needs_restart" while JetStream waits for a person,
	// and otherwise empty.
	StoreTrouble string

	Puts ledger.PutterStats // snapshots into the bucket
}

// Stats returns the counts so far; zeros before Run, and after it the last ones.
func (q *Queen) Stats() Stats {
	var s Stats
	if q.do(context.Background(), func(time.Time) { s = q.stats() }) != nil {
		select {
		case <-q.ended:
			return q.stats() // nobody else looks at it any more
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
	s.EventsUnstored, s.StoreTrouble = q.core.ToldLive(), string(q.core.StoreTrouble())
	if q.store.putter != nil {
		s.Puts = q.store.putter.Stats()
	}
	return s
}

// do runs f in the loop and waits for it.
func (q *Queen) do(ctx context.Context, f func(now time.Time)) error {
	if !q.looping.Load() {
		return errors.New("queen: does not run")
	}
	ran := make(chan struct{})
	if err := q.post(ctx, func(now time.Time) { f(now); close(ran) }); err != nil {
		return err
	}
	<-ran // the loop runs what it took
	return nil
}

// post hands f to the loop.
func (q *Queen) post(ctx context.Context, f func(now time.Time)) error {
	if err := ctx.Err(); err != nil { // of cases that are ready select takes any
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
