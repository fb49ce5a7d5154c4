//go:build e2e

package nemesis

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
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
		{
			name:   "disk full",
			fault:  "the disk of the only nats-server fills up; a worker is killed; when the queen has named it there is room, and the server is started again",
			expect: "answers name it; nobody is lost but who died; all of it is stored in the end",
			play:   diskFull,
		},
	}
}

// small starts a queen, two hives and three workers each.
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

func diskFull(s *stage) {
	disk := rig.SmallDisk(s.T, smallDisk)
	n := rig.Prepare(s.T, rig.Server(s.T), "nemesis", "127.0.0.1")
	n.Store = filepath.Join(disk.Dir, "store")
	n.Configure(n.JetStream("1GB"))
	n.Start()
	s.on(n)
	s.small()
	s.deaf = true
	named := func(want bool) {
		s.Helper()
		rig.Until(s.T, 2*patience, fmt.Sprintf("the full disk to be named: %v", want), func() (bool, string) {
			a, err := rig.Ask(s.nc, api.VerbSummary, api.Request{})
			text := fmt.Sprintf("%q %v", a.Status.Unsure, err)
			return err == nil && strings.Contains(text, "free some space and restart that server") == want, text
		})
	}
	disk.Fill()
	s.kill("gpu-01/w000", hivebeat.CauseExit)
	full := time.Now()
	named(true)
	s.note = append(s.note, fmt.Sprintf("it was named after %s", show(time.Since(full))))
	disk.Free()
	s.nats.Kill()
	s.nats.Start()
	s.alive()
	named(false)
	s.kill("gpu-02/w000", hivebeat.CauseExit)
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
