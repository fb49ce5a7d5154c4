package bustest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// Churn connects clients to a server and closes them again, one per interval, until the
// test ends. Clients that the server refuses count as well. It returns once the first
// five are gone.
func Churn(t testing.TB, url string, every time.Duration, opts ...nats.Option) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	gone, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		next := time.NewTicker(every)
		defer next.Stop()
		for n := 0; ; n++ {
			if nc, err := nats.Connect(url, opts...); err == nil {
				nc.Close()
			}
			if n == 4 {
				close(gone)
			}
			select {
			case <-next.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Fatal("no client came and went")
	}
}
