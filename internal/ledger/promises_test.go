package ledger

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

// TestRosterPromises checks that an entry holds the promise of most workers once, and that
// each worker has it again when the entry is read.
func TestRosterPromises(t *testing.T) {
	w := func(every, quiet hivebeat.Millis) RosterWorker {
		return RosterWorker{Inc: 7, Live: hivebeat.Alive, Every: every, Quiet: quiet}
	}
	const one = `{"inc":7,"live":"alive"}`
	for _, c := range []struct {
		name    string
		workers map[string]RosterWorker
		want    string
	}{
		{"none", nil, `{"v":1,"n":1,"live":"lost","inc":1,"seq":2,"every":15000}`},
		{
			"all the same",
			map[string]RosterWorker{"a": w(30000, 0), "b": w(30000, 0)},
			`{"v":1,"n":1,"live":"lost","inc":1,"seq":2,"every":15000,"workers":{"a":` + one + `,"b":` + one + `},"worker_every":30000}`,
		},
		{
			"one that differs, and is quiet",
			map[string]RosterWorker{"a": w(30000, 0), "b": w(60000, 120000), "c": w(30000, 0)},
			`{"v":1,"n":1,"live":"lost","inc":1,"seq":2,"every":15000,"workers":{"a":` + one + `,"b":{"inc":7,"live":"alive","every":60000,"quiet":120000},"c":` + one + `},"worker_every":30000}`,
		},
		{
			"as many of each",
			map[string]RosterWorker{"a": w(60000, 0), "b": w(30000, 0)},
			`{"v":1,"n":1,"live":"lost","inc":1,"seq":2,"every":15000,"workers":{"a":{"inc":7,"live":"alive","every":60000},"b":` + one + `},"worker_every":30000}`,
		},
		{
			"one that is not known",
			map[string]RosterWorker{"a": w(0, 0), "b": w(30000, 0)},
			`{"v":1,"n":1,"live":"lost","inc":1,"seq":2,"every":15000,"workers":{"a":` + one + `,"b":{"inc":7,"live":"alive","every":30000}}}`,
		},
		{"none known", map[string]RosterWorker{"a": w(0, 0)}, // as older queens put it
			`{"v":1,"n":1,"live":"lost","inc":1,"seq":2,"every":15000,"workers":{"a":` + one + `}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := RosterEntry{N: 1, Live: hivebeat.Lost, Inc: 1, Seq: 2, Every: 15000, Workers: c.workers}
			b, err := e.encode()
			if err != nil || string(b) != c.want {
				t.Errorf("%s, %v\nwant %s", b, err, c.want)
			}
			var back RosterEntry
			if err := back.decode(b); err != nil {
				t.Fatal(err)
			}
			back.V = 0
			if diff := cmp.Diff(e, back); diff != "" {
				t.Errorf("-put +read:\n%s", diff)
			}
		})
	}
}

// TestPromisesTakeNoRoom checks that an entry of thousands of workers fits into a message.
func TestPromisesTakeNoRoom(t *testing.T) {
	e := RosterEntry{N: 1, Live: hivebeat.Lost, Inc: 1, Seq: 2, Every: 15000, Workers: map[string]RosterWorker{}}
	for i := range 5000 {
		e.Workers[fmt.Sprintf("w%d", i)] = RosterWorker{Inc: 1795435200000000, Live: hivebeat.Lost, Cause: hivebeat.CauseHive, State: hivebeat.Ready, Seq: 1234}
	}
	without, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	for id, w := range e.Workers {
		w.Every = 30000
		e.Workers[id] = w
	}
	with, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	if more := len(with) - len(without); more > 32 || len(with) > 512<<10 {
		t.Errorf("%d bytes, %d of them for the promises", len(with), more)
	}
	if bytes.Count(with, []byte("30000")) != 1 {
		t.Error("the promise of all is there more than once")
	}
}
