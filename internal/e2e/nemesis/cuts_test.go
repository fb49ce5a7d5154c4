//go:build e2e

package nemesis

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
)

func cuts() []scene {
	return []scene{
		{
			name: "half-open link", lan: true,
			fault:  "all packets to and from a machine vanish for four promises, with no FIN; two workers of the hive live on another machine",
			expect: "the hive is lost and recovers; its own workers are lost, cause hive, at their deadlines, recover, and count as cut off; those elsewhere answer to the queen and are never lost",
			play:   halfOpen,
		},
		{
			name: "zone partitioned", lan: true,
			fault:  "all six hives of a zone lose the network at once for six promises; three hives of another zone do not",
			expect: "the brake holds them unverified, calls their roll and then gives them up at its pace; all come back; no verdict on the other zone; the brake ends",
			play:   partition,
		},
	}
}

func halfOpen(s *stage) {
	l := s.serveOn()
	far, near := l.host(), l.host()
	s.queen("q1")
	s.hive(far, "gpu-01")
	own := s.workers(far, "gpu-01", 3)
	s.worker(near, "gpu-01", "near1")
	s.worker(near, "gpu-01", "near2")
	s.hive(near, "gpu-02")
	s.alive()

	from := time.Now()
	s.away(true, append(own, "gpu-01")...)
	far.cut()
	s.told(patience + 3*max(*hiveEvery, *workerEvery))
	if d := time.Since(from); d < 4**hiveEvery {
		s.wait(4**hiveEvery - d)
	}
	far.heal()
	s.recovered(from, append(own, "gpu-01")...)
	s.back(append(own, "gpu-01")...)
	s.handedBack("gpu-01", len(own)+2)
	s.wait(4 * max(*hiveEvery, *workerEvery))
	s.curtain()
}

func partition(s *stage) {
	l := s.serveOn()
	rack := l.host()
	s.queen("q1")
	var cut []string
	for h := range 6 {
		hive := fmt.Sprintf("a-%02d", h)
		s.hive(rack, hive, "--label", "zone=a")
		s.worker(rack, hive, "w")
		cut = append(cut, hive, hive+"/w")
	}
	for h := range 3 {
		hive := fmt.Sprintf("b-%02d", h)
		s.hive(nil, hive, "--label", "zone=b")
		s.worker(nil, hive, "w")
	}
	s.alive()

	from := time.Now()
	s.away(false, cut...)
	rack.cut()
	s.wait(6 * *hiveEvery)
	rack.heal()
	s.alive()
	s.back(cut...)
	s.wait(4 * max(*hiveEvery, *workerEvery))
	n, _, _ := s.ears.count(hivebeat.KindUnverified, from)
	if n == 0 {
		s.Errorf("nobody was held unverified: there was no brake")
	}
	brake, _, last := s.ears.count(hivebeat.KindBrake, from)
	s.note = append(s.note, fmt.Sprintf("%d held unverified, %d events of the brake, the last %s after the cut", n, brake, show(last.Sub(from))))
	s.curtain()
}
