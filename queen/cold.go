package queen

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/queen/api"
)

const (
	allEvery   = 10 * time.Second // a call to all hives goes out at most this often
	openAtMost = 10 * time.Second // how long a JetStream that does not answer holds up a start
)

// cold is the start of a queen: what it should know and has not heard.
type cold struct {
	warm     bool
	leaving  bool
	up       time.Time // since when there is a connection; zero while there is none
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

// warmUp opens the API once this queen knows enough to answer.
func (q *Queen) warmUp(now time.Time) {
	c := &q.cold
	if c.warm || c.leaving || !c.ready(now, q.cfg.NoJetStream) {
		return
	}
	c.warm = true
	if err := q.service.serve(); err != nil {
		q.fatal = err
		return
	}
	q.log.Info("queen is warm", slog.Int("hives", q.view.Len()), slog.Int("missing", len(c.missing)))
	c.missing = nil
}

// spread is over how long the answers to a roll call are to come, so that they
// never storm.
func (q *Queen) spread() []byte {
	return strconv.AppendInt(nil, q.view.Spread().Milliseconds(), 10)
}

// callAll asks all hives for a snapshot, unless it did so a short time ago.
func (q *Queen) callAll(now time.Time) {
	if c := &q.cold; c.calledAt.IsZero() || now.Sub(c.calledAt) >= allEvery {
		c.calledAt = now
		q.log.Debug("roll call to all hives", slog.String("spread_ms", string(q.spread())))
		q.publishCall(q.subjects.HiveRollcall())
	}
}

// callRoll asks those that are missing, and all hives where none is known or
// nearly all of them are missing.
func (q *Queen) callRoll(missing []*fleet.Hive, now time.Time) {
	known := 0
	for _, h := range q.view.Hives() {
		if h.Live() != hivebeat.Lost && h.Live() != hivebeat.Left {
			known++
		}
	}
	if 4*len(missing) >= 3*known && (len(missing) > 1 || known == 0) {
		q.callAll(now) // or it did a short time ago, and that was for these too
		return
	}
	for _, h := range missing {
		q.publishCall(q.subjects.HiveRollcallOf(h.ID()))
	}
}

// callBraked asks those that the brake holds, each for itself: a call to all would
// be answered by the others too.
func (q *Queen) callBraked(held []*fleet.Hive) {
	for _, h := range held {
		q.publishCall(q.subjects.HiveRollcallOf(h.ID()))
	}
}

func zoneWords(zone string) string {
	if zone == "" {
		return "no zone"
	}
	return "zone " + zone
}

func (q *Queen) publishCall(subject string) {
	if err := q.nc.Publish(subject, q.spread()); err != nil {
		q.log.Debug("roll call failed", slog.String("subject", subject), slog.Any("err", err))
	}
}

// bucketRead goes on once bucket and roster were read, since began: the roll of
// those is called that should be there and were not heard since.
func (q *Queen) bucketRead(present map[string]bool, began, now time.Time) {
	c := &q.cold
	first := c.read.IsZero()
	c.read, c.missing = now, make(map[*fleet.Hive]struct{})
	var missing []*fleet.Hive
	for _, h := range q.view.Hives() {
		if h.HeardAt().After(latest(began, q.conn.up)) || h.Live() == hivebeat.Lost || h.Live() == hivebeat.Left {
			continue
		}
		missing = append(missing, h)
		if present[h.ID()] {
			c.missing[h] = struct{}{}
		}
	}
	if first || len(missing) > 0 {
		q.callRoll(missing, now)
	}
	q.log.Debug("bucket and roster read", slog.Int("hives", q.view.Len()), slog.Int("keys", len(present)), slog.Int("missing", len(missing)))
}

func restarted(hives int) string {
	if hives == 1 {
		return "1 hive has just restarted"
	}
	return fmt.Sprintf("%d hives have just restarted", hives)
}

// status says how sure an answer is.
func (q *Queen) status(now time.Time) api.Status {
	s := api.Status{
		AsOf: now.UTC().Round(0), Queen: q.cfg.ID, Warm: q.cold.warm, JetStream: !q.cfg.NoJetStream && q.store.there(),
	}
	unsure := func(format string, args ...any) { s.Unsure = append(s.Unsure, fmt.Sprintf(format, args...)) }
	if q.conn.isCut() {
		unsure("this queen is cut off from NATS for %.1fs and hears nobody", now.Sub(q.conn.since).Seconds())
	} else if since, ok := q.conn.sight.Doubts(); ok {
		unsure("this queen is not sure that it heard everybody in the last %.1fs, and judges nobody until it is", now.Sub(since).Seconds())
	}
	if !s.Warm {
		unsure("this queen has just started and has not heard every hive that it should know")
	}
	if !q.cfg.NoJetStream && !s.JetStream {
		unsure("JetStream is away: %s; this is what this queen has heard itself, and events wait", q.store.reason())
	}
	if s.Warm && !s.JetStream && now.Sub(q.cold.up) < q.cfg.Fresh {
		unsure("this queen started %.0fs ago without a memory: a hive that was silent since is not known to it", now.Sub(q.cold.up).Seconds())
	}
	if n := q.view.Totals().Warming; n > 0 {
		unsure("%s, and may not know all workers yet", restarted(n))
	}
	held := 0
	for _, z := range q.view.Brakes() {
		since, n, _ := z.On()
		held += n
		s.Brake = append(s.Brake, api.BrakeInfo{Zone: z.Name(), Held: n, Since: hivebeat.MillisOf(now.Sub(since))})
		unsure("the brake is on in %s for %.1fs: so many hives fell silent at once that this is not believed; %d are held as unverified", zoneWords(z.Name()), now.Sub(since).Seconds(), n)
	}
	if n := q.view.Unverified() - held; n > 0 {
		unsure("%d hives are known from memory alone and were not heard yet", n)
	}
	return s
}
