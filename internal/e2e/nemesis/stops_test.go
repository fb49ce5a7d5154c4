//go:build e2e

package nemesis

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
)

func stops() []scene {
	return []scene{
		{
			name:   "worker stopped",
			fault:  "SIGSTOP of a worker for two of its promises (60 s with the default of 30 s), and of another for five",
			expect: "the first is late and recovers; the second is lost, cause silent, for it serves nobody, and recovers; no other verdict",
			play:   stopWorker,
		},
		{
			name:   "hive stopped",
			fault:  "SIGSTOP of a hive for four of its promises (60 s with the default of 15 s); its workers live",
			expect: "the hive is lost and recovers; its workers answer to the queen meanwhile and are never lost, neither by her nor by the hive that wakes up to old messages",
			play:   stopHive,
		},
		{
			name:   "queen stopped",
			fault:  "SIGSTOP of the only queen for four promises of the hives; a worker is killed meanwhile",
			expect: "on waking up she calls nobody lost but the one that died, and tells that once",
			play:   stopQueen,
		},
		{
			name: "100 % CPU", alone: true,
			fault:  "busy loops, twice as many as there are CPUs, for twelve promises; five workers are killed meanwhile",
			expect: "nobody is lost but those, cause exit",
			play:   starve,
		},
	}
}

func stopWorker(s *stage) {
	s.serve("127.0.0.1")
	s.queen("q1")
	s.hive(nil, "gpu-01")
	s.workers(nil, "gpu-01", 3)
	s.alive()

	// Right after a beat, so that the silence is two promises and not nearly three.
	short := s.procs["gpu-01/w000"]
	s.beat("gpu-01", "w000")
	from := time.Now()
	s.away(false, "gpu-01/w000")
	s.stop(short, 2**workerEvery)
	s.back("gpu-01/w000")
	s.recovered(from, "gpu-01/w000")
	if _, ok := s.ears.since(hivebeat.KindLost, "gpu-01/w000", from); ok {
		s.Errorf("silent for two promises, and lost")
	}

	from = time.Now()
	s.away(true, "gpu-01/w001")
	s.stop(s.procs["gpu-01/w001"], 5**workerEvery)
	s.back("gpu-01/w001")
	s.recovered(from, "gpu-01/w001")
	s.curtain()
}

func stopHive(s *stage) {
	s.serve("127.0.0.1")
	s.queen("q1")
	s.hive(nil, "gpu-01")
	s.hive(nil, "gpu-02")
	live := s.workers(nil, "gpu-01", 5)
	s.alive()

	from := time.Now()
	s.away(true, "gpu-01")
	s.stop(s.procs["gpu-01"], 4**hiveEvery)
	s.back("gpu-01")
	s.recovered(from, "gpu-01")
	s.handedBack("gpu-01", len(live))
	s.wait(4 * *workerEvery) // a pending verdict would come now
	s.curtain()
}

func stopQueen(s *stage) {
	s.serve("127.0.0.1")
	q := s.queen("q1")
	for h := range 4 {
		hive := fmt.Sprintf("gpu-%02d", h)
		s.hive(nil, hive)
		s.workers(nil, hive, 2)
	}
	s.alive()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.stop(q, 4**hiveEvery)
	}()
	s.wait(*hiveEvery)
	s.kill("gpu-00/w000", hivebeat.CauseExit)
	<-done
	s.told(patience)
	s.wait(4 * *hiveEvery)
	s.curtain()
	s.note = append(s.note, "detection includes the rest of the stop")
}

func starve(s *stage) {
	s.serve("127.0.0.1")
	s.queen("q1")
	for h := range 4 {
		hive := fmt.Sprintf("gpu-%02d", h)
		s.hive(nil, hive)
		s.workers(nil, hive, 5)
	}
	s.alive()
	load := self(s.T, "burn")
	s.wait(2 * time.Second)
	for w := range 5 {
		s.kill(fmt.Sprintf("gpu-%02d/w%03d", w%4, w), hivebeat.CauseExit)
		s.wait(2 * max(*hiveEvery, *workerEvery))
	}
	load.Kill()
	s.curtain()
}
