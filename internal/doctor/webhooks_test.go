package doctor_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/doctor"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/webhook"
)

// A queen with webhooks works with the permissions that the doctor lists, and without
// them the doctor reports the missing ones.
func TestWebhooksNeedNoMore(t *testing.T) {
	t.Parallel()
	for _, noJetStream := range []bool{false, true} {
		t.Run(fmt.Sprintf("nojs=%v", noJetStream), func(t *testing.T) {
			t.Parallel()
			subjects, err := hivebeat.NewSubjects("acme")
			if err != nil {
				t.Fatal(err)
			}
			cfg := doctor.Config{Role: doctor.Queen, Subjects: subjects, NoJetStream: noJetStream, Storage: jetstream.MemoryStorage}
			without := cfg.Permissions()
			cfg.Webhooks = true
			with := cfg.Permissions()
			srv := bustest.Server(t,
				bustest.User("with", append(with.Publish, "_INBOX.>"), with.Subscribe),
				bustest.User("without", append(without.Publish, "_INBOX.>"), without.Subscribe),
				bustest.User("hive", nil, nil))
			refused := make(chan error, 100)
			nc := bustest.Conn(t, srv, nats.UserInfo("with", "with"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))

			got := make(chan string, 100)
			var answers atomic.Int32
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if answers.Add(1) == 1 { // so that the NAK is needed as well
					w.WriteHeader(500)
					return
				}
				got <- r.Header.Get("Webhook-Id")
			}))
			defer receiver.Close()
			q, err := queen.New(nc, queen.Config{Prefix: "acme", NoJetStream: noJetStream, Storage: jetstream.MemoryStorage})
			if err != nil {
				t.Fatal(err)
			}
			w, err := webhook.New(nc, webhook.Config{URLs: []string{receiver.URL}, Prefix: "acme", NoJetStream: noJetStream, Kinds: []hivebeat.Kind{hivebeat.KindJoined}, Parallel: 1})
			if err != nil {
				t.Fatal(err)
			}
			run(t, w)
			run(t, q)
			bustest.Eventually(t, soon, func() (bool, string) {
				a, err := q.Report(t.Context(), false)
				return err == nil && a.Status.Warm, fmt.Sprint(a.Status, err)
			})
			h, err := hive.New(bustest.Conn(t, srv, nats.UserInfo("hive", "hive")), hive.Config{
				ID: "gpu-01", Prefix: "acme", Every: time.Second,
				Host: func(context.Context) (hivebeat.Host, error) { return hivebeat.Host{}, nil },
				GPUs: func(context.Context) ([]hivebeat.GPU, error) { return nil, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			run(t, h)
			select {
			case id := <-got:
				if !strings.HasPrefix(id, "gpu-01.") {
					t.Errorf("id %q", id)
				}
			case err := <-refused:
				t.Fatal(err)
			case <-time.After(soon):
				t.Fatal("no webhook")
			}
			select {
			case err := <-refused:
				t.Error(err)
			default:
			}

			levels := map[string]doctor.Level{"with": doctor.OK, "without": doctor.Warn}
			if noJetStream {
				levels["without"] = doctor.OK // every queen receives the events
			}
			for user, level := range levels {
				list, err := doctor.Check(t.Context(), bustest.Conn(t, srv, nats.UserInfo(user, user)), cfg)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range list {
					if f.Check == doctor.CheckPermission && (f.Level != level || level == doctor.Warn && !strings.Contains(f.What, "webhooks")) {
						t.Errorf("%s: %+v", user, f)
					}
				}
			}
		})
	}
}
