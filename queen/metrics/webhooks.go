package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/beatfabric/hivebeat/internal/prom"
	"github.com/beatfabric/hivebeat/queen/webhook"
)

// WebhookSource provides the counts behind the metrics of webhooks. *webhook.Webhooks
// is a WebhookSource.
type WebhookSource interface{ Stats() []webhook.Stats }

// WebhookCollector is a prometheus.Collector of a queen's webhooks: a few series for
// each URL, labelled with its host and its consumer. It is safe for concurrent use.
type WebhookCollector struct {
	w                                                WebhookSource
	list                                             *prom.Families
	told, failed, givenUp, dropped, waiting, failing prom.Family
}

// NewWebhooks returns the collector of w.
func NewWebhooks(w WebhookSource) (*WebhookCollector, error) {
	if w == nil {
		return nil, errors.New("queen/metrics: w is nil")
	}
	f := prom.New("hivebeat_queen_webhook_")
	labels := []string{"target", "consumer"}
	return &WebhookCollector{
		w: w, list: f,
		told:    f.Counter("events_told_total", "Events that the receiver answered with 2xx, to this queen.", labels...),
		failed:  f.Counter("requests_failed_total", "Requests that were not answered with 2xx.", labels...),
		givenUp: f.Counter("events_given_up_total", "Events that are not tried again.", labels...),
		dropped: f.Counter("events_dropped_total", "Events that were too many to wait in memory, without JetStream.", labels...),
		waiting: f.Gauge("events_waiting", "Events that wait, as far as is known.", labels...),
		failing: f.Gauge("failing", "1 if the last request failed.", labels...),
	}, nil
}

// Describe sends the descriptions of all metrics.
func (c *WebhookCollector) Describe(ch chan<- *prometheus.Desc) { c.list.Describe(ch) }

// Collect sends the counts.
func (c *WebhookCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.w.Stats() {
		prom.Send(ch, c.told, s.Told, s.Target, s.Name)
		prom.Send(ch, c.failed, s.Failed, s.Target, s.Name)
		prom.Send(ch, c.givenUp, s.GivenUp, s.Target, s.Name)
		prom.Send(ch, c.dropped, s.Dropped, s.Target, s.Name)
		prom.Send(ch, c.waiting, s.Waiting, s.Target, s.Name)
		prom.Flag(ch, c.failing, s.Failing, s.Target, s.Name)
	}
}
