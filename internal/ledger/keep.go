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

// Paces of Wait and Keep.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 5 * time.Second
	keepEvery  = 10 * time.Second
)

// Wait opens a ledger as soon as that is possible: it tries again, at most every
// 5 s and at once after a reconnect, until Open succeeds or ctx ends. report gets
// each error that reads otherwise than the one before; it may be nil.
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

// Identity tells the buckets and the stream from those of the same names that
// were made later: it changes when one of them was made anew, and holds "absent"
// where one is not there.
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

// Quorum asks the leader of the roster how long ago it was in touch with most of the
// servers that keep it. One that has lost its quorum answers questions for some seconds
// more, and acknowledges nothing.
func (l *Ledger) Quorum(ctx context.Context) (ago time.Duration, err error) {
	name := l.layout()[atRoster].Name
	info, err := l.info(ctx, name)
	if err != nil {
		return 0, wrap(ctx, human(name), err)
	}
	ago, ok := inTouch(info.Cluster)
	if !ok {
		return 0, fmt.Errorf("ledger: %s: %w: most of its servers are not in touch", human(name), ErrAway)
	}
	return ago, nil
}

// inTouch returns how long ago the leader of a stream was in touch with most of its
// servers, itself included. ok is false where it is not.
func inTouch(c *jetstream.ClusterInfo) (ago time.Duration, ok bool) {
	if c == nil || len(c.Replicas) == 0 { // one server keeps it, which answered
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

// Reopen makes what is missing, checks what is there, and reports whether one of
// them is another one than at the last Open or Reopen that succeeded: then what
// was read from it is no longer true, and has to be read anew. Its errors are
// those of Open.
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
			l.cfg.Logger.Warn("lost in JetStream, and made anew", slog.String("what", human(want.Name)))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keepers = l.keepers.next(seen)
	changed, l.renewed = l.renewed, false
	return changed, nil
}

// Keep runs until ctx ends, and returns nil then, or the error that the
// connection is closed for good. At once, after every reconnect, every 10 s, and
// when a write finds nobody, it does what Reopen does.
//
// renewed is called after a reconnect, and where something was made anew: the
// queen then reads bucket and roster again. state is called with the error when
// the ledger stops being usable or the reason changes, and with nil when it is
// usable again. halted is called with what a server has stopped, in words, when that is
// found or is something else than before, and with "" when it is over. Each may be nil;
// all are called from Keep's goroutine.
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
	owed := false // a reconnect that renewed was not told of yet
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

// idle waits for a reason to look again, and reports whether it was a reconnect.
func (l *Ledger) idle(ctx context.Context, status <-chan nats.Status, wait time.Duration) (reconnected bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case s := <-status:
		return s == nats.CONNECTED
	case <-timer.C:
	case <-l.suspect:
		// A burst of failing writes is one reason.
		select {
		case <-ctx.Done():
		case s := <-status:
			return s == nats.CONNECTED
		case <-time.After(min(wait, retryFirst)):
		}
	}
	return false
}

// outcome takes how a write ended: without an acknowledgement it makes Keep look soon.
func (l *Ledger) outcome(at int, err error) {
	if !errors.Is(err, ErrAway) {
		l.unacked[at].end()
		return
	}
	l.unacked[at].note(time.Now())
	l.doubt()
}

// doubt makes Keep look soon.
func (l *Ledger) doubt() {
	select {
	case l.suspect <- struct{}{}:
	default:
	}
}
