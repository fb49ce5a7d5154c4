package ledger

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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

// EachHive calls fn with every page of every hive in the bucket, in the order they were
// put, and returns when fn has seen all of them. It leaves out expired pages, and values
// that another program put under an invalid key or without headers. fn may keep Payload. An
// error usually wraps ErrAway; fn may have been called before it.
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
