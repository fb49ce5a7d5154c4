//go:build e2e

package nemesis

import (
	"fmt"
	"strings"
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
		{
			name: "leader killed", alone: true,
			fault:  "three servers, everything in three replicas; the leader of QUEEN_EVENTS is killed, with workers dying before, at once with and after it",
			expect: "each death told once, nobody else lost",
			play:   killLeader,
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

// cluster starts three servers, and is connected to all of them.
func (s *stage) cluster() map[string]*rig.NATS {
	s.Helper()
	servers := map[string]*rig.NATS{}
	var urls, routes []string
	ports := map[string]int{}
	for _, name := range []string{"n1", "n2", "n3"} {
		servers[name] = rig.Prepare(s.T, rig.Server(s.T), name, "127.0.0.1")
		ports[name] = rig.Port(s.T)
		urls = append(urls, servers[name].URL)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[name]))
	}
	for name, n := range servers {
		n.Configure(n.JetStream("256MB") + fmt.Sprintf("\ncluster { name: nemesis, listen: \"127.0.0.1:%d\", routes: [ %s ] }\n", ports[name], strings.Join(routes, ", ")))
		n.Begin()
	}
	for _, n := range servers {
		n.Said("Server is ready", patience)
	}
	s.url = strings.Join(urls, ",")
	s.nc = rig.Connect(s.T, s.url)
	js, err := jetstream.New(s.nc)
	if err != nil {
		s.Fatal(err)
	}
	rig.Until(s.T, patience, "JetStream of three to have a leader", func() (bool, string) {
		_, err := js.AccountInfo(s.Context())
		return err == nil, fmt.Sprint(err)
	})
	s.ears = listen(s.T, s.nc)
	return servers
}

func killLeader(s *stage) {
	servers := s.cluster()
	s.queen("q1", "--replicas", "3")
	s.queen("q2", "--replicas", "3")
	for _, hive := range []string{"gpu-01", "gpu-02"} {
		s.hive(nil, hive)
		s.workers(nil, hive, 6)
	}
	s.alive()
	info, err := s.stream()
	if err != nil || info.Cluster == nil || servers[info.Cluster.Leader] == nil {
		s.Fatalf("no leader: %+v, %v", info, err)
	}
	die := func(i int) {
		s.kill(fmt.Sprintf("gpu-01/w%03d", i), hivebeat.CauseExit)
		s.kill(fmt.Sprintf("gpu-02/w%03d", i), hivebeat.CauseExit)
	}
	die(0)
	s.wait(*hiveEvery)
	die(1)
	servers[info.Cluster.Leader].Kill()
	die(2)
	s.wait(2 * *hiveEvery)
	die(3)
	s.told(patience)
	s.wait(4 * max(*hiveEvery, *workerEvery))
	servers[info.Cluster.Leader].Start()
	s.wait(4 * max(*hiveEvery, *workerEvery))
	s.note = append(s.note, "the subscriber's own server "+map[bool]string{true: "was the one killed: it may have missed some, the stream has all", false: "lived"}[s.nc.Stats().Reconnects > 0])
	s.curtain()
}
