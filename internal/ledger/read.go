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

// Of a reader: how much is under way at once, and how soon silence is noticed.
const (
	readAhead      = 512
	readAheadBytes = 16 << 20
	readHeartbeat  = 2 * time.Second
	readExpiry     = 20 * time.Second
	readStuck      = 500 * time.Millisecond
	readIdle       = 30 * time.Second // after which the server removes a consumer nobody asks
)

// found is a message of a bucket as a reader gets it.
type found struct {
	message
	key string
	age time.Duration // since it was stored, by the server's clock alone
}

// reader reads a bucket in order: first the last message of each key, then every
// new one. It does not resume by itself, unlike nats.go's ordered consumer, whose
// Stop can wait 20 s for a server that is away, and which goes on at its old
// sequence in a bucket that was made anew.
type reader struct {
	epoch int64  // when the bucket was made
	next  uint64 // sequence after the last one handled; 0 = nothing yet
}

// errRenewed: the bucket is another one than before.
var errRenewed = errors.New("the bucket was made anew")

// read calls fn from one goroutine at a time until ctx ends, until an error, or,
// if once, until all that was there at the start was seen. It returns only after
// the last call of fn.
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
		mu    sync.Mutex // held while fn runs, so that none runs after read
		ended bool
		seen  uint64
		done  = make(chan error, 1)
	)
	end := func(err error) {
		select {
		case done <- err:
		default: // it ends already
		}
	}
	consume, err := cons.Consume(func(m jetstream.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		meta, err := m.Metadata()
		if err != nil { // not of the stream: a client named this inbox in a request to another responder
			return
		}
		if seen++; meta.Sequence.Consumer != seen {
			ended = true
			end(fmt.Errorf("%w: message %d came instead of %d", ErrAway, meta.Sequence.Consumer, seen))
			return
		}
		r.next = meta.Sequence.Stream + 1
		// The server's clock now is what it was when it told, plus the time since.
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

// wait returns why a reader ends.
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
			// What was pending may have expired since: then nothing comes any more.
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

// whileConnected ends a context when the connection is cut. nats.go lets a request
// wait for an answer that can no longer come; what was sent to a reader is lost,
// and after a restart its consumer too.
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

// forget removes a consumer that is no longer needed, without waiting: where the
// request is lost the server does so after readIdle.
func (l *Ledger) forget(stream, consumer string) {
	if l.nc.IsConnected() {
		_ = l.nc.Publish(l.api+"CONSUMER.DELETE."+stream+"."+consumer, nil)
	}
}
