// Package procwatch reports the ends of processes that are not children of this one. On
// Linux the kernel reports them by pidfd within a millisecond. Elsewhere, and where
// pidfds are unavailable, the package polls once a second.
//
// A process id is no identity, because the system reuses it. The caller says when it
// knew the process to exist; a process that started later is another one.
package procwatch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"
)

// Config bounds the work of a Watcher. The zero Config is valid.
type Config struct {
	// Max bounds the number of watched processes, and so of file descriptors. Default:
	// 10,000.
	Max int
	// Poll is the interval between polls of a process, if the system does not report
	// their ends. Default: 1 s.
	Poll time.Duration
	// Logger gets Warn if processes must be polled on a system that could report their
	// ends. Default: nothing is logged.
	Logger *slog.Logger
}

// End reports that a process has ended.
type End[K comparable] struct {
	Key K
	PID uint64
	At  time.Time // when it was noticed
	// Reused reports that the process id now belongs to a process that started later.
	Reused bool
}

// Stats are the counts of a Watcher.
type Stats struct {
	Watched int    // now
	Polled  int    // the part of Watched that is polled
	Ended   uint64 // since New
	Refused uint64 // calls of Watch that returned false
}

// Age returns how long a process has run, or 0 if that is unknown, and whether it exists. A
// zombie does not.
func Age(pid uint64) (d time.Duration, there bool) {
	if pid == 0 || pid > math.MaxInt32 {
		return 0, false
	}
	began, there := thisSystem().look(int(pid))
	if !there || began == 0 {
		return 0, there
	}
	return age(began), true
}

// Watcher watches processes, each under a key that the caller chooses. It works while
// Run runs. All methods are safe for concurrent use.
type Watcher[K comparable] struct {
	cfg   Config
	sys   system
	ready chan struct{} // Take has something to return
	asked chan struct{} // queue has a new entry

	mu      sync.Mutex
	entries map[K]*entry[K]
	told    map[uint64]*entry[K] // entries whose end the system reports, by token
	token   uint64
	queue   []*entry[K] // entries that begin has not opened yet
	ended   []End[K]
	stats   Stats
	deaf    bool // wait has failed: ends are no longer reported
	closed  bool
}

// entry is one watched process.
type entry[K comparable] struct {
	key    K
	pid    int
	known  int64 // when the process was known to exist, by the clock of the system; 0: unknown
	began  int64 // when the process started; 0: unknown
	handle handle
	token  uint64 // 0: the system does not report its end
	polled bool
	dead   bool // forgotten, or its end was reported
}

// system is the access to the processes of an operating system. began is a time by the
// clock of now, or an identity only where now returns 0.
type system struct {
	now  func() int64
	look func(pid int) (began int64, there bool)
	// exits returns the source of ends, or an error where there is none.
	exits func() (exits, error)
}

// exits reports the ends of processes. wait returns after close.
type exits interface {
	open(pid int) (handle, error)
	add(h handle, token uint64) error
	wait(ended func(token uint64)) error
	close()
}

// handle pins a process, so that its id cannot come to mean another one.
type handle interface{ close() }

// Errors of system.exits and of exits.open.
var (
	errGone   = errors.New("no such process")
	errNoTell = errors.New("this system does not report the ends of processes")
)

// New returns a Watcher. It watches nothing before Run.
func New[K comparable](cfg Config) *Watcher[K] { return newWatcher[K](cfg, thisSystem()) }

func newWatcher[K comparable](cfg Config, sys system) *Watcher[K] {
	if cfg.Max <= 0 {
		cfg.Max = 10_000
	}
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return &Watcher[K]{
		cfg: cfg, sys: sys, ready: make(chan struct{}, 1), asked: make(chan struct{}, 1),
		entries: make(map[K]*entry[K]), told: make(map[uint64]*entry[K]),
	}
}

// Watch watches the process that existed under pid at known, a time with a monotonic
// reading. It replaces the watch under the same key, if any. It never blocks. It
// returns false if too many processes are watched, if no process can have that id, or
// after Run.
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

// Forget ends the watch under key. It discards an end that Take has not returned yet.
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

// drop releases an entry.
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

// Ready receives a value when Take has ends to return.
func (w *Watcher[K]) Ready() <-chan struct{} { return w.ready }

// Take returns the processes that ended since the last call. Each end is returned once,
// and also ends the watch under its key.
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

// Run watches until ctx ends. It works once; after it has returned nothing is watched
// and no descriptor is held.
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

// runner is the state that only the goroutine of Run uses.
type runner[K comparable] struct {
	*Watcher[K]
	tried  bool
	exits  exits // nil: not opened yet, or not available
	ended  sync.WaitGroup
	ticker *time.Ticker // nil until a process must be polled
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

// begin opens a process first, and then checks that it is the right one: in the other
// order the id could change hands in between.
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

// teller returns the source of ends, or nil if there is none.
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
		r.cfg.Logger.Warn("the system does not report the ends of processes: polling instead",
			slog.Duration("every", r.cfg.Poll), slog.Any("err", err))
		return nil
	}
	r.exits = x
	r.ended.Go(func() {
		if err := x.wait(r.byToken); err != nil {
			r.cfg.Logger.Warn("the system no longer reports the ends of processes: polling instead", slog.Any("err", err))
			r.pollAll()
		}
	})
	return x
}

// byToken handles the end of the process with this token.
func (w *Watcher[K]) byToken(token uint64) {
	w.mu.Lock()
	e := w.told[token]
	w.mu.Unlock()
	if e != nil {
		w.gone(e, nil, false)
	}
}

// pollAll queues all processes again after the source of ends has failed.
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

// gone reports the end of a process, unless its entry was dropped. It closes h.
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

// poll checks the processes whose end the system does not report.
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
