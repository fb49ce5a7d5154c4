// Package procwatch tells when processes end that are not children of this one.
// On Linux the kernel tells, by pidfd, within a millisecond; elsewhere, and where
// pidfds are not to be had, it looks once a second.
//
// A process id is no identity: it is used again. Who asks for a process says when
// it was known to be there, and whatever began later is another one.
package procwatch

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"
)

// Config says how much is watched. The zero Config works.
type Config struct {
	// Max bounds the processes that are watched, and with them the file
	// descriptors. Default: 10,000.
	Max int
	// Poll is how often a process is looked at where nobody tells of its end.
	// Default: 1 s.
	Poll time.Duration
	// Logger gets Warn where processes have to be polled on a system that could
	// tell. Default: nothing is logged.
	Logger *slog.Logger
}

// End tells that a process has ended.
type End[K comparable] struct {
	Key K
	PID uint64
	At  time.Time // when it was noticed
	// Reused: the process id belongs to a process that began later.
	Reused bool
}

// Stats are the counts of a Watcher.
type Stats struct {
	Watched int    // now
	Polled  int    // of these, those that are looked at
	Ended   uint64 // since New
	Refused uint64 // calls of Watch that came to nothing
}

// Watcher watches processes, each under a key of the caller's. It works while Run
// does; all methods are safe for concurrent use.
type Watcher[K comparable] struct {
	cfg   Config
	sys   system
	ready chan struct{} // there is something to take
	asked chan struct{} // there is something in queue

	mu      sync.Mutex
	entries map[K]*entry[K]
	told    map[uint64]*entry[K] // those whose end the system tells, by token
	token   uint64
	queue   []*entry[K] // to be opened
	ended   []End[K]
	stats   Stats
	deaf    bool // what tells of ends has failed
	closed  bool
}

// entry is one process.
type entry[K comparable] struct {
	key    K
	pid    int
	known  int64 // when it was known to be there, by the clock of the system; 0: no telling
	began  int64 // when it began; 0: no telling
	handle handle
	token  uint64 // 0: not told
	polled bool
	dead   bool // forgotten, or told as ended
}

// system is what an operating system can tell of processes. began is by the clock
// of now, or an identity only, where now returns 0.
type system struct {
	now  func() int64
	look func(pid int) (began int64, there bool)
	// exits returns what tells of ends, or an error where nothing does.
	exits func() (exits, error)
}

// exits tells of ends. wait returns once close was called.
type exits interface {
	open(pid int) (handle, error)
	add(h handle, token uint64) error
	wait(ended func(token uint64)) error
	close()
}

// handle holds a process fast, so that its id can not come to mean another one.
type handle interface{ close() }

// What open returns.
var (
	errGone   = errors.New("no such process")
	errNoTell = errors.New("this system does not tell of ends")
)

// New returns a Watcher that works with Run.
func New[K comparable](cfg Config) *Watcher[K] { return newWatcher[K](cfg, thisSystem()) }

func newWatcher[K comparable](cfg Config, sys system) *Watcher[K] {
	if cfg.Max <= 0 {
		cfg.Max = 10_000
	}
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Watcher[K]{
		cfg: cfg, sys: sys, ready: make(chan struct{}, 1), asked: make(chan struct{}, 1),
		entries: make(map[K]*entry[K]), told: make(map[uint64]*entry[K]),
	}
}

// Watch begins to watch the process that was there under this id at known, a time
// with a monotonic reading. It takes the place of what was watched under this key.
// It never waits, and returns false if there are too many, if no process can have
// that id, or after Run.
func (w *Watcher[K]) Watch(key K, pid uint64, known time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(key)
	if w.closed || pid == 0 || pid > math.MaxInt32 || len(w.entries)+len(w.ended) >= w.cfg.Max {
		w.stats.Refused++
		return false
	}
	e := &entry[K]{key: key, pid: int(pid)}
	if now := w.sys.now(); now > 0 {
		e.known = now - int64(time.Since(known))
	}
	w.entries[key] = e
	w.queue = append(w.queue, e)
	signal(w.asked)
	return true
}

// Forget ends the watch under this key. An end that was not taken yet is not told.
func (w *Watcher[K]) Forget(key K) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(key)
}

func (w *Watcher[K]) forget(key K) {
	if e, ok := w.entries[key]; ok {
		w.drop(e)
	}
	for i := range w.ended {
		if w.ended[i].Key == key {
			w.ended = append(w.ended[:i], w.ended[i+1:]...)
			break
		}
	}
}

// drop lets go of an entry.
func (w *Watcher[K]) drop(e *entry[K]) {
	e.dead = true
	delete(w.entries, e.key)
	delete(w.told, e.token)
	if e.polled {
		w.stats.Polled--
	}
	if e.handle != nil {
		e.handle.close()
		e.handle = nil
	}
}

// Ready receives after something ended that Take has not returned yet.
func (w *Watcher[K]) Ready() <-chan struct{} { return w.ready }

// Take returns what ended since the last call. Each end is told once, and nothing
// is watched under its key any more.
func (w *Watcher[K]) Take() []End[K] {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.ended
	w.ended = nil
	return list
}

// Stats returns the counts so far.
func (w *Watcher[K]) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Watched = len(w.entries)
	return s
}

// Run watches until ctx ends. It works once; afterwards nothing is watched, and
// nothing is held open.
func (w *Watcher[K]) Run(ctx context.Context) {
	r := runner[K]{Watcher: w}
	defer r.end()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.asked:
			for e := w.pop(); e != nil && ctx.Err() == nil; e = w.pop() {
				r.begin(e)
			}
		case <-r.tick:
			w.poll()
		}
	}
}

// runner is what the goroutine of Run keeps for itself.
type runner[K comparable] struct {
	*Watcher[K]
	tried  bool
	exits  exits // nil: not asked for yet, or not to be had
	ended  sync.WaitGroup
	ticker *time.Ticker // once there is something to be polled
	tick   <-chan time.Time
}

func (r *runner[K]) end() {
	r.mu.Lock()
	r.closed = true
	for _, e := range r.entries {
		r.drop(e)
	}
	r.queue = nil
	r.mu.Unlock()
	if r.ticker != nil {
		r.ticker.Stop()
	}
	if r.exits != nil {
		r.exits.close()
	}
	r.ended.Wait()
}

func (w *Watcher[K]) pop() *entry[K] {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		e := w.queue[0]
		w.queue[0], w.queue = nil, w.queue[1:]
		if !e.dead {
			return e
		}
	}
	w.queue = nil
	return nil
}

// begin takes hold of a process, and then looks whether it is the right one: the
// other way round it might become another one in between.
func (r *runner[K]) begin(e *entry[K]) {
	var h handle
	if x := r.teller(); x != nil {
		var err error
		if h, err = x.open(e.pid); errors.Is(err, errGone) {
			r.gone(e, nil, false)
			return
		}
	}
	began, there := r.sys.look(e.pid)
	if later := e.known > 0 && began > e.known; !there || later {
		r.gone(e, h, there)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.dead {
		if h != nil {
			h.close()
		}
		return
	}
	e.began = began
	if h != nil {
		r.token++
		if err := r.exits.add(h, r.token); err == nil && !r.deaf {
			e.handle, e.token = h, r.token
			r.told[e.token] = e
			return
		}
		h.close()
	}
	e.polled = true
	r.stats.Polled++
	if r.ticker == nil {
		r.ticker = time.NewTicker(r.cfg.Poll)
		r.tick = r.ticker.C
	}
}

// teller returns what tells of ends, and nil where nothing does.
func (r *runner[K]) teller() exits {
	if r.tried {
		return r.exits
	}
	r.tried = true
	x, err := r.sys.exits()
	switch {
	case errors.Is(err, errNoTell):
		return nil
	case err != nil:
		r.cfg.Logger.Warn("the system does not tell when processes end: they are looked at instead",
			slog.Duration("every", r.cfg.Poll), slog.Any("error", err))
		return nil
	}
	r.exits = x
	r.ended.Go(func() {
		if err := x.wait(r.byToken); err != nil {
			r.cfg.Logger.Warn("the system does not tell any more when processes end: they are looked at instead", slog.Any("error", err))
			r.pollAll()
		}
	})
	return x
}

// byToken is called when a process ended that has this token.
func (w *Watcher[K]) byToken(token uint64) {
	w.mu.Lock()
	e := w.told[token]
	w.mu.Unlock()
	if e != nil {
		w.gone(e, nil, false)
	}
}

// pollAll asks for all processes anew, of which nobody tells any more.
func (r *runner[K]) pollAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deaf = true
	for _, e := range r.told {
		delete(r.told, e.token)
		e.handle.close()
		e.handle, e.token = nil, 0
		r.queue = append(r.queue, e)
	}
	signal(r.asked)
}

// gone tells that a process ended, unless nobody asks any more. h is closed.
func (w *Watcher[K]) gone(e *entry[K], h handle, reused bool) {
	if h != nil {
		h.close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.dead {
		return
	}
	w.drop(e)
	w.stats.Ended++
	w.ended = append(w.ended, End[K]{Key: e.key, PID: uint64(e.pid), At: time.Now(), Reused: reused})
	signal(w.ready)
}

// poll looks at the processes of which nobody tells.
func (w *Watcher[K]) poll() {
	w.mu.Lock()
	list := make([]*entry[K], 0, w.stats.Polled)
	if w.stats.Polled > 0 {
		for _, e := range w.entries {
			if e.polled {
				list = append(list, e)
			}
		}
	}
	w.mu.Unlock()
	for _, e := range list {
		began, there := w.sys.look(e.pid)
		if another := e.began > 0 && began > 0 && began != e.began; !there || another {
			w.gone(e, nil, there)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
