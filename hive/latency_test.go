package hive

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	fabric "github.com/beatfabric/hivebeat/queen" // queen is a type of these tests
)

// BenchmarkKillToEvent measures the time from kill -9 of a worker's process, or from
// its SIGTERM, to its event at a plain subscriber of queen.events.>, over TCP, with a
// queen that stores its events in JetStream:
//
//	go test -run xxx -bench KillToEvent -benchtime 1x ./hive
func BenchmarkKillToEvent(b *testing.B) {
	for _, c := range []struct {
		name string
		what string
		kill syscall.Signal
		kind hivebeat.Kind
	}{
		{"exit", processSleeps, syscall.SIGKILL, hivebeat.KindLost},
		{"goodbye", processWorks, syscall.SIGTERM, hivebeat.KindLeft},
	} {
		b.Run(c.name, func(b *testing.B) {
			var all []time.Duration
			for b.Loop() {
				all = append(all, killToEvent(b, c.what, c.kill, c.kind)...)
			}
			slices.Sort(all)
			for name, at := range map[string]int{"p50-ms": len(all) / 2, "p99-ms": len(all) * 99 / 100, "max-ms": len(all) - 1} {
				b.ReportMetric(float64(all[at].Microseconds())/1000, name)
			}
			b.ReportMetric(float64(len(all)), "deaths")
		})
	}
}

// killToEvent kills workers of many hives one after the other. A hive reports twenty
// ends in a burst, and two per second from then on: so each hive loses only three.
func killToEvent(b *testing.B, what string, kill syscall.Signal, kind hivebeat.Kind) (all []time.Duration) {
	const hives, each = 34, 3
	canWatch(b)
	srv := bustest.Server(b)
	ctx, cancel := context.WithCancel(b.Context())
	var ended []chan error
	run := func(f func(context.Context) error) {
		c := make(chan error, 1)
		ended = append(ended, c)
		go func() { c <- f(ctx) }()
	}
	defer func() {
		cancel()
		for _, c := range ended {
			if err := <-c; err != nil {
				b.Error(err)
			}
		}
	}()

	type died struct {
		who string
		at  time.Time
	}
	heard := make(chan died, 10_000)
	nc := bustest.Conn(b, srv)
	if _, err := nc.Subscribe("queen.events.>", func(m *nats.Msg) {
		now := time.Now()
		var ev hivebeat.Event
		if err := json.Unmarshal(m.Data, &ev); err != nil {
			b.Error(err)
		}
		if ev.Data.Kind == kind && ev.Data.Worker != "" {
			heard <- died{ev.Subject, now}
		}
	}); err != nil {
		b.Fatal(err)
	}
	bustest.Flush(b, nc)
	q, err := fabric.New(bustest.Conn(b, srv), fabric.Config{ID: "q"})
	if err != nil {
		b.Fatal(err)
	}
	run(q.Run)

	children, list := map[string]*child{}, []*Hive{}
	for i := range hives {
		cfg := quickConfig()
		cfg.ID = fmt.Sprintf("hive%02d", i)
		h, err := New(bustest.Conn(b, srv), cfg)
		if err != nil {
			b.Fatal(err)
		}
		run(h.Run)
		bustest.Eventually(b, patience, func() (bool, string) { return h.Stats().Snapshots.Sent > 0, "not running" })
		list = append(list, h)
	}
	bustest.Flush(b, nc)
	for i := range each {
		for _, h := range list {
			id := fmt.Sprintf("w%d", i)
			c := newChildOf(b, what, srv.URL(), h.ID(), id)
			children[h.ID()+"/"+id] = c
			if what == processSleeps {
				f := fakeOf(c, id)
				f.Hive = h.ID()
				publish(b, nc, "hive."+h.ID()+".workers", f.Next(b))
			}
		}
	}
	for _, h := range list {
		bustest.Eventually(b, patience, func() (bool, string) { return h.Stats().Watched == each, fmt.Sprintf("%+v", h.Stats()) })
	}
	for i := range each {
		for _, h := range list {
			who := fmt.Sprintf("%s/w%d", h.ID(), i)
			begun := time.Now()
			children[who].signal(b, kill)
			limit := time.After(patience)
			for found := false; !found; {
				select {
				case d := <-heard:
					if found = d.who == who; found {
						all = append(all, d.at.Sub(begun))
					} else if !strings.HasPrefix(d.who, "hive") {
						b.Errorf("%s died", d.who)
					}
				case <-limit:
					b.Fatalf("no event of %s", who)
				}
			}
		}
	}
	return all
}
