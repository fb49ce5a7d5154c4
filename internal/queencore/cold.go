package queencore

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

const (
	coldStart  = 2 * time.Second  // how long a queen that starts waits for those it should know
	openAtMost = 10 * time.Second // how long a JetStream that does not answer holds up a start
	allEvery   = 10 * time.Second // a call to all hives goes out at most this often
)

// cold is the start of a queen: what it should know and has not heard.
type cold struct {
	warm     bool
	leaving  bool
	up       time.Time // when it was connected first; zero before that
	failed   bool      // JetStream said that it is not to be had
	read     time.Time // when bucket and roster were read
	missing  map[*fleet.Hive]struct{}
	calledAt time.Time // all hives
}

func (c *cold) connected(now time.Time) {
	if c.up.IsZero() {
		c.up = now
	}
}

// heard notes that a hive sent a snapshot.
func (c *cold) heard(h *fleet.Hive) { delete(c.missing, h) }

// ready reports whether a queen that starts may answer: each hive whose key was
// there has been heard or had its time. Where JetStream can not be had there is
// only the time.
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

// Up returns when this queen was connected first; zero before that.
func (c *Core) Up() time.Time { return c.cold.up }

// Leave says that this queen is about to end: it is not to become warm any more.
func (c *Core) Leave() { c.cold.leaving = true }

// warmUp says that the API may be served, once this queen knows enough to answer.
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

// call asks one hive for a snapshot; all of them where id is empty.
func (c *Core) call(id string) {
	c.ready.Calls = append(c.ready.Calls, fleet.RollCall{Hive: id, Spread: c.view.Spread()})
}

// callAll asks all hives for a snapshot, unless it did so a short time ago.
func (c *Core) callAll(now time.Time) {
	if x := &c.cold; x.calledAt.IsZero() || now.Sub(x.calledAt) >= allEvery {
		x.calledAt = now
		c.ready.Logs.Add(slog.LevelDebug, "roll call to all hives", slog.Duration("spread", c.view.Spread()))
		c.call("")
	}
}

// callRoll asks those that are missing, and all hives where none is known or nearly
// all of them are missing.
func (c *Core) callRoll(missing []*fleet.Hive, now time.Time) {
	known := 0
	for _, h := range c.view.Hives() {
		if !gone(h) {
			known++
		}
	}
	if 4*len(missing) >= 3*known && (len(missing) > 1 || known == 0) {
		c.callAll(now) // or it did a short time ago, and that was for these too
		return
	}
	for _, h := range missing {
		c.call(h.ID())
	}
}

func gone(h *fleet.Hive) bool { return h.Live() == hivebeat.Lost || h.Live() == hivebeat.Left }

// wasRead goes on once bucket and roster were read, since began: the roll of those is
// called that should be there and were not heard since.
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
