//go:build e2e

package nemesis

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

func servers() []scene {
	return []scene{
		{
			name:   "NATS killed",
			fault:  "the only nats-server is killed and started again after five promises; a worker is killed meanwhile",
			expect: "nobody is lost but the one that died, and that is told once when NATS is back",
			play:   killNATS,
		},
		{
			name:   "store wiped",
			fault:  "the only nats-server is killed, its JetStream store removed, and started again; then a worker is killed",
			expect: "events of before are gone with the store; nobody is lost but the one that died",
			play:   wipe,
		},
	}
}

// small is a queen, two hives and three workers each.
func (s *stage) small() {
	s.Helper()
	s.queen("q1")
	for _, hive := range []string{"gpu-01", "gpu-02"} {
		s.hive(nil, hive)
		s.workers(nil, hive, 3)
	}
	s.alive()
}

func killNATS(s *stage) {
	s.serve("127.0.0.1")
	s.small()
	s.deaf = true
	s.nats.Kill()
	s.wait(2 * *hiveEvery)
	s.kill("gpu-01/w000", hivebeat.CauseExit)
	s.wait(3 * max(*hiveEvery, *workerEvery))
	up := time.Now()
	s.nats.Start()
	s.hear(hivebeat.KindLost, "gpu-01/w000", up)
	s.alive()
	s.wait(4 * max(*hiveEvery, *workerEvery))
	s.kill("gpu-02/w000", hivebeat.CauseExit)
	s.curtain()
	s.note = append(s.note, "one death happened while NATS was away")
}

func wipe(s *stage) {
	s.serve("127.0.0.1")
	s.small()
	s.deaf, s.empty = true, true
	s.nats.Kill()
	s.nats.Empty()
	s.nats.Start()
	s.alive()
	rig.Until(s.T, patience, "the stream to be made anew", func() (bool, string) {
		_, err := s.stream()
		return err == nil, fmt.Sprint(err)
	})
	s.wait(4 * max(*hiveEvery, *workerEvery))
	s.kill("gpu-01/w000", hivebeat.CauseExit)
	s.kill("gpu-02/w001", hivebeat.CauseExit)
	s.curtain()
}

func (s *stage) stream() (*jetstream.StreamInfo, error) {
	js, err := jetstream.New(s.nc)
	if err != nil {
		return nil, err
	}
	var none hivebeat.Subjects
	st, err := js.Stream(s.Context(), none.Stream(hivebeat.StreamEvents))
	if err != nil {
		return nil, err
	}
	return st.Info(s.Context())
}
