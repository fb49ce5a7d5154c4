package doctor_test

import (
	"context"
	"encoding/json"
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
	"github.com/beatfabric/hivebeat/worker"
)

const soon = 30 * time.Second

// role is what worker, hive and queen have in common.
type role interface {
	Run(ctx context.Context) error
	Stop(ctx context.Context) error
}

// run runs r until the function it returns, or the test, ends it.
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

// What the doctor says that a role needs is all that it needs: each role lives
// with those permissions alone, and NATS refuses it nothing.
func TestRolesNeedNoMore(t *testing.T) {
	for _, c := range []struct{ pinned, noJetStream bool }{{false, false}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("pinned=%v nojs=%v", c.pinned, c.noJetStream), func(t *testing.T) {
			subjects, err := hivebeat.NewSubjects("acme")
			if err != nil {
				t.Fatal(err)
			}
			var users []bustest.Option
			for _, r := range doctor.Roles() {
				p := doctor.Config{
					Role: r, Subjects: subjects, Hive: "gpu-01", Worker: "llama", Pinned: c.pinned, NoJetStream: c.noJetStream,
				}.Permissions()
				if r == doctor.Queen {
					p.Publish = append(p.Publish, "_INBOX.>") // its answers
				}
				users = append(users, bustest.User(string(r), p.Publish, p.Subscribe))
			}
			srv := bustest.Server(t, users...)
			as := func(r doctor.Role) *nats.Conn {
				return bustest.Conn(t, srv, nats.UserInfo(string(r), string(r)), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
					t.Errorf("%s: %v", r, err)
				}))
			}

			reader := as(doctor.Reader)
			events := make(chan *nats.Msg, 100)
			if _, err := reader.ChanSubscribe(subjects.Events(), events); err != nil {
				t.Fatal(err)
			}
			bustest.Flush(t, reader)

			w, err := worker.New(as(doctor.Worker), worker.Config{
				Hive: "gpu-01", ID: "llama", Prefix: "acme", Pinned: c.pinned, Every: time.Second,
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
				m, err := reader.Request(subjects.API(api.VerbWorkers), nil, time.Second)
				if err != nil {
					return false, err.Error()
				}
				var a api.Answer
				if err := json.Unmarshal(m.Data, &a); err != nil {
					t.Fatal(err)
				}
				return len(a.Workers) == 1 && a.Workers[0].Live == hivebeat.Alive, string(m.Data)
			})
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
