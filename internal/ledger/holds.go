package ledger

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
)

// HoldPlace is the capacity that a hold takes: slots of a worker, or memory of a GPU. Its
// key in queen_holds is w.<hive>.<worker>, or g.<hive>.<uuid>, or g.<hive>.=<base64url> if
// the UUID is not a valid id.
type HoldPlace struct{ Hive, Worker, GPU string }

// HoldEntry is one hold on a place.
type HoldEntry struct {
	ID    string          `json:"id"`
	Asker string          `json:"asker,omitempty"` // client that holds it; empty if it gave no name
	N     uint64          `json:"n"`               // slots, or bytes
	Left  hivebeat.Millis `json:"left"`            // time left when the entry was put; less when it is put again
}

// HoldItem is the stored state of one place.
type HoldItem struct {
	Holds    []HoldEntry
	Revision uint64 // the revision to pass to PutHolds
	// Stored is how long ago it was put, by the server's clock alone.
	Stored time.Duration
	Gone   bool // it expired or was removed: there are no holds
}

// holdValue is the value of a key of queen_holds.
type holdValue struct {
	V     uint64      `json:"v"`
	Holds []HoldEntry `json:"holds"`
}

func (p HoldPlace) key() (string, error) {
	if err := hivebeat.CheckID("hive", p.Hive); err != nil {
		return "", err
	}
	switch {
	case p.Worker != "":
		return "w." + p.Hive + "." + p.Worker, hivebeat.CheckID("worker", p.Worker)
	case p.GPU == "" || len(p.GPU) > hivebeat.MaxGPUID:
		return "", fmt.Errorf("%w: %.80q is no GPU", hivebeat.ErrID, p.GPU)
	case hivebeat.ValidID(p.GPU):
		return "g." + p.Hive + "." + p.GPU, nil
	}
	return "g." + p.Hive + ".=" + base64.RawURLEncoding.EncodeToString([]byte(p.GPU)), nil
}

func parseHoldPlace(key string) (p HoldPlace, ok bool) {
	kind, rest, _ := strings.Cut(key, ".")
	hive, id, _ := strings.Cut(rest, ".")
	if !hivebeat.ValidID(hive) {
		return p, false
	}
	p.Hive = hive
	switch kind {
	case "w":
		p.Worker = id
		return p, hivebeat.ValidID(id)
	case "g":
		if b64, ok := strings.CutPrefix(id, "="); ok {
			b, err := base64.RawURLEncoding.DecodeString(b64)
			p.GPU = string(b)
			return p, err == nil && p.GPU != ""
		}
		p.GPU = id
		return p, hivebeat.ValidID(id)
	}
	return p, false
}

// PutHolds replaces the holds on a place at a revision, and returns the new revision.
// Revision 0 means that there is no entry. The entry expires some seconds after the longest
// of the holds. ErrConflict: another queen was first, and these holds were not written.
// ErrAway: they may have been written all the same.
func (l *Ledger) PutHolds(ctx context.Context, p HoldPlace, revision uint64, holds []HoldEntry) (uint64, error) {
	key, err := p.key()
	if err != nil {
		return 0, fmt.Errorf("ledger: hold: %w", err)
	}
	body, err := json.Marshal(holdValue{V: 1, Holds: holds})
	if err != nil {
		return 0, fmt.Errorf("ledger: hold %s: %w", key, err)
	}
	if !l.nc.IsConnected() {
		return 0, fmt.Errorf("ledger: hold %s: %w: not connected to NATS", key, ErrAway)
	}
	ttl := time.Second
	for _, h := range holds {
		ttl = max(ttl, h.Left.Duration()+2*time.Second)
	}
	header := nats.Header{}
	header.Set(jetstream.MsgTTLHeader, ttl.Round(time.Second).String())
	seq, err := l.store(ctx, &nats.Msg{Subject: l.subject(atHolds, key), Header: header, Data: body}, revision)
	if conflict(err) {
		return 0, fmt.Errorf("ledger: hold %s at %d: %w", key, revision, ErrConflict)
	}
	err = wrap(ctx, "hold "+key, err)
	l.outcome(atHolds, err)
	return seq, err
}

// HoldsOf reads the holds on a place.
func (l *Ledger) HoldsOf(ctx context.Context, p HoldPlace) (HoldItem, error) {
	key, err := p.key()
	if err != nil {
		return HoldItem{}, fmt.Errorf("ledger: hold: %w", err)
	}
	m, err := l.last(ctx, atHolds, key, true)
	if err != nil {
		return HoldItem{}, wrap(ctx, "read hold "+key, err)
	}
	// The age of the entry is unknown without comparing clocks. With age 0 its holds last
	// longer than they should, which is safe.
	return l.holdItem(m, key, 0), nil
}

func (l *Ledger) holdItem(m message, key string, age time.Duration) HoldItem {
	item := HoldItem{Revision: m.seq, Stored: age, Gone: m.seq == 0 || isMarker(m.header)}
	if item.Gone {
		return item
	}
	var v holdValue
	if err := json.Unmarshal(m.data, &v); err != nil {
		l.cfg.Logger.Warn("a hold can not be read", slog.String("key", key), slog.Any("cause", err))
	}
	item.Holds = v.Holds
	return item
}

// WatchHolds calls fn with every entry, and after that with every change, as WatchRoster
// does. It calls recreated if the bucket was created again: everything that fn received before
// is void.
func (l *Ledger) WatchHolds(ctx context.Context, recreated func(), fn func(HoldPlace, HoldItem)) error {
	return l.watch(ctx, atHolds, recreated, func(f found, _ int64) {
		if p, ok := parseHoldPlace(f.key); ok {
			fn(p, l.holdItem(f.message, f.key, f.age))
		}
	})
}
