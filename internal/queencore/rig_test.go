package queencore

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/liveness"
	"github.com/beatfabric/hivebeat/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

var errAway = fmt.Errorf("no answer: %w", ledger.ErrAway)

// rig drives a Core as a shell does, with a store that answers at once.
type rig struct {
	t   testing.TB
	c   *Core
	now time.Time

	silent  bool // the store does not answer at all
	asked   []*Op
	stored  []hivebeat.Event // each once
	live    []hivebeat.Event // went out before they were stored
	quick   bool             // it does not look at the stored events
	deaf    bool             // the stream of events does not answer
	err     error            // instead of errAway
	broken  bool             // the store answers only with errors
	split   bool             // it can be read, but is not in touch with a majority of its servers
	roster  map[string]ledger.RosterItem
	events  map[string][]hivebeat.EventData // stored, or published without a store, by hive/worker
	ids     map[string]int                  // how often each was stored
	ops     map[OpKind]int
	tokens  int
	calls   []fleet.RollCall
	heard   map[string]time.Duration // when the queen listened to each hive's workers
	called  map[string]time.Duration // when each was first called
	unheard []string                 // hives whose workers are not listened to any more
	puts    []ledger.Snapshot
	serves  int
	peers   [][]byte
	dropped uint64
	mute    bool // tokens do not come back
	rev     uint64
	logs    map[string]int // log lines, by their text
}

func newRig(t testing.TB, cfg Config) *rig {
	r := &rig{
		t: t, now: epoch, roster: make(map[string]ledger.RosterItem), events: make(map[string][]hivebeat.EventData),
		ids: make(map[string]int), ops: make(map[OpKind]int), heard: make(map[string]time.Duration), logs: make(map[string]int),
		called: make(map[string]time.Duration),
	}
	cfg.ID, cfg.Fresh, cfg.Random = "q", hivebeat.Fresh, func() float64 { return 0.5 }
	r.c = New(cfg, r.now)
	r.c.Connection(r.now, core.Connection{Up: true})
	if !cfg.NoJetStream {
		r.c.StoreOpened(r.now)
	}
	r.turn()
	return r
}

// turn does the work that the core asks for, until it asks for nothing more.
func (r *rig) turn() (wake time.Time) {
	r.t.Helper()
	for range 10_000 {
		y := r.c.Ready(r.now)
		if y.Err != nil {
			r.t.Fatal(y.Err)
		}
		wake = y.Wake
		r.calls = append(r.calls, y.Calls...)
		r.puts = append(r.puts, y.Puts...)
		r.sees(y)
		r.peers = append(r.peers, y.Peers...)
		r.unheard = append(r.unheard, y.Unlisten...)
		for _, c := range y.Calls {
			if _, ok := r.called[c.Hive]; c.Workers && !ok {
				r.called[c.Hive] = r.now.Sub(epoch)
			}
		}
		for _, id := range y.Listen {
			r.heard[id] = r.now.Sub(epoch)
		}
		if y.Serve {
			r.serves++
		}
		token, ops, read := y.Token, append([]*Op(nil), y.Ops...), y.Read
		if y.Settle {
			r.c.Settled(r.now, liveness.Path{Server: "NDXS"})
		}
		if token != 0 {
			if r.tokens++; !r.mute {
				r.c.TokenBack(r.now, token, r.dropped)
			}
		}
		if read {
			r.c.RosterRead(r.now, r.roster)
			r.c.ReadDone(r.now, nil)
		}
		if r.silent {
			r.asked, ops = append(r.asked, ops...), nil
		}
		for _, op := range ops {
			r.answer(op)
			r.c.Done(r.now, op)
		}
		if (token == 0 || r.mute) && !y.Settle && !read && len(ops) == 0 {
			return wake
		}
	}
	r.t.Fatal("there is always more")
	return wake
}

func (r *rig) sees(y *Ready) {
	r.live = append(r.live, y.Live...)
	for i := range y.Logs {
		r.logs[y.Logs[i].Text]++
	}
}

// answers makes the store answer again, even to requests from while it was silent.
func (r *rig) answers() {
	ops := r.asked
	r.silent, r.asked = false, nil
	for _, op := range ops {
		r.answer(op)
		r.c.Done(r.now, op)
	}
	r.turn()
}

// pass lets time pass, and ticks when the core wants it.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	end := r.now.Add(d)
	for {
		wake := r.turn()
		if !wake.After(r.now) {
			wake = r.now.Add(time.Millisecond)
		}
		if wake.After(end) {
			break
		}
		r.now = wake
		r.c.Tick(r.now, r.dropped)
	}
	r.now = end
	r.c.Tick(r.now, r.dropped)
	r.turn()
}

func (r *rig) answer(op *Op) {
	r.ops[op.Kind]++
	op.Errs = make([]error, max(len(op.Msgs), len(op.Events)))
	op.Heads, op.Rosters = make([]ledger.Head, len(op.Keys)), make([]ledger.RosterRead, len(op.Keys))
	op.Advanced = make([]ledger.Advanced, len(op.Steps))
	if err := r.err; r.broken || r.deaf && op.Kind == OpPublish {
		if err == nil {
			err = errAway
		}
		op.Err = err
		for i := range op.Errs {
			op.Errs[i] = err
		}
		for i := range op.Heads {
			op.Heads[i].Err, op.Rosters[i].Err = err, err
		}
		for i := range op.Advanced {
			op.Advanced[i].Err = err
		}
		return
	}
	if r.split && op.Quorum {
		op.Err = errAway
	}
	for i := range op.Msgs {
		if r.quick {
			break
		}
		var ev hivebeat.Event
		if err := json.Unmarshal(op.Msgs[i].Body, &ev); err != nil {
			r.t.Fatal(err)
		}
		r.store(&ev)
	}
	for i := range op.Events {
		r.store(&op.Events[i])
	}
	for i, key := range op.Keys {
		item, ok := r.roster[key]
		op.Rosters[i] = ledger.RosterRead{Item: item, OK: ok}
	}
	for i := range op.Steps {
		s := &op.Steps[i]
		if r.roster[s.Key].Revision != s.Revision {
			op.Advanced[i].Err = fmt.Errorf("as it is: %w", ledger.ErrConflict)
			continue
		}
		r.rev++
		r.roster[s.Key] = ledger.RosterItem{RosterEntry: s.Next, Revision: r.rev, Epoch: 1}
		op.Advanced[i].Revision = r.rev
	}
}

func (r *rig) store(ev *hivebeat.Event) {
	if r.ids[ev.ID]++; r.ids[ev.ID] > 1 {
		return
	}
	key := ev.Data.Hive + "/" + ev.Data.Worker
	r.events[key] = append(r.events[key], ev.Data)
	r.stored = append(r.stored, *ev)
}

func (r *rig) kinds(key string) (list []hivebeat.Kind) {
	for _, d := range r.events[key] {
		list = append(list, d.Kind)
	}
	return list
}

// snapshot gives the core a snapshot of a hive with a worker.
func (r *rig) snapshot(hive string, inc, seq uint64, workers ...hivebeat.Record) {
	r.t.Helper()
	b, err := wire.EncodeSnapshot(&hivebeat.Snapshot{V: 1, Hive: hive, Inc: inc, Every: 15_000, Seq: seq, Pages: 1, Warm: true, Conn: map[string]string{"h": "S/1"}[hive], RW: 250, Workers: append([]hivebeat.Record{}, workers...)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.c.Snapshot(r.now, "", b)
}

func worker(id string) hivebeat.Record {
	return hivebeat.Record{
		Worker: id, Live: hivebeat.Alive, N: 1,
		Facts: hivebeat.Facts{Inc: 7, Every: 30_000, Seq: 10, State: hivebeat.Ready},
		Tr:    []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, To: "alive", Inc: 7}},
	}
}

// closes makes the server report that the connection of hive h closed.
func (r *rig) closes() {
	r.c.Closed(r.now, liveness.Disconnect{Server: "S", Conn: "S/1", Reason: "Client Closed", Evidence: true})
}

var errBroken = errors.New("broken for good")

func encodeFor(t testing.TB, seq uint64, workers ...hivebeat.Record) []byte {
	t.Helper()
	b, err := wire.EncodeSnapshot(&hivebeat.Snapshot{V: 1, Hive: "h", Inc: 100, Every: 15_000, Seq: seq, Pages: 1, Warm: true, Workers: append([]hivebeat.Record{}, workers...)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
