package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// Lifetimes of the stored data (docs/PROTOCOL.md, section 6).
const (
	hivesTTL    = 24 * time.Hour     // backstop for puts by other programs: ours carry a TTL
	hivesMarker = time.Hour          // how long an outside reader can still learn of an expiry
	rosterTTL   = 7 * 24 * time.Hour // how long a lost hive is remembered
	holdsTTL    = time.Hour          // backstop: a hold lives 10 minutes at most
	holdsMarker = 15 * time.Minute   // a queen that was away for longer reads the bucket again
	eventsTTL   = 7 * 24 * time.Hour
	eventsDedup = time.Hour
	tooOldEvent = 50 * time.Minute // leaves ten minutes of the deduplication window
)

// Indexes into layout.
const (
	atHives = iota
	atRoster
	atHolds
	atEvents
	layouts // number of entries
)

// layout returns the streams that back the buckets, and the stream of events.
func (l *Ledger) layout() [layouts]jetstream.StreamConfig {
	return [layouts]jetstream.StreamConfig{
		atHives:  l.bucket(hivebeat.BucketHives, "Last snapshot of every hive: an existing key is fresh", hivesTTL, hivesMarker),
		atRoster: l.bucket(hivebeat.BucketRoster, "The queens' verdicts on hives", rosterTTL, 0),
		atHolds:  l.bucket(hivebeat.BucketHolds, "Holds on capacity", holdsTTL, holdsMarker),
		atEvents: {
			Name:        l.cfg.Subjects.Stream(hivebeat.StreamEvents),
			Description: "Every event of the fabric",
			Subjects:    []string{l.cfg.Subjects.EventLogs()},
			RePublish:   &jetstream.RePublish{Source: l.cfg.Subjects.EventLogs(), Destination: l.cfg.Subjects.Events()},
			MaxAge:      eventsTTL,
			MaxBytes:    l.cfg.EventsMax,
			Duplicates:  eventsDedup,
			Discard:     jetstream.DiscardOld,
			Storage:     l.cfg.Storage,
			Replicas:    l.cfg.Replicas,
			Placement:   l.cfg.Placement,
			AllowDirect: true,
			// Unlimited, as the server reports it.
			MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		},
	}
}

// bucket returns the stream that jetstream.CreateKeyValue would create. The settings are
// the same, so that other clients see a bucket too.
func (l *Ledger) bucket(name, what string, ttl, marker time.Duration) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:                   bucketStream(l.cfg.Subjects.Bucket(name)),
		Description:            what,
		Subjects:               []string{"$KV." + l.cfg.Subjects.Bucket(name) + ".>"},
		MaxMsgsPerSubject:      1,
		MaxAge:                 ttl,
		Duplicates:             2 * time.Minute,
		Discard:                jetstream.DiscardNew,
		Storage:                l.cfg.Storage,
		Replicas:               l.cfg.Replicas,
		Placement:              l.cfg.Placement,
		AllowRollup:            true,
		DenyDelete:             true,
		AllowDirect:            true,
		AllowMsgTTL:            marker > 0,
		SubjectDeleteMarkerTTL: marker,
		MaxMsgs:                -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
	}
}

func bucketStream(bucket string) string { return "KV_" + bucket }

// human returns the name that people know a stream by.
func human(stream string) string {
	if b, ok := strings.CutPrefix(stream, "KV_"); ok {
		return "bucket " + b
	}
	return "stream " + stream
}

// storePause is how long ensure waits for a server that is busy with a store.
const storePause = 100 * time.Millisecond

// ensure creates one stream of the layout, or checks the existing one.
func (l *Ledger) ensure(ctx context.Context, want jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	// Three tries: between the lookup and the create, another queen may create the stream,
	// and it may be removed again.
	var failed error
	for range 3 {
		s, err := l.js.Stream(ctx, want.Name)
		if err == nil {
			info := s.CachedInfo()
			if d := differences(want, info.Config); len(d) > 0 {
				return nil, fmt.Errorf("ledger: %s %w: %s; it was not changed: change it, remove it, or start the queen with its settings",
					human(want.Name), ErrDiffers, strings.Join(d, ", "))
			}
			return info, nil
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, wrap(ctx, human(want.Name), err)
		}
		_, err = l.js.CreateStream(ctx, want)
		switch {
		case err == nil:
			l.cfg.Logger.Info("created in JetStream", slog.String("what", human(want.Name)), slog.String("storage", want.Storage.String()), slog.Int("replicas", want.Replicas))
		case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
			// Another queen was first: the next round checks the stream that it created.
		case codeOf(err) == codeCreateFailed:
			// The server cannot create the store, or a store in the same place is just
			// being created or removed for another queen. The next round shows which.
			failed = err
			select {
			case <-ctx.Done():
			case <-time.After(storePause):
			}
		default:
			return nil, l.createError(ctx, want, err)
		}
	}
	if failed != nil {
		return nil, l.createError(ctx, want, failed)
	}
	return nil, fmt.Errorf("ledger: %s: %w: it keeps being created and removed", human(want.Name), ErrAway)
}

func (l *Ledger) createError(ctx context.Context, want jetstream.StreamConfig, err error) error {
	what := human(want.Name)
	switch code := codeOf(err); {
	case outOfSpace(err) && want.MaxBytes > 0:
		return fmt.Errorf("ledger: %s: %w: it reserves %d bytes; lower --events-max, or give JetStream more space: %w", what, ErrNoSpace, want.MaxBytes, err)
	case outOfSpace(err):
		return fmt.Errorf("ledger: %s: %w: give JetStream more space: %w", what, ErrNoSpace, err)
	case code == codeSubjectOverlap:
		return fmt.Errorf("ledger: %s: another stream %w: it also stores %s; remove it, or start with --prefix: %w",
			what, ErrDiffers, strings.Join(want.Subjects, " "), err)
	}
	return wrap(ctx, "create "+what, err)
}

// differences names each setting of have that differs from want. It ignores descriptions
// and metadata.
func differences(want, have jetstream.StreamConfig) []string {
	var out []string
	add := func(name string, want, have any) {
		if !reflect.DeepEqual(want, have) {
			out = append(out, fmt.Sprintf("%s is %v, not %v", name, have, want))
		}
	}
	unlimited := func(n int64) int64 { // the server reports both 0 and -1
		if n <= 0 {
			return -1
		}
		return n
	}
	add("subjects", strings.Join(want.Subjects, " "), strings.Join(have.Subjects, " "))
	add("TTL", want.MaxAge, have.MaxAge)
	add("history", unlimited(want.MaxMsgsPerSubject), unlimited(have.MaxMsgsPerSubject))
	add("limit marker TTL", want.SubjectDeleteMarkerTTL, have.SubjectDeleteMarkerTTL)
	add("message TTLs allowed", want.AllowMsgTTL, have.AllowMsgTTL)
	add("storage", want.Storage.String(), have.Storage.String())
	add("replicas", max(1, want.Replicas), max(1, have.Replicas))
	add("placement", placement(want.Placement), placement(have.Placement))
	add("max bytes", unlimited(want.MaxBytes), unlimited(have.MaxBytes))
	add("max messages", unlimited(want.MaxMsgs), unlimited(have.MaxMsgs))
	add("max message size", unlimited(int64(want.MaxMsgSize)), unlimited(int64(have.MaxMsgSize)))
	add("discard", want.Discard.String(), have.Discard.String())
	add("retention", want.Retention.String(), have.Retention.String())
	add("duplicates window", want.Duplicates, have.Duplicates)
	add("republish", republish(want.RePublish), republish(have.RePublish))
	add("direct get", want.AllowDirect, have.AllowDirect)
	add("rollup", want.AllowRollup, have.AllowRollup)
	add("no ack", want.NoAck, have.NoAck)
	add("sealed", want.Sealed, have.Sealed)
	add("mirror or sources", want.Mirror != nil || len(want.Sources) > 0, have.Mirror != nil || len(have.Sources) > 0)
	return out
}

func placement(p *jetstream.Placement) string {
	if p == nil || p.Cluster == "" && len(p.Tags) == 0 {
		return "none"
	}
	return fmt.Sprintf("cluster %q tags %q", p.Cluster, p.Tags)
}

func republish(r *jetstream.RePublish) string {
	if r == nil {
		return "none"
	}
	s := r.Source + " to " + r.Destination
	if r.HeadersOnly {
		s += " (headers only)"
	}
	return s
}
