package ledger

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Entry is one value of queen_hives.
type Entry struct {
	Hive     string
	Page     uint64
	Inc, Seq uint64
	Payload  []byte
	Stored   time.Duration // since it was put, by the server's clock alone
	TTL      time.Duration // TTL of the put; 0 = none: another program put it
}

// Age returns how long ago the queen that put the snapshot received it, computed from the
// TTL. The true age may be up to 1 s more. Age is never less than Stored. every is the
// promise in the snapshot.
func (e Entry) Age(every time.Duration) time.Duration {
	if e.TTL == 0 {
		return e.Stored
	}
	return e.Stored + max(0, 3*every-e.TTL)
}

// Hives returns every page of every hive in the bucket. It leaves out expired pages, and
// values that another program put under an invalid key or without headers. 10,000 hives of
// 100 workers take some 200 MB at once; EachHive needs one page at a time.
func (l *Ledger) Hives(ctx context.Context) ([]Entry, error) {
	var all []Entry
	if err := l.EachHive(ctx, func(e Entry) { all = append(all, e) }); err != nil {
		return nil, err
	}
	return all, nil
}

// EachHive calls fn with every page of every hive in the bucket, in the order they were
// put, and returns when fn has seen all of them. fn may keep Payload. An error usually
// wraps ErrAway; fn may have been called before it.
func (l *Ledger) EachHive(ctx context.Context, fn func(Entry)) error {
	now := time.Now()
	err := new(reader).read(ctx, l, atHives, true, func(f found) {
		l.learn(f.key, f.message, now)
		inc, seq, ok := stamp(f.header)
		hive, page, valid := parseKey(f.key)
		if !ok || !valid {
			return
		}
		e := Entry{Hive: hive, Page: page, Inc: inc, Seq: seq, Payload: f.data, Stored: f.age}
		if d, err := time.ParseDuration(f.header.Get(jetstream.MsgTTLHeader)); err == nil {
			e.TTL = d
		}
		fn(e)
	})
	return wrap(ctx, "read "+human(bucketStream(l.bucketOf(atHives))), err)
}

// Hive returns the (inc, seq) of the last snapshot put for a hive (of its page 0). ok is
// false if there is none or it has expired, which proves only that no queen put one. It
// takes Config.Timeout at most.
func (l *Ledger) Hive(ctx context.Context, id string) (inc, seq uint64, ok bool, err error) {
	if err := hivebeat.CheckID("hive", id); err != nil {
		return 0, 0, false, err
	}
	m, err := l.last(ctx, atHives, id, false)
	if err != nil {
		return 0, 0, false, wrap(ctx, "read "+id, err)
	}
	inc, seq, ok = stamp(m.header)
	return inc, seq, ok, nil
}
