package ledger

import (
	"context"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
)

// Head is the (Inc, Seq) of the last snapshot put for a hive. OK is false if there is none,
// if it has expired, or if Err says why it is unknown.
type Head struct {
	Inc, Seq uint64
	OK       bool
	Err      error
}

// Heads returns the Head of each hive (of its page 0). That there is none proves only that
// no queen put one. It sends all requests together over one subscription, and takes
// Config.Timeout at most for all of them.
func (l *Ledger) Heads(ctx context.Context, hives []string) []Head {
	heads := make([]Head, len(hives))
	open, err := l.heads(ctx, hives, heads)
	for i := range open {
		heads[i].Err = wrap(ctx, "read "+hives[i], err)
	}
	return heads
}

// heads fills heads. It returns the indexes that got no answer, and why.
func (l *Ledger) heads(ctx context.Context, hives []string, heads []Head) (map[int]struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	open := make(map[int]struct{}, len(hives))
	for i, id := range hives {
		if heads[i].Err = hivebeat.CheckID("hive", id); heads[i].Err == nil {
			open[i] = struct{}{}
		}
	}
	answers := make(chan *nats.Msg, len(hives))
	inbox := l.nc.NewInbox() + "."
	sub, err := l.nc.ChanSubscribe(inbox+"*", answers)
	if err != nil {
		return open, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	bucket := l.bucketOf(atHives)
	begin := l.api + "DIRECT.GET." + bucketStream(bucket) + ".$KV." + bucket + "."
	for i := range open {
		if err := l.nc.PublishRequest(begin+hives[i], inbox+strconv.Itoa(i), nil); err != nil {
			return open, err
		}
	}
	for len(open) > 0 {
		select {
		case <-ctx.Done():
			return open, ctx.Err()
		case m := <-answers:
			i, err := strconv.Atoi(m.Subject[len(inbox):])
			if _, ok := open[i]; err != nil || !ok {
				continue // answered twice, or not a reply to us
			}
			delete(open, i)
			last, err := directAnswer(m)
			heads[i].Err = wrap(ctx, "read "+hives[i], err)
			heads[i].Inc, heads[i].Seq, heads[i].OK = stamp(last.header)
		}
	}
	return nil, nil
}
