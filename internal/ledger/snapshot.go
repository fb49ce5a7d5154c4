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

// putTries limits the compare-and-set attempts of one put. Each lost attempt means that
// another queen put this key since it was read.
const putTries = 8

// Snapshot is one page of a snapshot as received, to be put.
type Snapshot struct {
	Hive     string
	Page     uint64 // 0-based
	Inc, Seq uint64
	Payload  []byte        // kept until it is put; must not change
	Received time.Time     // with its monotonic reading
	Every    time.Duration // the hive's promise
}

// sameAs reports whether both are pages of one snapshot.
func (s Snapshot) sameAs(t Snapshot) bool { return s.Inc == t.Inc && s.Seq == t.Seq }

// key returns <hive> for page 0, and <hive>.<page> for later pages.
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

// ttl returns how long a key lives: max(1 s, ceil(3 × every − age)), in the whole seconds
// that the server counts.
func ttl(every, age time.Duration) time.Duration {
	left := 3*every - max(0, age)
	return max(time.Second, (left + time.Second - 1).Truncate(time.Second))
}

// errKnown is ErrStale, found without a request.
var errKnown = fmt.Errorf("%w, as known before", ErrStale)

// PutSnapshot puts one page, unless the bucket holds this snapshot or a newer one
// (ErrStale). The key lives for max(1 s, ceil(3 × Every − (now − Received))): a key that
// exists is fresh. A snapshot received more than one Every ago is refused with ErrTooOld.
// Other errors wrap ErrAway, ErrNoSpace, or ErrConflict if the key kept changing.
//
// Newer means a higher incarnation, or the same incarnation and a higher seq. A hive whose
// clock was set back is therefore kept out until the key of its higher incarnation has
// expired.
func (l *Ledger) PutSnapshot(ctx context.Context, s Snapshot, now time.Time) error {
	if age := now.Sub(s.Received); age > s.Every {
		return fmt.Errorf("ledger: put %s: %w: received %v ago, its promise is %v", s.key(), ErrTooOld, age.Round(time.Millisecond), s.Every)
	}
	if !l.nc.IsConnected() {
		return fmt.Errorf("ledger: put %s: %w: not connected to NATS", s.key(), ErrAway)
	}
	last, known := l.seqs.expect(s, now)
	if known {
		return fmt.Errorf("ledger: put %s: %w", s.key(), errKnown)
	}
	seq, err := l.store(ctx, l.putMsg(s, now), last)
	if conflict(err) {
		return l.settle(ctx, s, now)
	}
	return l.stored(ctx, s, seq, now, err)
}

// settle completes a put that met an unexpected sequence: it reads the current value, and
// gives up or tries again.
func (l *Ledger) settle(ctx context.Context, s Snapshot, now time.Time) error {
	begin := time.Now()
	for try := range putTries {
		if try > 1 {
			// Several queens are writing this key: spread them out.
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(10 * time.Millisecond)):
			}
		}
		// A replica that is behind may answer a direct get, so after a second conflict the
		// leader is asked.
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

// learn remembers a message that was read.
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

// putMsg returns the message of a put, without the expected sequence.
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

// stamp reads (inc, seq) from the headers of a value. A marker has none, nor does a value
// that another program put.
func stamp(h nats.Header) (inc, seq uint64, ok bool) {
	inc, err1 := strconv.ParseUint(h.Get(HeaderInc), 10, 64)
	seq, err2 := strconv.ParseUint(h.Get(HeaderSeq), 10, 64)
	return inc, seq, err1 == nil && err2 == nil && !isMarker(h)
}

// isMarker reports whether a message marks its key as gone: expired, removed or purged.
func isMarker(h nats.Header) bool {
	return h.Get(jetstream.MarkerReasonHeader) != "" || h.Get(kvOperation) != ""
}

// kvOperation is the header that nats.go sets on the markers of a delete and a purge.
const kvOperation = "KV-Operation"
