//go:build e2e

package fabric

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// cluster starts three servers without JetStream.
func cluster(t *testing.T) (servers [3]*rig.NATS) {
	t.Helper()
	var ports [3]int
	var routes []string
	for i := range servers {
		servers[i] = rig.Prepare(t, rig.Server(t), fmt.Sprint("n", i+1), "127.0.0.1")
		ports[i] = rig.Port(t)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	for i, n := range servers {
		n.Configure(fmt.Sprintf("cluster { name: fabric, listen: \"127.0.0.1:%d\", routes: [ %s ] }\n", ports[i], strings.Join(routes, ", ")))
		n.Start()
	}
	return servers
}

// One of three servers is stopped for 20 s. No process is lost, although nats.go alone would
// notice too late: each was given the URL of that server only, and learned the others from
// the cluster.
func TestOneOfThreeServersStopped(t *testing.T) {
	servers := cluster(t)
	stopped := servers[0]
	nc := rig.Connect(t, servers[1].URL)
	f := &fabric{t: t, nats: servers[1], nc: nc}
	events := rig.Listen(t, nc)
	f.hivebeat("queen q1", "queen", "--id", "q1", "--no-jetstream")
	f.nats = stopped
	queen := f.hivebeat("queen q2", "queen", "--id", "q2", "--no-jetstream")
	all := rig.Fleet{}
	procs := map[string]*rig.Proc{"queen q2": queen}
	promises := []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 15 * time.Second}
	for _, every := range promises {
		id := "every-" + every.String()
		procs[id] = f.hivebeat("hive "+id, "hive", "--id", id, "--every", every.String())
		procs[id+"/w"] = f.hivebeat(id+"/w", "worker", "--hive", id, "--id", "w", "--every", every.String())
		all[id], all[id+"/w"] = hivebeat.Alive, hivebeat.Alive
	}
	f.sees(all)
	began := time.Now()
	rig.Until(t, moment, "the cluster to tell of its servers", func() (bool, string) {
		return time.Since(began) > 2*beat && len(nc.Servers()) > 2, strings.Join(nc.Servers(), " ")
	})

	stopped.Signal(syscall.SIGSTOP)
	at := time.Now()
	for name, p := range procs {
		p.Said("connected to NATS again", moment)
		t.Logf("%s is back %.1f s after the server was stopped, or sooner", name, time.Since(at).Seconds())
	}
	for _, every := range promises {
		id := "every-" + every.String()
		for _, of := range []string{id, id + "/w"} {
			if !strings.Contains(procs[of].Output(), "this connection moves to another server") {
				t.Errorf("%s is connected again, and says not why", of)
			}
		}
	}
	if took := time.Since(at); took > 16*time.Second { // 11.5 s, plus time for a busy machine
		t.Errorf("all were back after %v", took)
	}
	fallen := func() (bool, string) { // 1 s is too short to be sure on a busy machine
		for _, ev := range events.Of(hivebeat.KindLost, "") {
			if !strings.HasPrefix(ev.Subject, "every-1s") {
				return true, ev.Subject + " was lost: " + ev.Data.Reason
			}
		}
		return false, ""
	}
	bustest.Never(t, time.Until(at.Add(20*time.Second)), fallen)
	f.sees(all)
	if _, err := nc.Request("queen.api.summary.q2", nil, 2*time.Second); err != nil {
		t.Errorf("the queen that was connected there: %v", err)
	}
	stopped.Signal(syscall.SIGCONT)
	bustest.Never(t, 3*time.Second, fallen) // old messages that waited there arrive now
	f.sees(all)
	for _, kind := range []hivebeat.Kind{hivebeat.KindRestarted, hivebeat.KindConflict} {
		none(t, events, kind)
	}
	for _, ev := range events.Of(hivebeat.KindLost, "") {
		t.Logf("%s was lost: %s", ev.Subject, ev.Data.Reason)
	}
	if lost, state := fallen(); lost {
		t.Error(state)
	}
}
