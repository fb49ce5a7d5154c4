//go:build e2e

package fabric

import (
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
	"github.com/beatfabric/hivebeat/queen/api"
)

// One of two queens is stopped. NATS still sends requests to it, but each gets an answer: with
// the client at once, and with a plain request from 3 s later on.
func TestQueenStopped(t *testing.T) {
	f := start(t)
	q1, q2 := f.queen("q1"), f.queen("q2")
	f.hive("gpu-01")
	f.worker("gpu-01", "w1", "--slots", "100")
	q1.Said("queen is warm", moment)
	q2.Said("queen is warm", moment)
	f.sees(rig.Fleet{"gpu-01": hivebeat.Alive, "gpu-01/w1": hivebeat.Alive})
	heard := map[string]int{}
	peers, err := f.nc.SubscribeSync(new(hivebeat.Subjects).Peers())
	if err != nil {
		t.Fatal(err)
	}
	rig.Until(t, moment, "the queens to hear each other", func() (bool, string) {
		m, err := peers.NextMsg(beat)
		if err != nil {
			return false, err.Error()
		}
		var said struct{ Queen string }
		if err := json.Unmarshal(m.Data, &said); err != nil {
			t.Fatalf("%v in %s", err, m.Data)
		}
		heard[said.Queen]++
		return heard["q1"] > 2 && heard["q2"] > 2, fmt.Sprint(heard)
	})
	if err := peers.Unsubscribe(); err != nil {
		t.Fatal(err)
	}

	q1.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	slowest, slow := time.Duration(0), 0
	ask := func(n int, args func(int) []string) {
		t.Helper()
		for i := range n {
			began := time.Now()
			f.cli(0, args(i)...)
			took := time.Since(began)
			slowest = max(slowest, took)
			if took > time.Second {
				slow++
			}
		}
	}
	ask(10, func(i int) []string { return []string{"pick", "--timeout", "2s", "--hold", fmt.Sprint("job", i)} })
	ask(100, func(int) []string { return []string{"ls", "--timeout", "2s"} })
	for time.Since(stopped) < 3*time.Second {
		ask(1, func(int) []string { return []string{"ls", "--timeout", "2s"} })
	}
	t.Logf("more than 110 commands: the slowest took %v, %d more than 1 s", slowest, slow)
	if slow > 5 { // a few may wait for a CPU
		t.Errorf("%d commands took longer than 1 s, the slowest %v", slow, slowest)
	}
	for i := range 20 {
		if _, err := f.nc.Request("queen.api.summary", nil, time.Second); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}

	// It continues, and its first answer says that it may be wrong.
	q1.Signal(syscall.SIGCONT)
	m, err := f.nc.Request("queen.api.summary.q1", nil, moment)
	if err != nil {
		t.Fatal(err)
	}
	var a api.Answer
	if err := json.Unmarshal(m.Data, &a); err != nil || len(a.Status.Unsure) == 0 {
		t.Errorf("the first answer says that it is sure: %s, %v", m.Data, err)
	}
	q2.Said("another queen is heard again", moment)
}
