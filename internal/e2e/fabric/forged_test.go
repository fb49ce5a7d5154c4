//go:build e2e

package fabric

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// Another client sends one message in the name of a worker, and one in the name of a hive,
// which silences both. Each case is a conflict, which the victim reports in its own log
// before it gets its id back. Then both are killed, and their deaths are published: the
// forged messages are no evidence of life.
func TestForgedMessages(t *testing.T) {
	for name, forge := range map[string]func(inc, seq *uint64){
		"higher seq":         func(_, seq *uint64) { *seq += 100_000 },
		"higher incarnation": func(inc, seq *uint64) { *inc, *seq = uint64(time.Now().Add(time.Hour).UnixMicro()), 1 },
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			events := rig.Listen(t, f.nc)
			f.queen("q1")
			f.queen("q2")
			hive := f.hive("gpu-01")
			worker := f.worker("gpu-01", "w1")
			f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})

			forged := func(subject string, forge func([]byte) ([]byte, error)) {
				t.Helper()
				sub, err := f.nc.SubscribeSync(subject)
				if err != nil {
					t.Fatal(err)
				}
				m, err := sub.NextMsg(moment)
				if err != nil {
					t.Fatal(err)
				}
				if err := sub.Unsubscribe(); err != nil {
					t.Fatal(err)
				}
				b, err := forge(m.Data)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.nc.PublishMsg(&nats.Msg{Subject: subject, Data: b}); err != nil {
					t.Fatal(err)
				}
			}
			forged("hive.gpu-01.workers", func(b []byte) ([]byte, error) {
				beat, err := wire.DecodeBeat(b)
				forge(&beat.Inc, &beat.Seq)
				if err != nil {
					return nil, err
				}
				return wire.EncodeBeat(&beat)
			})
			worker.Said("messages of this worker (are|were) refused", moment)
			events.Wait(t, moment, hivebeat.KindConflict, "gpu-01/w1")
			f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
			f.once(hivebeat.KindConflict, "gpu-01/w1")

			forged("queen.hives", func(b []byte) ([]byte, error) {
				s, err := wire.DecodeSnapshot(b)
				forge(&s.Inc, &s.Seq)
				if err != nil {
					return nil, err
				}
				return wire.EncodeSnapshot(&s)
			})
			hive.Said("messages of this hive (are|were) refused", moment)
			events.Wait(t, moment, hivebeat.KindConflict, "gpu-01")
			bustest.Never(t, 6*beat, func() (bool, string) { // until the forged messages are old
				n := len(events.Of(hivebeat.KindConflict, "gpu-01"))
				return n > 1, fmt.Sprintf("the conflict was told %d times:\n%s", n, events)
			})
			f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
			f.once(hivebeat.KindConflict, "gpu-01")

			lost := len(events.Of(hivebeat.KindLost, "gpu-01"))
			worker.Kill()
			hive.Kill()
			f.sees(rig.Fleet{"gpu-01": hivebeat.Lost})
			rig.Until(t, moment, "its death to be told", func() (bool, string) {
				return len(events.Of(hivebeat.KindLost, "gpu-01")) == lost+1, events.String()
			})
		})
	}
}
