package ledger

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Part is one bucket, or the stream of events, as Inspect found it.
type Part struct {
	Name        string   // for people: "bucket queen_hives"
	Stream      string   // what JetStream calls it: "KV_queen_hives"
	Exists      bool     // if not, a queen creates it
	Differences []string // from the settings that a queen with this Config needs; with any, it does not start
	Off         []string // servers that store it and whose JetStream is off
}

// Inspect looks at everything that Open would create or check, and changes nothing. Its
// errors are those of Open except ErrDiffers, and say where JetStream is off.
func Inspect(ctx context.Context, nc *nats.Conn, cfg Config) ([]Part, error) {
	l, err := newLedger(nc, cfg)
	if err != nil {
		return nil, err
	}
	all := ctx // leaves time to ask the servers
	ctx, cancel := context.WithTimeout(all, 2*l.cfg.Timeout)
	defer cancel()
	if err := l.check(ctx); err != nil {
		return nil, blame(all, nc, err)
	}
	var parts []Part
	var asked sync.Once
	var off []string
	for _, want := range l.layout() {
		part := Part{Name: human(want.Name), Stream: want.Name}
		info, err := l.info(ctx, want.Name)
		switch {
		case err == nil:
			part.Exists, part.Differences = true, differences(want, info.Config)
			var k keepers
			if k.add(info.Cluster, max(1, info.Config.Replicas)); k.short {
				asked.Do(func() { _, off = servers(all, nc) })
				part.Off = common(k.names, off)
			}
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return parts, blame(all, nc, wrap(ctx, part.Name, err))
		}
		parts = append(parts, part)
	}
	return parts, nil
}
