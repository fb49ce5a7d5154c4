//go:build e2e

package nemesis

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
)

// A hive reports twenty ends in a burst, and then two a second. Deaths that are measured one
// by one are therefore a second apart on each hive.
const apart = 1100 * time.Millisecond

func kills() []scene {
	return []scene{
		{
			name: "kill -9", alone: true,
			fault:  "60 workers on 10 hives are killed one by one",
			expect: "each told lost, cause exit, within milliseconds; nobody else is",
			play:   killOneByOne,
		},
		{
			name: "many at once", alone: true,
			fault:  fmt.Sprintf("%d workers of 4 hives, who have all just joined, are killed at once", *crowd),
			expect: "each told once, cause exit, all within a second; the hives and the ten workers that stay are alive",
			play:   killMany,
		},
		{
			name:   "machine off",
			fault:  "a hive and its workers are killed at once, the machine is silent",
			expect: "the hive is lost after three promises (3.5 s at most with 1 s), its workers with cause hive at their own deadlines",
			play:   killMachine,
		},
		{
			name:   "hive killed",
			fault:  "a hive is killed, its workers live, and a worker dies while nobody watches it; the hive comes back",
			expect: "the living workers answer to the queen (via queen) and are never lost; the dead one is lost, cause hive",
			play:   killHive,
		},
	}
}

func killOneByOne(s *stage) {
	s.serve("127.0.0.1")
	s.queen("q1")
	const hives, each = 10, 6
	for h := range hives {
		s.hive(nil, fmt.Sprintf("gpu-%02d", h))
		s.workers(nil, fmt.Sprintf("gpu-%02d", h), each+1) // one stays
	}
	s.alive()
	s.killInTurn(hives, 0, each, hivebeat.CauseExit)
	s.curtain()
}

// killInTurn kills the workers numbered from to below to, hive after hive.
func (s *stage) killInTurn(hives, from, to int, by hivebeat.Cause) {
	s.Helper()
	for w := from; w < to; w++ {
		for h := range hives {
			s.kill(fmt.Sprintf("gpu-%02d/w%03d", h, w), by)
			s.wait(apart / time.Duration(hives))
		}
	}
}

func killMany(s *stage) {
	s.serve("127.0.0.1")
	s.queen("q1")
	s.queen("q2")
	const hives = 4
	var doomed []string
	for h := range hives {
		hive := fmt.Sprintf("gpu-%02d", h)
		s.hive(nil, hive)
		doomed = append(doomed, s.workers(nil, hive, *crowd/hives)...)
	}
	for w := range 10 {
		s.worker(nil, "gpu-00", fmt.Sprintf("stays%d", w))
	}
	s.alive()
	// Their joining has used up the five changes that a hive sends at once, and the ends must
	// not wait for that.
	for _, subject := range doomed {
		s.kill(subject, hivebeat.CauseExit)
	}
	s.curtain()
}

func killMachine(s *stage) {
	s.serve("127.0.0.1")
	s.queen("q1")
	s.hive(nil, "gpu-01")
	s.hive(nil, "gpu-02")
	s.workers(nil, "gpu-02", 2)
	doomed := s.workers(nil, "gpu-01", 5)
	s.alive()
	at := s.kill("gpu-01", hivebeat.CauseMissed)
	for _, subject := range doomed {
		s.kill(subject, hivebeat.CauseHive)
	}
	s.told(patience + 3**workerEvery)
	if h, ok := s.ears.since(hivebeat.KindLost, "gpu-01", at); ok {
		s.note = append(s.note, "the hive after "+show(h.at.Sub(at)))
	}
	s.curtain()
}

func killHive(s *stage) {
	s.serve("127.0.0.1")
	s.queen("q1")
	s.hive(nil, "gpu-01")
	s.hive(nil, "gpu-02")
	live := s.workers(nil, "gpu-01", 10)
	s.worker(nil, "gpu-01", "doomed")
	s.alive()
	at := s.kill("gpu-01", hivebeat.CauseMissed)
	s.kill("gpu-01/doomed", hivebeat.CauseHive)
	verdict := s.hear(hivebeat.KindLost, "gpu-01", at)
	took := s.adopted("gpu-01", len(live))
	s.note = append(s.note, fmt.Sprintf("its %d workers answered for themselves %s after the verdict", len(live), show(max(0, took.Sub(verdict)))))
	s.told(patience + 3**workerEvery)
	s.wait(2 * *workerEvery)

	s.truth.ended("gpu-01", time.Now())
	s.hive(nil, "gpu-01")
	s.hear(hivebeat.KindRestarted, "gpu-01", at)
	s.handedBack("gpu-01", len(live))
	s.curtain()
}
