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
			name: "connection closed", lan: true, alone: true,
			fault:  "three machines with hive --serve as leaf nodes; 18 workers in pid namespaces of their own are killed one by one",
			expect: "each told lost, cause disconnect, milliseconds after its window of 2 s",
			play:   disconnect,
		},
		{
			name: "leaf uplink cut", lan: true,
			fault:  "the network of a machine with hive --serve is cut for twelve promises (3 minutes with the default of 15 s); a worker is killed meanwhile",
			expect: "the hive is lost, its workers with cause hive; they beat on, and all but the dead one recover as cut off, none by the hive's count as falsely dead; the hive tells the true cause of that death when it is back",
			play:   uplink,
		},
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

func disconnect(s *stage) {
	l := s.hub()
	s.queen("q1")
	const machines, each = 3, 6
	for m := range machines {
		s.leaf(l, fmt.Sprintf("gpu-%02d", m), each+1)
	}
	s.alive()
	s.killInTurn(machines, 0, each, hivebeat.CauseDisconnect)
	s.curtain()
	s.note = append(s.note, "after the window: "+quantiles(s.after(s.detect, window)))
}

// window is how long a worker with our reconnect wait has to come back.
const window = 2 * time.Second

func (s *stage) after(all []time.Duration, d time.Duration) (rest []time.Duration) {
	for _, x := range all {
		rest = append(rest, x-d)
	}
	return rest
}

func uplink(s *stage) {
	l := s.hub()
	s.queen("q1")
	far, own := s.leaf(l, "gpu-01", 4)
	s.hive(nil, "gpu-02")
	s.workers(nil, "gpu-02", 2)
	s.alive()

	from := time.Now()
	s.away(true, append(own, "gpu-01")...)
	far.cut()
	s.wait(6 * *hiveEvery)
	s.kill(own[0])
	s.wait(6 * *hiveEvery)
	far.heal()
	s.recovered(from, append(own[1:], "gpu-01")...)
	s.back(append(own[1:], "gpu-01")...)
	s.handedBack("gpu-01", len(own)-1)
	s.wait(4 * max(*hiveEvery, *workerEvery))
	s.curtain()
}

func halfOpen(s *stage) {
	l := s.hub()
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
	l := s.hub()
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
	if brake < 2 {
		s.Errorf("%d events of the brake, want its start and its end", brake)
	} else {
		s.note = append(s.note, fmt.Sprintf("%d held unverified; the brake ended %s after the cut", n, show(last.Sub(from))))
	}
	s.curtain()
}
