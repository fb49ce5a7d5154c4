package queencore

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

const (
	coldStart  = 2 * time.Second  // how long a starting queen waits for the hives that it should know
	openAtMost = 10 * time.Second // how long an unresponsive JetStream delays a start
	allEvery   = 10 * time.Second // least time between two roll calls to all hives
)

// cold is the startup state of a queen: which hives it should know but has not heard yet.
type cold struct {
	warm     bool
	leaving  bool
	up       time.Time // when this queen first connected; zero before that
	failed   bool      // JetStream was found unavailable
	read     time.Time // when bucket and roster were read
	missing  map[*fleet.Hive]struct{}
	calledAt time.Time // when all hives were last called
}

func (c *cold) connected(now time.Time) {
	if c.up.IsZero() {
		c.up = now
	}
}

// heard records that a hive sent a snapshot.
func (c *cold) heard(h *fleet.Hive) { delete(c.missing, h) }

// ready reports whether a starting queen may answer: each hive with a key has been heard or
// has run out of time. Without JetStream, only the time counts.
func (c *cold) ready(now time.Time, noJetStream bool) bool {
	switch {
	case c.up.IsZero():
		return false
	case !c.read.IsZero():
		return len(c.missing) == 0 || now.Sub(c.read) >= coldStart
	case noJetStream || c.failed:
		return now.Sub(c.up) >= coldStart
	}
	return now.Sub(c.up) >= openAtMost
}

// Warm reports whether this queen knows enough to answer.
func (c *Core) Warm() bool { return c.cold.warm }

// Up returns when this queen first connected; zero before that.
func (c *Core) Up() time.Time { return c.cold.up }

// Leave announces that this queen is about to end: it must not become warm any more.
func (c *Core) Leave() { c.cold.leaving = true }

// warmUp sets Ready.Serve as soon as this queen knows enough to answer.
func (c *Core) warmUp(now time.Time) {
	x := &c.cold
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
	if x := &c.cold; x.calledAt.IsZero() || now.Sub(x.calledAt) >= allEvery {
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
	x := &c.cold
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
