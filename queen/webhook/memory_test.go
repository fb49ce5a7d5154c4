package webhook

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// said publishes events as a queen without JetStream does.
func said(t testing.TB, nc *nats.Conn, kind hivebeat.Kind, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := nc.Publish("queen.events.gpu-01."+string(kind), []byte(`{"id":"`+id+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, nc)
}

func TestMemory(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	r := receive(t)
	release := make(chan struct{})
	r.set(func(_ int, w http.ResponseWriter, req *http.Request) {
		select {
		case <-release:
			w.WriteHeader(200)
		default:
			w.WriteHeader(500)
		}
	})
	w, _ := start(t, nc, Config{URLs: []string{r.URL}, NoJetStream: true, Queue: 5, Kinds: []hivebeat.Kind{hivebeat.KindLost}})
	bustest.Eventually(t, soon, func() (bool, string) { return nc.NumSubscriptions() == 1, "not subscribed" })
	bustest.Flush(t, nc)
	said(t, nc, hivebeat.KindLost, "1", "2", "3", "3", "2", "1") // as two queens publish them
	said(t, nc, hivebeat.KindJoined, "unwanted")
	said(t, nc, hivebeat.KindLost, "4", "5", "6", "7")
	bustest.Eventually(t, soon, func() (bool, string) {
		s := w.Stats()[0]
		return s.Dropped == 2 && s.Waiting == 5 && s.Failed > 20, fmt.Sprintf("%+v", s)
	})
	close(release)
	r.await(t, "1", "2", "3", "4", "5")
	said(t, nc, hivebeat.KindLost, "8")
	r.await(t, "1", "2", "3", "4", "5", "8")
	bustest.Eventually(t, soon, func() (bool, string) {
		s := w.Stats()[0]
		return s.Waiting == 0 && s.Told == 6, fmt.Sprintf("%+v", s)
	})
}

// One of two queens posts an event, whichever it is.
func TestMemoryOfTwo(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc, second := bustest.Conn(t, srv), bustest.Conn(t, srv)
	r := receive(t)
	cfg := Config{URLs: []string{r.URL}, NoJetStream: true}
	start(t, nc, cfg)
	start(t, second, cfg)
	for _, c := range []*nats.Conn{nc, second} {
		bustest.Eventually(t, soon, func() (bool, string) { return c.NumSubscriptions() == 1, "not subscribed" })
		bustest.Flush(t, c)
	}
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprint(i))
	}
	said(t, nc, hivebeat.KindLost, ids...)
	r.await(t, ids...)
}
