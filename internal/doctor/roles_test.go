package doctor_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/doctor"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
	"github.com/beatfabric/hivebeat/queen/client"
	"github.com/beatfabric/hivebeat/worker"
)

const soon = 30 * time.Second

// role is the common interface of worker, hive and queen.
type role interface {
	Run(ctx context.Context) error
	Stop(ctx context.Context) error
}

// run runs r until the returned function is called, or the test ends.
func run(t *testing.T, r role) (stop func()) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			if err := r.Stop(ctx); err != nil {
				t.Errorf("stop %T: %v", r, err)
			}
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("run %T: %v", r, err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// The permissions that the doctor lists suffice: each role works with them alone, and
// NATS refuses it nothing.
func TestRolesNeedNoMore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pinned, noJetStream bool }{{false, false}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("pinned=%v nojs=%v", c.pinned, c.noJetStream), func(t *testing.T) {
			subjects, err := hivebeat.NewSubjects("acme")
			if err != nil {
				t.Fatal(err)
			}
			asker := map[bool]string{true: "ann"} // pinned ones also ask under an id
			var users []bustest.Option
			for _, r := range doctor.Roles() {
				p := doctor.Config{
					Role: r, Subjects: subjects, Hive: "gpu-01", Worker: "llama", Pinned: c.pinned, NoJetStream: c.noJetStream, Asker: asker[c.pinned],
				}.Permissions()
				if r == doctor.Queen {
					p.Publish = append(p.Publish, "_INBOX.>") // for its answers
				}
				users = append(users, bustest.User(string(r), p.Publish, p.Subscribe))
			}
			srv := bustest.Server(t, users...)
			as := func(r doctor.Role) *nats.Conn {
				return bustest.Conn(t, srv, nats.UserInfo(string(r), string(r)), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
					t.Errorf("%s: %v", r, err)
				}))
			}

			viewer, scheduler := as(doctor.Viewer), as(doctor.Scheduler)
			events := make(chan *nats.Msg, 100)
			if _, err := viewer.ChanSubscribe(subjects.Events(), events); err != nil {
				t.Fatal(err)
			}
			bustest.Flush(t, viewer)
			ask := func(nc *nats.Conn) *client.Client {
				c, err := client.New(nc, client.Config{Prefix: "acme", Asker: asker[c.pinned]})
				if err != nil {
					t.Fatal(err)
				}
				return c.Follow()
			}
			view, schedule := ask(viewer), ask(scheduler)

			w, err := worker.New(as(doctor.Worker), worker.Config{
				Hive: "gpu-01", ID: "llama", Prefix: "acme", Pinned: c.pinned, Every: time.Second, Slots: 1, State: hivebeat.Ready,
			})
			if err != nil {
				t.Fatal(err)
			}
			h, err := hive.New(as(doctor.Hive), hive.Config{
				ID: "gpu-01", Prefix: "acme", Pinned: c.pinned, Every: time.Second,
				Host: func(context.Context) (hivebeat.Host, error) { return hivebeat.Host{}, nil },
				GPUs: func(context.Context) ([]hivebeat.GPU, error) { return nil, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			q, err := queen.New(as(doctor.Queen), queen.Config{
				ID: "q-1", Prefix: "acme", NoJetStream: c.noJetStream, Storage: jetstream.MemoryStorage,
			})
			if err != nil {
				t.Fatal(err)
			}
			leave := run(t, w)
			run(t, h)
			run(t, q)

			bustest.Eventually(t, soon, func() (bool, string) {
				w, err := view.Worker(t.Context(), "gpu-01", "llama")
				return err == nil && w.Live == hivebeat.Alive && w.State == hivebeat.Ready, fmt.Sprintf("%+v, %v", w, err)
			})
			if _, err := view.Summary(t.Context()); err != nil { // from the queen that answered
				t.Error(err)
			}
			if _, err := schedule.Pick(t.Context(), client.PickRequest{}); err != nil {
				t.Error(err)
			}
			if p, err := schedule.Hold(t.Context(), client.HoldRequest{ID: "job"}); err != nil || p.Places[0].Asker != cmp.Or(asker[c.pinned], api.Anyone) {
				t.Errorf("%+v, %v", p, err)
			}
			if _, err := schedule.Release(t.Context(), "job"); err != nil {
				t.Error(err)
			}
			leave()
			for late := time.After(soon); ; {
				select {
				case m := <-events:
					if strings.HasSuffix(m.Subject, ".gpu-01.llama.left") {
						return
					}
				case <-late:
					t.Fatal("nobody tells that the worker left")
				}
			}
		})
	}
}

// The doctor names queens of one fabric that do not share a store.
func TestQueensWithoutACommonStore(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	stores := func() (found []doctor.Finding) {
		list, err := doctor.Check(t.Context(), bustest.Conn(t, srv), doctor.Config{Role: doctor.Viewer})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if strings.Contains(f.What, "do not share one store") {
				found = append(found, f)
			}
		}
		return found
	}
	start := func(cfg queen.Config) {
		t.Helper()
		cfg.Storage = jetstream.MemoryStorage
		q, err := queen.New(bustest.Conn(t, srv), cfg)
		if err != nil {
			t.Fatal(err)
		}
		run(t, q)
		c, err := client.New(bustest.Conn(t, srv), client.Config{})
		if err != nil {
			t.Fatal(err)
		}
		bustest.Eventually(t, 30*time.Second, func() (bool, string) {
			m, err := bustest.Conn(t, srv).Request("$SRV.PING.queen."+cfg.ID, nil, time.Second)
			if err != nil {
				return false, err.Error()
			}
			_, err = c.Summary(t.Context())
			return err == nil && strings.Contains(string(m.Data), `"stores"`), fmt.Sprintf("%s, %v", m.Data, err)
		})
	}
	start(queen.Config{ID: "q1"})
	start(queen.Config{ID: "q2"})
	if f := stores(); len(f) != 0 {
		t.Errorf("they share one: %+v", f)
	}
	start(queen.Config{ID: "q3", NoJetStream: true})
	if f := stores(); len(f) != 1 || f[0].Level != doctor.Warn || !strings.Contains(f[0].What, "q1, q2 apart from q3") {
		t.Errorf("%+v", f)
	}
}
