package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/sampletest"
)

const (
	thisHive = sampletest.Hive
	second   = time.Second
	every    = sampletest.Every
)

// t0 is when the registry of a test begins.
var t0 = time.Now()

// fake is a worker as it appears on the wire.
type fake = sampletest.Worker

var newFake = sampletest.NewWorker

// bench is a registry in a test, with its own time.
type bench struct {
	*Registry
	t   testing.TB
	now time.Time
}

func newBench(t testing.TB) *bench {
	b := &bench{Registry: New(thisHive), t: t, now: t0}
	b.Start(t0)
	return b
}

// after advances the time and detects what is due.
func (b *bench) after(d time.Duration) *bench {
	b.now = b.now.Add(d)
	b.Detect(b.now)
	return b
}

// feed passes the bytes of a beat to the registry, as the loop does.
func (b *bench) feed(msg []byte) error {
	b.t.Helper()
	_, err := b.Receive(b.now, msg, "")
	if err != nil {
		b.Refuse(err)
	}
	return err
}

// mustFeed is feed for a beat that must be accepted.
func (b *bench) mustFeed(msg []byte) *bench {
	b.t.Helper()
	if err := b.feed(msg); err != nil {
		b.t.Fatalf("beat refused: %v", err)
	}
	return b
}

// told returns the transitions since the last call, as kind:from>to(cause).
func (b *bench) told() []string {
	list := []string{}
	for _, s := range b.TakeSteps() {
		text := fmt.Sprintf("%s:%s>%s", s.Kind, s.From, s.To)
		if s.Cause != "" {
			text += "(" + string(s.Cause) + ")"
		}
		list = append(list, text)
	}
	return list
}

func (b *bench) record(id string) (hivebeat.Record, bool) {
	for _, r := range b.Records(b.now) {
		if r.Worker == id {
			return r, true
		}
	}
	return hivebeat.Record{}, false
}
