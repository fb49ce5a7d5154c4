//go:build e2e

package nemesis

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// played is the hives of one process. Each sends what a hive with a single worker sends, with
// the default promise. Signals control them:
//
//	SIGUSR1   every worker's process has ended: each hive sends an extra snapshot that says so
//	SIGUSR2   each hive sends a last snapshot, with a promise of 1 s, and stops
type played struct {
	nc    *nats.Conn
	inc   uint64
	hives []hivebeat.Snapshot
	due   []time.Time
	began time.Time
}

// rush is how long all hives together take to send one snapshot each.
const rush = 500 * time.Millisecond

const playedEvery = hivebeat.HiveEvery

func playedID(i int) string { return fmt.Sprintf("load-%05d", i) }

func playHives(out io.Writer, url, number string) error {
	var n int
	if _, err := fmt.Sscan(number, &n); err != nil {
		return err
	}
	nc, err := nats.Connect(url, nats.Name("hives of the test"))
	if err != nil {
		return err
	}
	defer nc.Close()
	p := &played{nc: nc, inc: uint64(time.Now().UnixMicro()), began: time.Now()}
	// They start over 5 s: the size of the view matters here, not the rush.
	for i := range n {
		p.hives = append(p.hives, hivebeat.Snapshot{
			V: hivebeat.Version, Hive: playedID(i), Inc: p.inc, Every: hivebeat.MillisOf(playedEvery), Warm: true, Pages: 1,
			Labels: map[string]string{"zone": fmt.Sprintf("z%d", i%8)},
			Workers: []hivebeat.Record{{
				Worker: "w", Live: hivebeat.Alive, N: 1,
				Tr:    []hivebeat.Transition{{N: 1, Kind: hivebeat.KindJoined, To: string(hivebeat.Alive), Inc: p.inc}},
				Facts: hivebeat.Facts{Inc: p.inc, Every: hivebeat.MillisOf(hivebeat.WorkerEvery), State: hivebeat.Ready, Model: "m"},
			}},
		})
		p.due = append(p.due, p.began.Add(time.Duration(i)*5*time.Second/time.Duration(n)))
	}
	return p.run(out)
}

func (p *played) run(out io.Writer) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1, syscall.SIGUSR2)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case what := <-told:
			began := time.Now()
			for i := range p.hives {
				// As fast as a queen reads: snapshots that it drops would come again with the next beat.
				if rest := time.Until(began.Add(time.Duration(i) * rush / time.Duration(len(p.hives)))); rest > time.Millisecond {
					<-time.After(rest)
				}
				switch h := &p.hives[i]; what {
				case syscall.SIGUSR1:
					w := &h.Workers[0]
					w.Live, w.Cause, w.N = hivebeat.Lost, hivebeat.CauseExit, 2
					w.Tr = []hivebeat.Transition{{N: 2, Kind: hivebeat.KindLost, From: string(hivebeat.Alive), To: string(hivebeat.Lost), Cause: hivebeat.CauseExit, Inc: p.inc}}
				case syscall.SIGUSR2:
					h.Every = hivebeat.MillisOf(time.Second)
				}
				if err := p.send(i, time.Now()); err != nil {
					return err
				}
			}
			if err := p.nc.Flush(); err != nil {
				return err
			}
			fmt.Fprintf(out, "said after %v: %s\n", what, time.Since(began).Round(time.Millisecond))
			if what == syscall.SIGUSR2 {
				return nil
			}
		case now := <-tick.C:
			for i, due := range p.due {
				if now.Before(due) {
					continue
				}
				if err := p.send(i, now); err != nil {
					return err
				}
			}
		}
	}
}

func (p *played) send(i int, now time.Time) error {
	h := &p.hives[i]
	h.Seq++
	w := &h.Workers[0]
	w.Seq++
	w.Age = hivebeat.MillisOf(time.Millisecond)
	b, err := wire.EncodeSnapshot(h)
	if err != nil {
		return err
	}
	p.due[i] = now.Add(time.Duration((0.85 + 0.1*rand.Float64()) * float64(playedEvery)))
	var s hivebeat.Subjects
	return errors.Join(p.nc.Publish(s.Hives(), b), p.nc.LastError())
}
