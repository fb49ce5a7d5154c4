package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Headers of a value in queen_hives.
const (
	HeaderInc = "Hivebeat-Inc"
	HeaderSeq = "Hivebeat-Seq"
)

// putTries bounds the compare-and-set of one put. Each lost try means that
// somebody else put this key since we read it.
const putTries = 8

// Snapshot is one page of a snapshot as it came, to be put.
type Snapshot struct {
	Hive     string
	Page     uint64 // 0-based
	Inc, Seq uint64
	Payload  []byte        // kept until it was put: not to be changed after
	Received time.Time     // with its monotonic reading
	Every    time.Duration // the hive's promise
}

// sameAs reports whether both are pages of one snapshot.
func (s Snapshot) sameAs(t Snapshot) bool { return s.Inc == t.Inc && s.Seq == t.Seq }

// key is <hive>, and <hive>.<page> from page 1 on.
func (s Snapshot) key() string {
	if s.Page == 0 {
		return s.Hive
	}
	return s.Hive + "." + strconv.FormatUint(s.Page, 10)
}

func parseKey(key string) (hive string, page uint64, ok bool) {
	hive, rest, paged := strings.Cut(key, ".")
	if paged {
		var err error
		if page, err = strconv.ParseUint(rest, 10, 64); err != nil || page == 0 || strconv.FormatUint(page, 10) != rest {
			return "", 0, false
		}
	}
	return hive, page, hivebeat.ValidID(hive)
}

// ttl is how long a key lives: max(1 s, ceil(3 × every − age)), in whole seconds,
// as the server counts them.
func ttl(every, age time.Duration) time.Duration {
	left := 3*every - max(0, age)
	return max(time.Second, (left + time.Second - 1).Truncate(time.Second))
}

// PutSnapshot puts one page, unless the bucket holds one as new or newer
// (ErrStale). The key lives for max(1 s, ceil(3 × Every − (now − Received))): one
// that is there is fresh. A snapshot received more than one Every ago is refused
// with ErrTooOld. Other errors wrap ErrAway or ErrNoSpace.
//
// New means a higher incarnation, or the same and a higher seq. A hive whose
// clock was set back is therefore kept out until the key of its higher
// incarnation has expired.
func (l *Ledger) PutSnapshot(ctx context.Context, s Snapshot, now time.Time) error {
	if age := now.Sub(s.Received); age > s.Every {
		return fmt.Errorf("ledger: put %s: %w: received %v ago, its promise is %v", s.key(), ErrTooOld, age.Round(time.Millisecond), s.Every)
	}
	if !l.nc.IsConnected() {
		return fmt.Errorf("ledger: put %s: %w: not connected to NATS", s.key(), ErrAway)
	}
	last, known := l.seqs.expect(s, now)
	if known {
		return fmt.Errorf("ledger: put %s: %w", s.key(), ErrStale)
	}
	seq, err := l.store(ctx, l.putMsg(s, now), last)
	if conflict(err) {
		return l.settle(ctx, s, now)
	}
	return l.stored(ctx, s, seq, now, err)
}

// settle ends a put that met another sequence than expected: it reads what is
// there, and gives up or tries again.
func (l *Ledger) settle(ctx context.Context, s Snapshot, now time.Time) error {
	begin := time.Now()
	for try := range putTries {
		if try > 1 {
			// Several queens at one key: let them come apart.
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(10 * time.Millisecond)):
			}
		}
		// A direct get may be answered by a replica that is behind, so after a
		// second conflict the leader is asked.
		last, err := l.last(ctx, atHives, s.key(), try > 0)
		if err != nil {
			return l.stored(ctx, s, 0, now, err)
		}
		if inc, seq, ok := stamp(last.header); ok && asNew(inc, seq, s) {
			l.learn(s.key(), last, now)
			return fmt.Errorf("ledger: put %s: %w: (%d, %d)", s.key(), ErrStale, inc, seq)
		}
		at := now.Add(time.Since(begin))
		seq, err := l.store(ctx, l.putMsg(s, at), last.seq)
		if !conflict(err) {
			return l.stored(ctx, s, seq, at, err)
		}
	}
	return fmt.Errorf("ledger: put %s: %w: the key changed %d times", s.key(), ErrConflict, putTries)
}

func (l *Ledger) stored(ctx context.Context, s Snapshot, seq uint64, now time.Time, err error) error {
	if err != nil {
		err = wrap(ctx, "put "+s.key(), err)
	}
	if l.outcome(atHives, err); err != nil {
		return err
	}
	l.seqs.set(s.key(), sequence{seq: seq, inc: s.Inc, hive: s.Seq, until: now.Add(ttl(s.Every, now.Sub(s.Received))), at: now})
	return nil
}

// learn remembers what was read.
func (l *Ledger) learn(key string, m message, now time.Time) {
	v := sequence{seq: m.seq, at: now}
	if inc, seq, ok := stamp(m.header); ok {
		life, err := time.ParseDuration(m.header.Get(jetstream.MsgTTLHeader))
		if err != nil {
			life = hivesTTL
		}
		v.inc, v.hive, v.until = inc, seq, now.Add(life)
	}
	l.seqs.set(key, v)
}

// putMsg returns the message of a put, but for the expected sequence.
func (l *Ledger) putMsg(s Snapshot, now time.Time) *nats.Msg {
	return &nats.Msg{
		Subject: l.subject(atHives, s.key()),
		Header: nats.Header{
			HeaderInc:              {strconv.FormatUint(s.Inc, 10)},
			HeaderSeq:              {strconv.FormatUint(s.Seq, 10)},
			jetstream.MsgTTLHeader: {ttl(s.Every, now.Sub(s.Received)).String()},
		},
		Data: s.Payload,
	}
}

// stamp reads (inc, seq) from a value's headers. A marker, and a value put by
// other hands, has none.
func stamp(h nats.Header) (inc, seq uint64, ok bool) {
	inc, err1 := strconv.ParseUint(h.Get(HeaderInc), 10, 64)
	seq, err2 := strconv.ParseUint(h.Get(HeaderSeq), 10, 64)
	return inc, seq, err1 == nil && err2 == nil && !isMarker(h)
}

// isMarker reports whether a message says that the key is gone: expired, removed
// or purged.
func isMarker(h nats.Header) bool {
	return h.Get(jetstream.MarkerReasonHeader) != "" || h.Get(kvOperation) != ""
}

// kvOperation is set by nats.go on the markers of a delete and a purge.
const kvOperation = "KV-Operation"
