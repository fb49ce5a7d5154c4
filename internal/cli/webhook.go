package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen/webhook"
)

// WebhookFlags configure webhooks, which receive events by HTTP.
type WebhookFlags struct {
	Webhook           []string `sep:"none" placeholder:"URL" help:"Post every event to this URL, as CloudEvents JSON. May be repeated; in the environment, separate URLs by spaces." group:"Webhooks"`
	WebhookSecretFile string   `placeholder:"FILE" help:"File with the secret that signs them, whsec_…, in the format of Standard Webhooks; two lines while it is rotated." group:"Webhooks"`
	WebhookKinds      []string `placeholder:"KIND" help:"Only events of these kinds, such as lost,left,recovered." group:"Webhooks"`
}

// Validate checks what can be checked without a connection.
func (f *WebhookFlags) Validate() error {
	if len(f.Webhook) == 0 && (f.WebhookSecretFile != "" || len(f.WebhookKinds) > 0) {
		return misused(errors.New("--webhook-secret-file and --webhook-kinds need --webhook"), "add --webhook URL")
	}
	if len(f.Webhook) == 0 {
		return nil
	}
	cfg, err := f.config()
	if err == nil {
		_, err = webhook.New(new(nats.Conn), cfg)
	}
	return explainWebhook(err)
}

func explainWebhook(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, webhook.ErrSecret), errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return misused(fmt.Errorf("--webhook-secret-file: %w", err), "make one with: echo whsec_$(openssl rand -base64 32) > FILE")
	case strings.Contains(err.Error(), "Config.Kinds"):
		kinds := make([]string, 0, len(webhook.Kinds()))
		for _, k := range webhook.Kinds() {
			kinds = append(kinds, string(k))
		}
		return misused(fmt.Errorf("--webhook-kinds: %w", withoutField(err)), "the kinds are %s", strings.Join(kinds, ", "))
	}
	return misused(fmt.Errorf("--webhook: %w", withoutField(err)), "use http://HOST/PATH or https://HOST/PATH, each once")
}

// withoutField removes the name of the field of the library's Config from an error, since
// the flag takes its place.
func withoutField(err error) error {
	if _, what, ok := strings.Cut(err.Error(), "webhook: Config."); ok {
		_, what, _ = strings.Cut(what, ": ")
		return &reworded{what, err}
	}
	return err
}

func (f *WebhookFlags) config() (cfg webhook.Config, err error) {
	for _, s := range f.Webhook {
		cfg.URLs = append(cfg.URLs, strings.Fields(s)...)
	}
	for _, k := range f.WebhookKinds {
		cfg.Kinds = append(cfg.Kinds, hivebeat.Kind(strings.TrimSpace(k)))
	}
	if f.WebhookSecretFile != "" {
		b, err := os.ReadFile(f.WebhookSecretFile)
		if err != nil {
			return cfg, err
		}
		if cfg.Secrets, err = webhook.ParseSecrets(string(b)); err != nil {
			return cfg, fmt.Errorf("%s: %w", f.WebhookSecretFile, err)
		}
	}
	return cfg, nil
}

// webhooks returns the webhooks that run beside a queen, or nil.
func (f *WebhookFlags) webhooks(nc *nats.Conn, prefix string, noJetStream bool, log *slog.Logger) (*webhook.Webhooks, error) {
	if len(f.Webhook) == 0 {
		return nil, nil
	}
	cfg, err := f.config()
	if err != nil {
		return nil, explainWebhook(err)
	}
	cfg.Prefix, cfg.NoJetStream, cfg.Logger = prefix, noJetStream, log
	w, err := webhook.New(nc, cfg)
	if err != nil {
		return nil, explainWebhook(err)
	}
	return w, nil
}

// besideQueen is beside for a *webhook.Webhooks that may be nil.
func besideQueen(q role, w *webhook.Webhooks, log *slog.Logger) role {
	if w == nil {
		return q
	}
	return beside(q, log, w)
}
