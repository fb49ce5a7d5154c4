package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Intervals of Wait and Keep.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 5 * time.Second
	keepEvery  = 10 * time.Second
)

// Wait calls Open until it succeeds, ctx ends or the connection is closed for good. It
// waits at most 5 s between two attempts, and tries at once after a reconnect. report
// receives each error whose text differs from the one before; it may be nil.
func Wait(ctx context.Context, nc *nats.Conn, cfg Config, report func(error)) (*Ledger, error) {
	if nc == nil {
		return nil, errors.New("ledger: nc is nil")
	}
	if err := cfg.withDefaults().validate(); err != nil {
		return nil, err
	}
	status := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	said := ""
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		l, err := Open(ctx, nc, cfg)
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case nc.IsClosed():
			return nil, fmt.Errorf("ledger: %w", nats.ErrConnectionClosed)
		}
		if report != nil && err.Error() != said {
			said = err.Error()
			report(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-status:
			pause = retryFirst
		case <-time.After(pause):
		}
	}
}

// Identity distinguishes the buckets and the stream from later ones of the same names. It
// changes when one of them is created again, and contains "absent" for one that does not
// exist.
func (l *Ledger) Identity(ctx context.Context) (string, error) {
	var b strings.Builder
	for i, want := range l.layout() {
		if i > 0 {
			b.WriteByte(' ')
		}
		info, err := l.info(ctx, want.Name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			b.WriteString("absent")
		case err != nil:
			return "", wrap(ctx, human(want.Name), err)
		default:
			b.WriteString(info.Created.UTC().Format(time.RFC3339Nano))
		}
	}
	return b.String(), nil
}

// Quorum asks the leader of the roster how long ago it was in touch with a majority of the
// servers that store it. A leader that has lost its quorum still answers questions for some
// seconds, but acknowledges nothing.
func (l *Ledger) Quorum(ctx context.Context) (ago time.Duration, err error) {
	name := l.layout()[atRoster].Name
	info, err := l.info(ctx, name)
	if err != nil {
		return 0, wrap(ctx, human(name), err)
	}
	ago, ok := inTouch(info.Cluster)
	if !ok {
		return 0, fmt.Errorf("ledger: %s: %w: its leader is not in touch with a majority of its servers", human(name), ErrAway)
	}
	return ago, nil
}

// inTouch returns how long ago the leader of a stream was in touch with a majority of its
// servers, itself included. ok is false if it is not in touch with one.
func inTouch(c *jetstream.ClusterInfo) (ago time.Duration, ok bool) {
	if c == nil || len(c.Replicas) == 0 { // its only server has answered
		return 0, true
	}
	var with []time.Duration
	for _, p := range c.Replicas {
		if p.Current && !p.Offline {
			with = append(with, p.Active)
		}
	}
	others := (len(c.Replicas) + 1) / 2
	if c.Leader == "" || len(with) < others {
		return 0, false
	}
	slices.Sort(with)
	return with[others-1], true
}

func (l *Ledger) info(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	s, err := l.js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}

// Reopen creates the buckets and the stream that are missing, checks the others, and
// reports whether one of them was created again since the last Open or Reopen that
// succeeded. Everything read from it before is then void, and must be read again. Its
// errors are those of Open.
func (l *Ledger) Reopen(ctx context.Context) (changed bool, err error) {
	tctx, cancel := l.whileConnected(ctx)
	defer cancel()
	var seen keepers
	for i, want := range l.layout() {
		info, err := l.ensure(tctx, want)
		if err != nil {
			return false, err
		}
		created := info.Created
		seen.add(info.Cluster, want.Replicas)
		l.mu.Lock()
		before := l.ids[i]
		l.ids[i] = created
		l.renewed = l.renewed || !before.IsZero() && !before.Equal(created)
		l.mu.Unlock()
		if !before.Equal(created) && i == atHives {
			l.seqs.clear()
		}
		if !before.IsZero() && !before.Equal(created) {
			l.cfg.Logger.Warn("lost in JetStream, created again", slog.String("what", human(want.Name)))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keepers = l.keepers.next(seen)
	changed, l.renewed = l.renewed, false
	return changed, nil
}

// Keep runs until ctx ends and then returns nil, or until the connection is closed for good
// and then returns an error. It calls Reopen at once, after every reconnect, every 10 s,
// and soon after a write that got no answer.
//
// Keep calls renewed after a reconnect, and when something was created again: the queen
// then reads the bucket and the roster again. It calls state with the error when the ledger
// stops being usable or the reason changes, and with nil when the ledger is usable again.
// It calls halted with a description of everything that a server has stopped, whenever that
// changes, and with "" when it is over. Each may be nil; all are called from Keep's
// goroutine.
func (l *Ledger) Keep(ctx context.Context, renewed func(), state func(error), halted func(string)) error {
	status := l.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer l.nc.RemoveStatusListener(status)
	var look stopped
	said := ""
	say := func(err error) {
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != said && state != nil {
			state(err)
		}
		said = text
	}
	owed := false // renewed has not been called yet for a reconnect
	for pause := retryFirst; ; {
		wait := keepEvery
		changed, err := l.Reopen(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case l.nc.IsClosed():
			return fmt.Errorf("ledger: %w", nats.ErrConnectionClosed)
		case err != nil:
			say(err)
			wait, pause = pause, min(2*pause, retryMost)
		default:
			say(nil)
			pause = retryFirst
			if (changed || owed) && renewed != nil {
				renewed()
			}
			owed = false
		}
		look.look(ctx, l, err, halted)
		if again := l.idle(ctx, status, wait); again {
			owed, pause = true, retryFirst
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// idle waits for a reason to check again, and reports whether it was a reconnect.
func (l *Ledger) idle(ctx context.Context, status <-chan nats.Status, wait time.Duration) (reconnected bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case s := <-status:
		return s == nats.CONNECTED
	case <-timer.C:
	case <-l.suspect:
		// A burst of failing writes counts as one reason.
		select {
		case <-ctx.Done():
		case s := <-status:
			return s == nats.CONNECTED
		case <-time.After(min(wait, retryFirst)):
		}
	}
	return false
}

// outcome records how a write ended. A write without an answer makes Keep check soon.
func (l *Ledger) outcome(at int, err error) {
	if !errors.Is(err, ErrAway) {
		l.unacked[at].end()
		return
	}
	l.unacked[at].note(time.Now())
	l.doubt()
}

// doubt makes Keep check soon.
func (l *Ledger) doubt() {
	select {
	case l.suspect <- struct{}{}:
	default:
	}
}
