package queencore

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// OpKind is the kind of an Op.
type OpKind uint8

// The kinds of requests, with the method of package ledger that answers each.
const (
	OpHeads        OpKind = iota + 1 // Ledger.Heads of Keys, into Heads
	OpProbe                          // Ledger.Identity, into Err
	OpPublish                        // Publisher.Publish of Msgs, into Errs
	OpAdvance                        // Publisher.Advance of Steps, into Advanced
	OpRosters                        // Ledger.RostersOf of Keys, into Rosters
	OpPublishPlain                   // Events to their own subjects, without JetStream, into Errs, within the turn
)

// Op is a request that the shell carries out. The shell returns it with its results through
// Core.Done.
type Op struct {
	Kind OpKind
	// Within bounds how long the request may take; 0 leaves it to package ledger.
	Within time.Duration
	// Patient means that receiving has priority: while messages pile up, the request may
	// wait for up to 100 ms.
	Patient bool
	// Quorum also asks whether a majority of the servers that keep the store are in touch
	// with each other: Ledger.Quorum, into Ago and Err.
	Quorum bool

	Keys   []string
	Msgs   []ledger.EventMsg
	Steps  []ledger.Step
	Events []hivebeat.Event

	Err      error
	Ago      time.Duration
	Errs     []error // one per message or event
	Heads    []ledger.Head
	Rosters  []ledger.RosterRead
	Advanced []ledger.Advanced

	done func(now time.Time, op *Op)
}

// Keys are read in batches before verdicts. A few batches are in flight at once.
const (
	checkBatch   = 64
	checkBatches = 4
)

const (
	// checkWithin is how long a verdict waits for the read of its key.
	checkWithin = 2 * time.Second
	// lookWithin and lookAfter say when a queen publishes an event again that another queen
	// may not have published: at a random time within lookWithin, after 5 s.
	// lookWithinFirst applies at the start, when the whole roster comes at once.
	lookWithin      = 5 * time.Second
	lookWithinFirst = 30 * time.Second
	lookAfter       = 5 * time.Second

	probeFirst = time.Second / 2
	probeAgain = time.Second // after a probe that succeeded
	probeMost  = 10 * time.Second
	readFirst  = time.Second / 2
	readMost   = 5 * time.Second
)

// store is the knowledge of this queen about JetStream.
type store struct {
	opened bool // it was available once
	roster bool // the roster was read

	keepErr  error // why the buckets cannot be used, from StoreState
	opErr    error // the last failure, until a probe succeeds
	reported bool  // available, as last logged
	full     bool  // the last write found no space
	since    time.Time
	stopped  string // description from StoreStopped

	probeAt time.Time
	backoff time.Duration
	probing bool

	wanted  bool      // bucket and roster must be read
	reading bool      // they are being read
	readAt  time.Time // earliest next read
	wait    time.Duration
	began   time.Time
	present map[string]bool

	checks   []fleet.Check // waiting for a slot
	checking int           // batches in flight

	queue      []fleet.Announcer                   // must be compared with the roster
	announcing int                                 // batches of announcements in flight
	unsure     liveness.Deadlines[fleet.Announcer] // their last event must be published again, since its author may have died
}

// StoreThere reports whether JetStream can be used, to this queen's knowledge.
func (c *Core) StoreThere() bool { return c.store.there() }

func (s *store) there() bool { return s.opened && s.keepErr == nil && s.opErr == nil }

// StoreReason returns a text that says why JetStream cannot be used.
func (c *Core) StoreReason() string {
	for _, err := range []error{c.store.keepErr, c.store.opErr} {
		if err != nil {
			return err.Error()
		}
	}
	return "not opened yet"
}

// Trouble is a reason why JetStream cannot be used that needs a person to act.
type Trouble string

// The troubles. Empty means none, or one that may pass by itself.
const (
	NoSpace      Trouble = "no_space"
	NeedsRestart Trouble = "needs_restart" // a nats-server stops what it cannot write
)

// StoreTrouble returns the current trouble of JetStream.
func (c *Core) StoreTrouble() Trouble {
	switch s := &c.store; {
	case s.stopped != "":
		return NeedsRestart
	case s.full, errors.Is(errors.Join(s.keepErr, s.opErr), ledger.ErrNoSpace):
		return NoSpace
	}
	return ""
}

// StoreOpened records that buckets and stream are available for the first time.
func (c *Core) StoreOpened(now time.Time) {
	c.look(now)
	c.store.opened, c.store.keepErr, c.store.wanted = true, nil, true
	c.view.SetReplicas(max(1, c.cfg.Replicas))
	c.storeChanged(now)
}

// StoreState sets the reason why buckets and stream cannot be used; nil if they can.
func (c *Core) StoreState(now time.Time, err error) {
	c.look(now)
	c.store.keepErr = err
	c.storeChanged(now)
}

// StoreStopped takes a description of anything that a server has stopped of buckets and
// stream; "" means nothing.
func (c *Core) StoreStopped(now time.Time, what string) {
	c.look(now)
	if c.store.stopped = what; what == "" {
		c.ready.Logs.Add(slog.LevelInfo, "JetStream runs on all servers again")
		return
	}
	c.ready.Logs.Add(slog.LevelError, "a nats-server stops what it cannot write, mostly for lack of space, and does not resume: free some space, and restart it", slog.String("what", what))
}

// StoppedStore returns the last description that StoreStopped took.
func (c *Core) StoppedStore() string { return c.store.stopped }

// Renewed records that bucket and roster may have been created again.
func (c *Core) Renewed(now time.Time) {
	c.look(now)
	c.store.wanted = true
}

// storeChanged handles a change in the availability of JetStream.
func (c *Core) storeChanged(now time.Time) {
	s := &c.store
	there, err := s.there(), errors.Join(s.keepErr, s.opErr)
	s.full = s.full || errors.Is(err, ledger.ErrNoSpace)
	if !there {
		c.startup.failed = true
	}
	if !s.opened && (errors.Is(err, ledger.ErrDiffers) || errors.Is(err, ledger.ErrServerTooOld)) {
		c.ready.Err = fmt.Errorf("queen: %w", err)
		return
	}
	switch {
	case there && !s.reported && s.since.IsZero():
		c.ready.Logs.Add(slog.LevelInfo, "JetStream is available")
	case there && !s.reported:
		c.ready.Logs.Add(slog.LevelInfo, "JetStream is back", slog.Duration("after", now.Sub(s.since)))
	case !there && (s.reported || s.since.IsZero()):
		s.since = now
		switch {
		case errors.Is(err, ledger.ErrDiffers):
			c.ready.Logs.Add(slog.LevelError, "JetStream cannot be used: a bucket or the stream exists with other settings; remove it, or start the queen with the same settings", slog.Any("err", err))
		case errors.Is(err, ledger.ErrNoSpace):
			c.ready.Logs.Add(slog.LevelError, "JetStream has no space: events wait, the view continues in memory; free some space, or lower --events-max", slog.Any("err", err))
		default:
			c.ready.Logs.Add(slog.LevelWarn, "JetStream is away: events wait, the view continues in memory", slog.Any("err", err))
		}
		if !s.opened { // nothing else lists the hives
			c.callAll(now)
		}
	}
	s.reported = there
}

// trouble records a failure in JetStream. JetStream counts as away until a probe succeeds.
func (c *Core) trouble(err error, now time.Time) {
	s := &c.store
	if err == nil || c.cfg.NoJetStream || s.opErr != nil {
		return
	}
	if s.backoff == 0 || now.Sub(s.probeAt) > 30*time.Second {
		s.backoff = probeFirst
	}
	s.backoff = min(2*s.backoff, probeMost)
	s.opErr, s.probeAt = err, now.Add(s.backoff)
	c.storeChanged(now)
}

// probe checks whether JetStream answers again and has a quorum. It also checks the quorum
// while JetStream cannot be used for another reason.
func (c *Core) probe(now time.Time) {
	s := &c.store
	if s.there() && c.view.Apart() == "" || s.probing || now.Before(s.probeAt) || !s.opened {
		return
	}
	s.probing = true
	asked := now
	c.do(&Op{Kind: OpProbe, Within: checkWithin, Quorum: true}, func(now time.Time, op *Op) {
		s.probing, s.probeAt = false, now.Add(probeAgain)
		if op.Err == nil {
			s.opErr = nil
			c.storeChanged(now)
			c.view.Prove(asked.Add(-op.Ago), now)
			return
		}
		s.backoff = min(max(2*s.backoff, probeFirst), probeMost)
		s.probeAt = now.Add(s.backoff)
	})
}

// read asks for a read of bucket and roster if they may differ from before.
func (c *Core) read(now time.Time) {
	s := &c.store
	if !s.opened || !s.wanted || s.reading || now.Before(s.readAt) {
		return
	}
	s.wanted, s.reading = false, true
	s.began, s.present = now, make(map[string]bool)
	c.ready.Read = true
}

// RosterRead takes the whole roster.
func (c *Core) RosterRead(now time.Time, roster map[string]ledger.RosterItem) {
	c.look(now)
	for _, key := range slices.Sorted(maps.Keys(roster)) {
		c.roster(now, key, roster[key], lookWithinFirst)
	}
	var gone []string
	c.view.EachKey(func(key string) {
		if _, ok := roster[key]; !ok {
			gone = append(gone, key)
		}
	})
	for _, key := range gone {
		c.view.UnlearnKey(key, false, now)
	}
	c.store.roster = true
}

// Kept takes a snapshot from the bucket.
func (c *Core) Kept(now time.Time, e *ledger.Entry) {
	c.look(now)
	c.store.present[e.Hive] = true
	s := &c.scratch
	err := wire.ParseSnapshot(e.Payload, s)
	if err == nil && string(s.Hive) != e.Hive {
		err = &hivebeat.Refusal{Reason: hivebeat.RefusedForeign, Key: "hive", Detail: "not the hive of its key"}
	}
	if err != nil {
		c.view.Refuse(hivebeat.ReasonOf(err))
		c.ready.Logs.Add(slog.LevelWarn, "a snapshot in the bucket was refused", slog.String("hive", e.Hive), slog.Any("err", err))
		return
	}
	// An entry gives its age in whole seconds, so it may be up to a second older.
	c.view.Adopt(s, e.Age(hivebeat.Millis(s.Every).Duration())+time.Second, now)
}

// ReadDone ends the read that Ready.Read asked for. err says why it is incomplete.
func (c *Core) ReadDone(now time.Time, err error) {
	c.look(now)
	s := &c.store
	s.reading = false
	if err != nil {
		s.wait = min(max(2*s.wait, readFirst), readMost)
		s.wanted, s.readAt = true, now.Add(s.wait)
		c.trouble(err, now)
		return
	}
	s.wait = 0
	c.wasRead(s.present, s.began, now)
	s.present = nil
}

// Roster takes one new entry of the roster.
func (c *Core) Roster(now time.Time, key string, item ledger.RosterItem) {
	c.look(now)
	c.roster(now, key, item, lookWithin)
}

// roster takes one entry, and ensures that its event gets out even if the queen that wrote
// it died before it could publish.
func (c *Core) roster(now time.Time, key string, item ledger.RosterItem, within time.Duration) {
	switch {
	case item.Own: // the announcement handles it; here the queen only learns that the bucket was created again
		if t := c.view.Announcer(key); t != nil {
			b := t.Roster()
			b.Item.Epoch = max(b.Item.Epoch, item.Epoch)
		}
	case item.Gone:
		c.view.UnlearnKey(key, true, now)
	default:
		c.lookAfter(c.view.LearnKey(key, item, now), now, within)
	}
}

// lookAfter schedules the event in the entry of t to be published again, unless it is known
// to be stored or other work on t will find out.
func (c *Core) lookAfter(t fleet.Announcer, now time.Time, within time.Duration) {
	b := t.Roster()
	if e := &b.Item; e.N > b.Confirmed && len(e.Event) > 0 && e.Stored < fleet.TooOld && !b.Busy {
		c.store.unsure.Set(t, now.Add(lookAfter+time.Duration(c.cfg.Random()*float64(within))))
	}
}

// confirm publishes events again that may never have been published.
func (c *Core) confirm(now time.Time) {
	s := &c.store
	if !s.there() {
		return
	}
	for t := range s.unsure.Due(now) {
		b := t.Roster()
		if !c.view.Knows(t) || b.Item.N <= b.Confirmed || b.Busy {
			continue
		}
		item := b.Item
		item.Stored += now.Sub(b.ReadAt)
		msgs, err := item.EventMsgs()
		if err != nil {
			c.ready.Logs.Add(slog.LevelError, "cannot decode the event in a roster entry", slog.String("key", t.Key()), slog.Any("err", err))
			continue
		}
		c.do(&Op{Kind: OpPublish, Msgs: msgs}, func(now time.Time, op *Op) {
			err := firstError(op.Errs, ledger.ErrTooOld)
			if err == nil {
				b.Confirmed = max(b.Confirmed, item.N)
				c.live.stored(t)
				return
			}
			s.unsure.Set(t, now.Add(lookAfter))
			c.trouble(err, now)
		})
	}
}

// firstError returns the first error that is not but.
func firstError(errs []error, but error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, but) {
			return err
		}
	}
	return nil
}

// check reads the keys of hives that are about to be late or lost. If it cannot read them
// the verdicts stand, and it reports that there were some.
func (c *Core) check(now time.Time) (stand bool) {
	s := &c.store
	for len(s.checks) > 0 && !s.there() {
		x := s.checks[0]
		s.checks = s.checks[1:]
		c.view.Checked(x, 0, 0, now)
		stand = true
	}
	for len(s.checks) > 0 && s.checking < checkBatches {
		n := min(checkBatch, len(s.checks))
		batch := s.checks[:n:n]
		s.checks = s.checks[n:]
		s.checking++
		op := &Op{Kind: OpHeads, Keys: make([]string, n), Within: checkWithin}
		for i, x := range batch {
			op.Keys[i] = x.Hive.ID()
			op.Quorum = op.Quorum || c.view.Unproved(x.Hive, now)
		}
		asked := now
		c.do(op, func(now time.Time, op *Op) {
			s.checking--
			var failed error
			if op.Quorum {
				if failed = op.Err; failed == nil {
					c.view.Prove(asked.Add(-op.Ago), now)
				}
			}
			for i, x := range batch {
				h := op.Heads[i]
				if h.Err != nil || !h.OK {
					h.Inc, h.Seq = 0, 0
				}
				c.view.Checked(x, h.Inc, h.Seq, now)
				failed = firstOf(failed, h.Err)
			}
			c.trouble(failed, now)
		})
	}
	return stand
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
