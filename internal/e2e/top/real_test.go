//go:build e2e

package top

import (
	"strconv"
	"testing"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// With a real queen and a live fleet: the fleet is shown, and a NATS that goes away and comes
// back is reported.
func TestRealFleet(t *testing.T) {
	port := rig.Port(t)
	url := "nats://127.0.0.1:" + strconv.Itoa(port)
	store := t.TempDir()
	up := func() *rig.Proc {
		return rig.Start(t, "up", nil, rig.Hivebeat(t), "up", "--demo", "--id", "mine", "--port", strconv.Itoa(port), "--store", store)
	}
	first := up()
	first.Said("hivebeat ls", moment)
	x := open(t, 120, 35)
	x.types(rig.Hivebeat(t) + " top workers --nats " + url + " --filter 'model=*llama*'; echo left $?")
	x.keys("Enter")
	x.shows("[2 Workers]", "filter model=*llama*", "▸ gpu-02/llama-70b", "1–1 of 1", "sure")
	x.hides("gpu-01/flux")
	x.keys("Enter")
	x.shows("Workers › gpu-02/llama-70b", "Llama-3.3-70B", "EVENTS", "joined")
	x.keys("h")
	x.shows("Workers › gpu-02", "H100", "GPU-", "▸ gpu-02/")
	x.keep("real-hive")
	x.keys("1")
	x.shows("[1 Hives]", "▸ gpu-01", "mine", "1–5 of 5")
	x.keep("real-hives")
	x.keys("s", "s", "s", "r")
	x.shows("sort workers ▼", "WORKERS▼")
	x.keys("3")
	x.shows("[3 Events]", "joined", "heard for the first time")
	x.keep("real-events")
	x.keys("1")

	first.Kill()
	x.shows("CUT OFF", "the connection to NATS is lost", "alive?")
	x.keep("real-cut-off")
	second := up()
	second.Said("hivebeat ls", moment)
	x.hides("CUT OFF", "alive?")
	x.shows("answer 0s old")
	x.keys("q")
	x.shows("left 0")
	x.restored()
}
