package hivecore

import (
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

func TestExits(t *testing.T) {
	r := connected(t, Config{NS: "boot/4026531836", PID: 1})
	f := newFake("w")
	r.beat(f)
	if len(r.watches) != 1 || r.watches[0].PID != f.PID {
		t.Fatalf("watches %+v", r.watches)
	}
	r.forget()
	r.deaf = true // the kernel does not need NATS
	r.down()
	r.Exited(r.now, 0, []detector.Exit{{Process: r.watchedProcess(f), At: r.now}})
	r.do()
	r.is("w", hivebeat.Lost)
	r.wantUrges("ended")
	r.Exited(r.now, 0, []detector.Exit{{Process: r.watchedProcess(f), At: r.now}})
	r.do()
	r.wantUrges()

	for name, cfg := range map[string]Config{"no namespace": {PID: 1}, "no watch": {NS: f.NS}, "its own": {NS: f.NS, PID: f.PID}} {
		r := connected(t, cfg)
		if r.beat(newFake("w")); len(r.watches) > 0 {
			t.Errorf("%s: watches %+v", name, r.watches)
		}
		if n := len(r.Running()); cfg.NS == "" && n != 0 || cfg.NS != "" && n != 1 {
			t.Errorf("%s: %d processes of its namespace", name, n)
		}
	}
}

func (r *rig) watchedProcess(f *fake) detector.Process {
	return detector.Process{Worker: f.Worker, Inc: f.Inc, PID: f.PID}
}

func closedConn(f *fake) liveness.Disconnect {
	return liveness.Disconnect{Server: "NDXS", Conn: f.Conn, Reason: "Client Closed", Evidence: true}
}

// A worker whose connection closed is asked to beat before its window is over. A beat
// over the closed connection saves it only if the beat cannot have been under way at
// the closing.
func TestAConnectionOfAWorkerCloses(t *testing.T) {
	t.Run("lost", func(t *testing.T) {
		r := connected(t, Config{})
		r.beat(newFake("w"))
		r.forget()
		r.Closed(r.now, closedConn(newFake("w")))
		r.do()
		if r.settles != 1 {
			t.Fatalf("%d asks whether all has come in", r.settles)
		}
		r.pass(liveness.FastWindow - liveness.AskBefore)
		r.wantRolls(hivebeat.WorkerRollSpread)
		r.pass(liveness.AskBefore - 1)
		r.is("w", hivebeat.Alive)
		r.pass(1)
		r.is("w", hivebeat.Lost)
		r.wantUrges("ended", "ended") // must not be picked, and is lost
		r.wantRolls()
	})
	t.Run("on its way", func(t *testing.T) {
		r := connected(t, Config{})
		f := newFake("w")
		r.beat(f)
		r.deaf = true
		r.Closed(r.now, closedConn(f))
		r.do()
		r.beat(f) // sent before the closing
		r.deaf = false
		r.pass(liveness.FastWindow)
		r.is("w", hivebeat.Lost)
	})
	t.Run("settled", func(t *testing.T) {
		r := connected(t, Config{})
		f := newFake("w")
		r.beat(f)
		r.Closed(r.now, closedConn(f))
		r.do()
		r.beat(f) // after the hive's token, so sent after the closing
		r.pass(liveness.FastWindow)
		r.is("w", hivebeat.Alive)
	})
	t.Run("settled anew", func(t *testing.T) {
		r := connected(t, Config{})
		a, b := newFake("a"), newFake("b")
		b.Conn = "NDXS/18"
		r.beat(a)
		r.beat(b)
		r.deaf = true
		r.Closed(r.now, closedConn(a))
		r.do()
		r.now = r.now.Add(1)
		r.Closed(r.now, closedConn(b)) // while the first request is unanswered
		r.do()
		if r.settles != 1 {
			t.Fatalf("%d asks at a time", r.settles)
		}
		r.Settled(r.now, liveness.Path{Server: "NDXS"})
		r.do()
		r.beat(b) // not settled yet
		if r.settles != 2 {
			t.Fatalf("%d asks, want one for each", r.settles)
		}
		r.Settled(r.now, liveness.Path{Server: "NDXS"})
		r.Settled(r.now, liveness.Path{Server: "NDXS"}) // a surplus call changes nothing
		r.do()
		r.beat(a)
		r.deaf = false
		r.pass(liveness.FastWindow)
		r.is("a", hivebeat.Alive)
		r.is("b", hivebeat.Lost)
	})
	for name, cut := range map[string]func(r *rig){
		"the system connection is gone": func(r *rig) { r.System(r.now, false); r.System(r.now, true) },
		"cut off itself":                func(r *rig) { r.down(); r.up() },
		"many close at once": func(r *rig) {
			for i := range liveness.MassDisconnects {
				f := newFake("")
				f.Conn = fmt.Sprint("NDXS/9", i)
				r.Closed(r.now, closedConn(f))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := connected(t, Config{})
			f := newFake("w")
			r.beat(f)
			r.Closed(r.now, closedConn(f))
			cut(r)
			r.do()
			r.pass(10 * second)
			r.is("w", hivebeat.Alive)
		})
	}
}

// The roll is called at intervals for workers whose window is about to end. With many
// workers, the spread is longer.
func TestAskingThoseWhoMayBeBack(t *testing.T) {
	for many, spread := range map[int]time.Duration{10: hivebeat.WorkerRollSpread, 8000: 800 * time.Millisecond} {
		r := connected(t, Config{})
		list := names(many)
		for i, f := range list {
			f.Conn = fmt.Sprint("NDXS/", i)
			r.beat(f)
		}
		r.forget()
		for _, f := range list[:3] { // one per second
			r.Closed(r.now, closedConn(f))
			r.do()
			r.pass(second)
		}
		r.pass(3 * second)
		r.wantRolls(spread)
		r.pass(2 * second)
		r.forget()
		r.Closed(r.now, closedConn(list[3]))
		r.do()
		r.pass(3 * second)
		r.wantRolls(spread)
	}
}
