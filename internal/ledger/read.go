package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Limits of a reader: how much is in flight at once, and how soon it notices silence.
const (
	readAhead      = 512
	readAheadBytes = 16 << 20
	readHeartbeat  = 2 * time.Second
	readExpiry     = 20 * time.Second
	readStuck      = 500 * time.Millisecond
	readIdle       = 30 * time.Second // idle time after which the server removes a consumer
)

// found is a message of a bucket as a reader receives it.
type found struct {
	message
	key string
	age time.Duration // since it was stored, by the server's clock alone
}

// reader reads a bucket in order: first the last message of each key, and after that every
// new message. It does not resume by itself. The ordered consumer of nats.go does, but its
// Stop can wait 20 s for a server that is away, and it continues at its old sequence in a
// bucket that was created again.
type reader struct {
	epoch int64  // when the bucket was created
	next  uint64 // sequence after the last one handled; 0 = nothing yet
}

// errRenewed means that the bucket was created again since the last read.
var errRenewed = errors.New("the bucket was created again")

// read calls fn from one goroutine at a time until ctx ends or an error occurs. With once
// set, it also ends when fn has seen everything that existed at the start. It returns only
// after the last call of fn.
func (r *reader) read(ctx context.Context, l *Ledger, at int, once bool, fn func(found)) error {
	ctx, cancel := l.whileConnected(ctx)
	defer cancel()
	bucket := l.bucketOf(at)
	asked := time.Now()
	info, err := l.info(ctx, bucketStream(bucket))
	if err != nil {
		return err
	}
	epoch := info.Created.UnixNano()
	if r.epoch != 0 && r.epoch != epoch {
		return errRenewed
	}
	r.epoch = epoch
	cfg := jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverLastPerSubjectPolicy,
		FilterSubject:     "$KV." + bucket + ".>",
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: readIdle,
	}
	if r.next > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, r.next
	}
	cons, err := l.js.CreateConsumer(ctx, bucketStream(bucket), cfg)
	if err != nil {
		return err
	}
	if once && cons.CachedInfo().NumPending == 0 {
		l.forget(bucketStream(bucket), cons.CachedInfo().Name)
		return nil
	}

	var (
		mu    sync.Mutex // held while fn runs, so that it does not run after read returns
		ended bool
		seen  uint64
		done  = make(chan error, 1)
	)
	end := func(err error) {
		select {
		case done <- err:
		default: // already ending
		}
	}
	consume, err := cons.Consume(func(m jetstream.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		meta, err := m.Metadata()
		if err != nil { // not from the stream: a client gave this inbox as the reply subject of another request
			return
		}
		if seen++; meta.Sequence.Consumer != seen {
			ended = true
			end(fmt.Errorf("%w: message %d arrived instead of %d", ErrAway, meta.Sequence.Consumer, seen))
			return
		}
		r.next = meta.Sequence.Stream + 1
		// The server's time now is the time it reported, plus the time since.
		now := info.TimeStamp.Add(time.Since(asked))
		fn(found{
			message: message{seq: meta.Sequence.Stream, header: m.Headers(), data: m.Data(), stored: meta.Timestamp},
			key:     strings.TrimPrefix(m.Subject(), "$KV."+bucket+"."),
			age:     max(0, now.Sub(meta.Timestamp)),
		})
		if once && (meta.NumPending == 0 || meta.Sequence.Stream >= info.State.LastSeq) {
			ended = true
			end(nil)
		}
	},
		jetstream.PullMaxMessagesWithBytesLimit(readAhead, readAheadBytes),
		jetstream.PullExpiry(readExpiry),
		jetstream.PullHeartbeat(readHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { end(err) }),
	)
	if err != nil {
		return err
	}
	progress := func() uint64 { mu.Lock(); defer mu.Unlock(); return seen }
	err = wait(ctx, done, once, cons, progress)
	consume.Stop()
	mu.Lock()
	ended = true
	mu.Unlock()
	l.forget(bucketStream(bucket), cons.CachedInfo().Name)
	return err
}

// wait blocks until a reader ends, and returns why.
func wait(ctx context.Context, done <-chan error, once bool, cons jetstream.Consumer, progress func() uint64) error {
	var tick <-chan time.Time
	if once {
		t := time.NewTicker(readStuck)
		defer t.Stop()
		tick = t.C
	}
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-done:
			return err
		case <-tick:
			// The pending messages may have expired since, and nothing else arrives.
			now := progress()
			if now != before {
				before = now
				continue
			}
			info, err := cons.Info(ctx)
			if err != nil {
				return err
			}
			if info.NumPending == 0 && info.Delivered.Consumer == progress() {
				return nil
			}
		}
	}
}

// whileConnected returns a context that ends when the connection is cut. nats.go lets a
// request wait for an answer that can no longer come. Messages that were sent to a reader
// are lost, and after a restart its consumer is too.
func (l *Ledger) whileConnected(ctx context.Context) (context.Context, context.CancelFunc) {
	status := l.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-status:
			cancel(fmt.Errorf("%w: the connection is %v", ErrAway, s))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
		l.nc.RemoveStatusListener(status)
	}
}

// forget removes a consumer that is no longer needed, without waiting. If the request is
// lost, the server removes the consumer after readIdle.
func (l *Ledger) forget(stream, consumer string) {
	if l.nc.IsConnected() {
		_ = l.nc.Publish(l.api+"CONSUMER.DELETE."+stream+"."+consumer, nil)
	}
}
