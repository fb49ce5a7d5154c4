package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// bucketOf returns the name of one of the buckets.
func (l *Ledger) bucketOf(at int) string {
	switch at {
	case atHives:
		return l.cfg.Subjects.Bucket(hivebeat.BucketHives)
	case atHolds:
		return l.cfg.Subjects.Bucket(hivebeat.BucketHolds)
	}
	return l.cfg.Subjects.Bucket(hivebeat.BucketRoster)
}

// subject returns the subject for a put of key. Stored messages have it without pre.
func (l *Ledger) subject(at int, key string) string {
	return l.pre + "$KV." + l.bucketOf(at) + "." + key
}

// store publishes m if last is the last sequence of its subject, and returns the sequence
// of m. 0 expects that there is no message, not even a marker.
func (l *Ledger) store(ctx context.Context, m *nats.Msg, last uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	expect(m, last)
	// A put that waits for a stream to come back would be stale when it does.
	ack, err := l.publish(ctx, m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// expect makes a publish depend on the last sequence of its subject.
func expect(m *nats.Msg, last uint64) {
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(last, 10))
}

// message is the last message of a key; seq is 0 if there is none.
type message struct {
	seq    uint64
	header nats.Header
	data   []byte
	stored time.Time // by the server's clock
}

// last reads the last message of a key, even if it is a marker: kv.Get hides markers, but
// their sequence counts. If leader is true, the leader of the stream answers; otherwise any
// replica does, which is cheaper.
func (l *Ledger) last(ctx context.Context, at int, key string, leader bool) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	bucket := l.bucketOf(at)
	stored := "$KV." + bucket + "." + key
	if !leader {
		return l.direct(ctx, bucketStream(bucket), stored)
	}
	req, err := json.Marshal(map[string]string{"last_by_subj": stored})
	if err != nil {
		return message{}, err
	}
	answer, err := l.nc.RequestWithContext(ctx, l.api+"STREAM.MSG.GET."+bucketStream(bucket), req)
	if err != nil {
		return message{}, err
	}
	var resp struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Seq  uint64    `json:"seq"`
			Hdrs []byte    `json:"hdrs"`
			Data []byte    `json:"data"`
			Time time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &resp); err != nil {
		return message{}, fmt.Errorf("last message: %w", err)
	}
	switch {
	case resp.Error != nil && resp.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return message{}, nil
	case resp.Error != nil:
		return message{}, resp.Error
	case resp.Message == nil:
		return message{}, errors.New("last message: the answer holds none")
	}
	m := message{seq: resp.Message.Seq, data: resp.Message.Data, stored: resp.Message.Time}
	if len(resp.Message.Hdrs) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(resp.Message.Hdrs); err != nil {
			return message{}, fmt.Errorf("last message: %w", err)
		}
	}
	return m, nil
}

func (l *Ledger) direct(ctx context.Context, stream, subject string) (message, error) {
	answer, err := l.nc.RequestWithContext(ctx, l.api+"DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return message{}, err
	}
	return directAnswer(answer)
}

// directAnswer parses the answer to a direct get.
func directAnswer(answer *nats.Msg) (message, error) {
	if status := answer.Header.Get("Status"); status != "" && len(answer.Data) == 0 {
		switch status {
		case "404":
			return message{}, nil
		case "503":
			return message{}, nats.ErrNoResponders
		}
		return message{}, fmt.Errorf("last message: status %s %s", status, answer.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(answer.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return message{}, fmt.Errorf("last message: sequence: %w", err)
	}
	stored, err := time.Parse(time.RFC3339Nano, answer.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return message{}, fmt.Errorf("last message: time: %w", err)
	}
	return message{seq: seq, header: answer.Header, data: answer.Data, stored: stored}, nil
}
