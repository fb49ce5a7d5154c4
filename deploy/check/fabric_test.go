package check

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/hive"
	hivemetrics "github.com/beatfabric/hivebeat/hive/metrics"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/prom"
	"github.com/beatfabric/hivebeat/internal/prom/promtest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen"
	queenmetrics "github.com/beatfabric/hivebeat/queen/metrics"
	"github.com/beatfabric/hivebeat/queen/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }

const soon = 60 * time.Second

// fabric is a queen with a webhook, a hive, and their metrics handlers.
type fabric struct {
	t           testing.TB
	nc          *nats.Conn
	q           *queen.Queen
	h           *hive.Hive
	killHive    func() // without a goodbye
	queen, hive http.Handler
}

type role interface {
	Run(ctx context.Context) error
	Stop(ctx context.Context) error
}

func run(t testing.TB, r role) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		_ = r.Stop(ctx) // fails if it was cut off, because the goodbye cannot be sent
		if err := <-ended; err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("%T: %v", r, err)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func begin(t testing.TB) *fabric {
	t.Helper()
	srv := bustest.Server(t)
	nc, hiveConn := bustest.Conn(t, srv), bustest.Conn(t, srv)
	f := &fabric{t: t, nc: nc, killHive: hiveConn.Close}
	f.q = must(queen.New(nc, queen.Config{ID: "q-1", Storage: jetstream.MemoryStorage}))
	f.h = must(hive.New(hiveConn, hive.Config{
		ID: "gpu-01", Every: 2 * time.Second,
		Host: func(context.Context) (hivebeat.Host, error) {
			return hivebeat.Host{CPUs: 64, MemTotal: 1 << 40, MemUsed: 1 << 38}, nil
		},
		GPUs: func(context.Context) ([]hivebeat.GPU, error) {
			return []hivebeat.GPU{{UUID: "GPU-a", Total: 80 << 30, Used: 70 << 30, Ours: 69 << 30, Temp: 61, Power: 600_000}}, nil
		},
	}))
	hooks := must(webhook.New(nc, webhook.Config{URLs: []string{"http://127.0.0.1:1/nobody"}, Kinds: []hivebeat.Kind{hivebeat.KindBrake}}))
	run(t, hooks)
	run(t, f.q)
	run(t, f.h)
	f.queen = must(prom.Handler(must(queenmetrics.New(f.q, queenmetrics.Config{})), must(queenmetrics.NewWebhooks(hooks))))
	f.hive = must(prom.Handler(prometheus.Collector(must(hivemetrics.New(f.h)))))
	return f
}

// beat sends one beat of a worker, which promises the next within every.
func (f *fabric) beat(worker string, seq uint64, every time.Duration) {
	f.t.Helper()
	b, err := wire.EncodeBeat(&hivebeat.Beat{
		V: 1, Hive: "gpu-01", Worker: worker, Facts: hivebeat.Facts{Inc: 7, Seq: seq, Every: hivebeat.MillisOf(every), State: hivebeat.Ready},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.nc.Publish("hive.gpu-01.workers", b); err != nil {
		f.t.Fatal(err)
	}
}

// await waits until the report of the queen satisfies ok.
func (f *fabric) await(what string, ok func(queen.Report) bool) {
	f.t.Helper()
	bustest.Eventually(f.t, soon, func() (bool, string) {
		r, err := f.q.Report(f.t.Context(), false)
		return err == nil && ok(r), fmt.Sprintf("not %s: hives %v, workers %v, %+v, %v", what, r.Live, r.Shown, r.Status, err)
	})
}

// scrape stores the current metrics of both, n times every 15 s before until: as if
// nothing had changed in that time.
func (f *fabric) scrape(s *store, until time.Time, n int) {
	f.t.Helper()
	q, h := promtest.Scrape(f.t, f.queen), promtest.Scrape(f.t, f.hive)
	for i := n - 1; i >= 0; i-- {
		at := until.Add(-time.Duration(i) * 15 * time.Second)
		s.scrape(f.t, at, "hivebeat-queen", "queen:7833", q)
		s.scrape(f.t, at, "hivebeat-hive", "gpu-01:7834", h)
	}
}
