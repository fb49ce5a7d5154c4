package queencore

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

const (
	startupWait = 2 * time.Second  // how long a starting queen waits for the hives that it should know
	openAtMost  = 10 * time.Second // how long an unresponsive JetStream delays a start
	allEvery    = 10 * time.Second // least time between two roll calls to all hives
)

// startup is the startup state of a queen: which hives it should know but has not heard yet.
type startup struct {
	warm     bool
	leaving  bool
	up       time.Time // when this queen first connected; zero before that
	failed   bool      // JetStream was found unavailable
	read     time.Time // when bucket and roster were read
	missing  map[*fleet.Hive]struct{}
	calledAt time.Time // when all hives were last called
}

func (s *startup) connected(now time.Time) {
	if s.up.IsZero() {
		s.up = now
	}
}

// heard records that a hive sent a snapshot.
func (s *startup) heard(h *fleet.Hive) { delete(s.missing, h) }

// ready reports whether a starting queen may answer: each hive with a key has been heard or
// has run out of time. Without JetStream, only the time counts.
func (s *startup) ready(now time.Time, noJetStream bool) bool {
	switch {
	case s.up.IsZero():
		return false
	case !s.read.IsZero():
		return len(s.missing) == 0 || now.Sub(s.read) >= startupWait
	case noJetStream || s.failed:
		return now.Sub(s.up) >= startupWait
	}
	return now.Sub(s.up) >= openAtMost
}

// Warm reports whether this queen knows enough to answer.
func (c *Core) Warm() bool { return c.startup.warm }

// Up returns when this queen first connected; zero before that.
func (c *Core) Up() time.Time { return c.startup.up }

// Leave announces that this queen is about to end: it must not become warm any more.
func (c *Core) Leave() { c.startup.leaving = true }

// warmUp sets Ready.Serve as soon as this queen knows enough to answer.
func (c *Core) warmUp(now time.Time) {
	x := &c.startup
	if x.warm || x.leaving || !x.ready(now, c.cfg.NoJetStream) {
		return
	}
	x.warm = true
	c.ready.Serve = true
	c.ready.Logs.Add(slog.LevelInfo, "queen is warm", slog.Int("hives", c.view.Len()), slog.Int("missing", len(x.missing)))
	x.missing = nil
}

// call asks one hive for a snapshot. An empty id asks all hives.
func (c *Core) call(id string) {
	c.ready.Calls = append(c.ready.Calls, fleet.RollCall{Hive: id, Spread: c.view.Spread()})
}

// callAll asks all hives for a snapshot, unless it did less than allEvery ago.
func (c *Core) callAll(now time.Time) {
	if x := &c.startup; x.calledAt.IsZero() || now.Sub(x.calledAt) >= allEvery {
		x.calledAt = now
		c.ready.Logs.Add(slog.LevelDebug, "roll call to all hives", slog.Duration("spread", c.view.Spread()))
		c.call("")
	}
}

// callRoll calls the missing hives. If no hive is known or nearly all are missing, it calls
// all hives instead.
func (c *Core) callRoll(missing []*fleet.Hive, now time.Time) {
	known := 0
	for _, h := range c.view.Hives() {
		if !gone(h) {
			known++
		}
	}
	if 4*len(missing) >= 3*known && (len(missing) > 1 || known == 0) {
		c.callAll(now) // or a recent call reached these hives too
		return
	}
	for _, h := range missing {
		c.call(h.ID())
	}
}

func gone(h *fleet.Hive) bool { return h.Live() == hivebeat.Lost || h.Live() == hivebeat.Left }

// wasRead handles a complete read of bucket and roster that started at began. It calls the
// hives that should be there and have not been heard since.
func (c *Core) wasRead(present map[string]bool, began, now time.Time) {
	x := &c.startup
	first := x.read.IsZero()
	x.read, x.missing = now, make(map[*fleet.Hive]struct{})
	if up := c.hearing.UpSince(); up.After(began) {
		began = up
	}
	var missing []*fleet.Hive
	for _, h := range c.view.Hives() {
		if h.HeardAt().After(began) || gone(h) {
			continue
		}
		missing = append(missing, h)
		if present[h.ID()] {
			x.missing[h] = struct{}{}
		}
	}
	if first || len(missing) > 0 {
		c.callRoll(missing, now)
	}
	c.ready.Logs.Add(slog.LevelDebug, "bucket and roster read",
		slog.Int("hives", c.view.Len()), slog.Int("keys", len(present)), slog.Int("missing", len(missing)))
}
