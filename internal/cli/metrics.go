package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/beatfabric/hivebeat/hive"
	hivemetrics "github.com/beatfabric/hivebeat/hive/metrics"
	"github.com/beatfabric/hivebeat/internal/prom"
	"github.com/beatfabric/hivebeat/queen"
	queenmetrics "github.com/beatfabric/hivebeat/queen/metrics"
	"github.com/beatfabric/hivebeat/queen/webhook"
	"github.com/beatfabric/hivebeat/worker"
	workermetrics "github.com/beatfabric/hivebeat/worker/metrics"
)

// metricsOff is the address that turns metrics off.
const metricsOff = "off"

// hiveMetricsAddr is where a hive serves its metrics by default.
const hiveMetricsAddr = "127.0.0.1:7834"

// HiveMetricsFlags say where a hive serves its metrics.
type HiveMetricsFlags struct {
	Metrics     string `placeholder:"ADDR" help:"Address of the hive's Prometheus metrics: HOST:PORT, or off (default 127.0.0.1:7834)." group:"Metrics"`
	MetricsOpen bool   `help:"Serve metrics to other machines too, without access control." group:"Metrics"`
}

// Validate checks the address.
func (f *HiveMetricsFlags) Validate() error { return checkMetrics(f.Metrics, f.MetricsOpen) }

// serve takes the address. If it is the default one and is in use, the hive runs without
// metrics: two hives on one machine are not an error.
func (f *HiveMetricsFlags) serve(ctx context.Context, h *hive.Hive, log *slog.Logger) (companion, error) {
	addr := cmp.Or(f.Metrics, hiveMetricsAddr)
	c, err := serveMetrics(ctx, addr, f.MetricsOpen, log, func() (http.Handler, error) { return hivemetrics.Handler(h) })
	if f.Metrics == "" && errors.Is(err, syscall.EADDRINUSE) {
		log.Warn("no metrics: the default address is in use; choose another with --metrics ADDR, or --metrics off", slog.String("addr", addr))
		return nil, nil
	}
	return c, err
}

// WorkerMetricsFlags say where a worker serves its metrics.
type WorkerMetricsFlags struct {
	Metrics     string `placeholder:"ADDR" help:"Address of the Prometheus metrics: HOST:PORT (default off)." group:"Metrics"`
	MetricsOpen bool   `help:"Serve metrics to other machines too, without access control." group:"Metrics"`
}

// Validate checks the address.
func (f *WorkerMetricsFlags) Validate() error { return checkMetrics(f.Metrics, f.MetricsOpen) }

func (f *WorkerMetricsFlags) serve(ctx context.Context, w *worker.Worker, log *slog.Logger) (companion, error) {
	if f.Metrics == "" {
		return nil, nil
	}
	return serveMetrics(ctx, f.Metrics, f.MetricsOpen, log, func() (http.Handler, error) { return workermetrics.Handler(w) })
}

// QueenMetricsFlags say what a queen exposes at /metrics of its HTTP server.
type QueenMetricsFlags struct {
	MetricsPerHive bool `help:"Add metrics of each hive to /metrics, about 13 series for each." group:"Metrics"`
}

// handler returns the handler for /metrics of a queen and its webhooks, if any. It reports
// no error: q and hooks exist.
func (f *QueenMetricsFlags) handler(q *queen.Queen, hooks *webhook.Webhooks) http.Handler {
	c, err := queenmetrics.New(q, queenmetrics.Config{PerHive: f.MetricsPerHive})
	list := []prometheus.Collector{c}
	if err == nil && hooks != nil {
		var w *queenmetrics.WebhookCollector
		w, err = queenmetrics.NewWebhooks(hooks)
		list = append(list, w)
	}
	var h http.Handler
	if err == nil {
		h, err = prom.Handler(list...)
	}
	if err != nil { // cannot happen; the handler reports it
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		})
	}
	return h
}

func checkMetrics(addr string, open bool) error {
	if addr == "" || addr == metricsOff {
		return nil
	}
	_, err := prom.NewServer(http.NotFoundHandler(), prom.ServerConfig{Addr: addr, Open: open})
	switch {
	case errors.Is(err, prom.ErrExposed):
		return misused(fmt.Errorf("--%w", err), "use --metrics-open to allow everyone on that network to read them")
	case err != nil:
		return misused(fmt.Errorf("--%w", err), "use HOST:PORT such as %s, or off", hiveMetricsAddr)
	}
	return nil
}

// serveMetrics takes the address and returns the server, or nil if metrics are off.
func serveMetrics(ctx context.Context, addr string, open bool, log *slog.Logger, handler func() (http.Handler, error)) (companion, error) {
	if addr == metricsOff {
		return nil, nil
	}
	h, err := handler()
	if err != nil {
		return nil, err
	}
	srv, err := prom.NewServer(h, prom.ServerConfig{Addr: addr, Open: open, Logger: log})
	if err != nil {
		return nil, err
	}
	at, err := srv.Listen(ctx)
	if err != nil {
		return nil, failed(fmt.Errorf("--%w", err), "use another address with --metrics HOST:PORT, or --metrics off")
	}
	log.Info("metrics", slog.String("url", "http://"+at.String()+"/metrics"))
	return srv, nil
}
