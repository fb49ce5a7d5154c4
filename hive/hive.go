// Package hive runs the hive of a machine. A hive receives the beats of the machine's
// workers, judges by their silence which are alive, adds the facts of the machine, and
// sends all of this to the queen in one snapshot.
//
// A hive judges only while it knows that messages reach it. While NATS is away, or
// after the hive itself was stopped or starved or had messages dropped, no worker
// becomes late or lost. Once the hive knows again that messages reach it, it credits
// that time to all deadlines. A hive that has just started knows no workers; until it
// is warm, the absence of a worker is no evidence.
//
// What a hive knows, and when and how it judges, is in internal/hivecore, which is
// pure. One goroutine drives it and carries out its requests (loop.go).
package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bootid"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/hivecore"
	"github.com/beatfabric/hivebeat/internal/procwatch"
)

const (
	pendingCalls = 16 // roll calls that wait; NATS drops any beyond

	byeStopped = "stopped"

	// defaultMaxPayload is the server's default, used until the hive has reached a
	// server.
	defaultMaxPayload = 1 << 20
)

// Hive is the hive of one machine. All methods are safe for concurrent use.
type Hive struct {
	cfg      Config
	nc       *nats.Conn
	subjects hivebeat.Subjects
	subject  string // where snapshots are published
	log      *slog.Logger
	ns       string
	inc      uint64
	pulse    *bus.Pulse[[][]byte]
	procs    *procwatch.Watcher[detector.Process] // nil: no process is watched
	machine  machine
	table    procTable
	readings chan []detector.Reading // of processes; holds the newest list only
	readers  []gpu.Reader
	owners   func() gpu.OwnerOf   // says whose the processes are that hold memory of GPUs
	forgets  chan hivebeat.Forget // asked for by queens
	wakeGPUs chan struct{}        // what a time changes about GPUs may be due at another time
	sizes    sizes

	mu      sync.Mutex
	core    *hivecore.Core
	subs    []*nats.Subscription
	dropped uint64 // messages, on subscriptions that are closed
	phase   phase
	done    chan struct{} // closed when Run has ended, or can no longer begin
	err     error         // from Run, valid once done is closed
}

type phase uint8

const (
	phaseNew phase = iota
	phaseRunning
	phaseDone
)

// New returns a hive; Run starts it. The hive borrows nc: it neither closes it nor
// replaces its handlers. nc need not be connected yet. An error names the field of cfg
// that is invalid.
func New(nc *nats.Conn, cfg Config) (*Hive, error) {
	if nc == nil {
		return nil, errors.New("hive: nc is nil")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	subjects, err := hivebeat.NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("hive: Config.Prefix: %w", err)
	}
	cfg.Labels = maps.Clone(cfg.Labels)
	h := &Hive{
		cfg:      cfg,
		nc:       nc,
		subjects: subjects,
		subject:  subjects.Hives(),
		log:      cfg.Logger.With(slog.String("hive", cfg.ID)),
		ns:       bootid.Namespace(),
		inc:      uint64(time.Now().UnixMicro()),
		readings: make(chan []detector.Reading, 1),
		forgets:  make(chan hivebeat.Forget, pendingCalls),
		wakeGPUs: make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
	h.procs = newProcs(cfg, h.ns)
	h.core = hivecore.New(hivecore.Config{
		ID: cfg.ID, Subject: subjects.Workers(cfg.ID), NS: h.ns, PID: h.self(), StallAfter: cfg.StallAfter, PushFacts: cfg.PushFacts,
		Own: cfg.Own,
	})
	if cfg.Pinned {
		h.subject = subjects.Hive(cfg.ID)
	}
	if h.owners = cfg.owners; h.owners == nil {
		h.owners = h.ownPids
	}
	if h.readers = cfg.readers; h.readers == nil {
		if h.readers, err = newReaders(cfg); err != nil {
			return nil, err
		}
	}
	h.machine.fleet = newFleet(cfg, h.readers)
	h.machine.set(sourceHost, errPending)
	h.machine.set(sourceGPU, errPending)
	h.machine.set(sourceOS, errPending)
	h.pulse, err = bus.NewPulse(bus.PulseConfig[[][]byte]{
		Every:    cfg.Every,
		Snapshot: h.build,
		Send:     h.send,
		Flush:    nc.FlushWithContext,
		RollGap:  hivecore.RollGap,
		Logger:   h.log,
	})
	if err != nil {
		return nil, fmt.Errorf("hive: %w", err)
	}
	return h, nil
}

// Run receives, judges and sends until ctx ends, Stop is called, or the connection is
// closed, which is an error. Before it returns it sends a last snapshot, which says
// that the hive leaves in order; it returns an error if it cannot send that. Run works
// once: after it has returned, or after Stop, it returns hivebeat.ErrStopped.
func (h *Hive) Run(ctx context.Context) error {
	h.mu.Lock()
	switch h.phase {
	case phaseRunning:
		h.mu.Unlock()
		return fmt.Errorf("hive: %w", bus.ErrRunning)
	case phaseDone:
		h.mu.Unlock()
		return fmt.Errorf("hive: %w", hivebeat.ErrStopped)
	}
	h.phase = phaseRunning
	h.mu.Unlock()

	err := h.run(ctx)

	h.mu.Lock()
	h.phase, h.err = phaseDone, err
	h.mu.Unlock()
	close(h.done)
	return err
}

func (h *Hive) run(ctx context.Context) error {
	beats, calls := make(chan *nats.Msg, core.PendingBeats), make(chan *nats.Msg, pendingCalls)
	defer h.unsubscribe()
	if err := h.subscribe(beats, calls); err != nil {
		return err
	}
	h.recall(ctx) // before our own snapshot replaces it
	recalled := h.recallGPUs(ctx)

	// The last snapshot is built after ctx ended, so its sources must outlive ctx.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	outer, fail := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer func() {
		fail(nil)
		cancel()
		wg.Wait()
	}()
	var heard error
	ended := make(chan struct{})
	exits := h.watchExits(inner, &wg)
	wg.Go(func() {
		defer close(ended)
		if heard = h.listen(inner, beats, calls, exits); heard != nil {
			fail(heard)
		}
	})
	h.collectHost(inner, &wg)
	h.collectDisks(inner, &wg)
	h.collectGPUs(inner, &wg)
	if !recalled {
		wg.Go(func() { h.recallLater(inner) })
	}
	h.collectProcs(inner, &wg)

	err := h.pulse.Run(outer)
	cancel()
	<-ended
	switch {
	case heard != nil:
		return heard
	case errors.Is(err, hivebeat.ErrStopped): // Stop was called first
		return nil
	case err != nil:
		return fmt.Errorf("hive: %w", err)
	}
	return nil
}

// Stop makes Run send the last snapshot and return, and waits for that. ctx bounds both
// the wait and the last snapshot. Stop may be called any number of times, and before
// Run, which then returns without starting. It returns the error of Run, or that of ctx
// if ctx ended first.
func (h *Hive) Stop(ctx context.Context) error {
	h.mu.Lock()
	if h.phase == phaseNew {
		h.phase = phaseDone
		close(h.done)
	}
	h.mu.Unlock()
	_ = h.pulse.Stop(ctx) // Run returns the error
	select {
	case <-h.done:
	case <-ctx.Done():
		select {
		case <-h.done: // both are ready: the result counts
		default:
			return ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// ID returns the hive's id.
func (h *Hive) ID() string { return h.cfg.ID }

func (h *Hive) subscribe(beats, calls chan *nats.Msg) error {
	for _, s := range []struct {
		subject string
		ch      chan *nats.Msg
	}{
		{h.subjects.Workers(h.cfg.ID), beats},
		{h.subjects.WorkersPinned(h.cfg.ID), beats},
		{h.subjects.HiveRollcall(), calls},
		{h.subjects.HiveRollcallOf(h.cfg.ID), calls},
	} {
		sub, err := h.nc.ChanSubscribe(s.subject, s.ch)
		if err != nil {
			return fmt.Errorf("hive: subscribe to %s: %w", s.subject, err)
		}
		h.mu.Lock()
		h.subs = append(h.subs, sub)
		h.mu.Unlock()
	}
	return nil
}

func (h *Hive) unsubscribe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = h.droppedLocked()
	for _, sub := range h.subs {
		_ = sub.Unsubscribe() // fails only on a closed connection
	}
	h.subs = nil
}

func (h *Hive) droppedLocked() uint64 {
	n := h.dropped
	for _, sub := range h.subs {
		if d, err := sub.Dropped(); err == nil {
			n += uint64(max(0, d))
		}
	}
	return n
}

// head returns the current snapshot, with all workers.
func (h *Hive) head(now time.Time) hivebeat.Snapshot {
	s := hivebeat.Snapshot{
		V: hivebeat.Version, Hive: h.cfg.ID, Inc: h.inc, Every: hivebeat.MillisOf(h.cfg.Every), Sent: now.UnixMilli(),
		Pages: 1, Labels: h.cfg.Labels, VRAMBudget: h.cfg.VRAMBudget,
	}
	h.machine.fill(&s, now)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.core.Fill(now, &s)
	h.table.fill(s.Workers, h.ns, now)
	h.machine.fillWorkers(s.Workers, now)
	for i := range s.Workers {
		if w := &s.Workers[i]; w.Host == s.Host.Name { // the snapshot has it once for all workers
			w.Host = ""
		}
	}
	return s
}

// build encodes the next snapshot into messages.
func (h *Hive) build(why bus.Why) ([][]byte, error) {
	h.mu.Lock()
	h.core.Number()
	h.mu.Unlock()
	if err := h.reachable(); err != nil {
		return nil, err
	}
	s := h.head(time.Now())
	s.Conn, s.RW = bus.ConnID(h.nc), hivebeat.MillisOf(bus.ReconnectWaitOf(h.nc))
	s.PID = uint64(os.Getpid())
	if why == bus.WhyLast {
		s.Bye = byeStopped
	}
	limit := h.nc.MaxPayload()
	if limit <= 0 {
		limit = defaultMaxPayload
	}
	list, err := pages(s, limit)
	if err != nil {
		return nil, err
	}
	h.log.Debug("snapshot", slog.String("why", why.String()), slog.Uint64("seq", s.Seq), slog.Int("workers", len(s.Workers)), slog.Int("pages", len(list)))
	return list, nil
}

// reachable returns an error while NATS is away. A borrowed connection may have a
// reconnect buffer, which would send outdated snapshots once NATS is back.
func (h *Hive) reachable() error {
	switch {
	case h.nc.IsClosed():
		return nats.ErrConnectionClosed
	case !h.nc.IsConnected():
		return nats.ErrDisconnected
	}
	return nil
}

func (h *Hive) send(list [][]byte) error {
	if err := h.reachable(); err != nil {
		return err
	}
	for _, b := range list {
		if err := h.nc.Publish(h.subject, b); err != nil {
			return err
		}
		h.sizes.pages.Add(1)
		h.sizes.bytes.Add(uint64(len(b)))
	}
	return nil
}

// Resend sends a fresh snapshot soon. Call it when earlier snapshots may not have
// arrived although this hive's connection was up, such as behind a leaf node that lost
// its hub.
func (h *Hive) Resend() { h.pulse.Reconnected() }

// Snapshot returns what the hive knows now, with all workers in one page and the seq of
// the last snapshot that was built. The caller must not modify its maps and slices.
func (h *Hive) Snapshot() hivebeat.Snapshot { return h.head(time.Now()) }
