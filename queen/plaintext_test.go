package queen

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/plaintext/plaintexttest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// What the nats CLI prints of a queen's answers and events makes a terminal do nothing,
// whatever workers and hives say.
func TestTextIsOnlyText(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	heard, err := nc.SubscribeSync("queen.events.>")
	if err != nil {
		t.Fatal(err)
	}
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "plain"})
	q.warm()
	w := workerOf("w1")
	evil, _, _ := strings.Cut(plaintexttest.Evil, "\x00")
	w.Model, w.Reason, w.Endpoint, w.State = evil, evil, evil, hivebeat.State(plaintexttest.Mark+"\u009b")
	w.Labels = map[string]string{"k": evil}
	transition(&w, hivebeat.KindJoined, string(hivebeat.Alive))
	h := startHive(t, nc, "h", time.Second, w)
	h.send(func(s *hivebeat.Snapshot) {
		s.Labels = map[string]string{"zone": evil}
		s.Host.Name = evil
		s.GPUs = []hivebeat.GPU{{UUID: "GPU-1", Name: evil, Err: evil}}
	})
	q.eventually("the worker is known", func() bool { return len(q.ask(api.VerbWorkers, api.Request{Hive: "h"}).Workers) == 1 })
	h.bye(evil)
	q.eventually("the hive left", func() bool { return q.live("h") == hivebeat.Left })

	for _, subject := range questions("plain") { // an error quotes the request
		m, err := nc.Request(subject, []byte("{\"text\":\"EVIL\u009b\",\"sort\":\"\u009b\u202e\"}"), patience)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		plaintexttest.Printable(t, subject, string(m.Data))
	}
	bodies := map[string]string{api.VerbHive: `{"hive":"h"}`, api.VerbWorker: `{"hive":"h","worker":"w1"}`}
	for _, verb := range []string{api.VerbHives, api.VerbHive, api.VerbWorkers, api.VerbWorker} {
		m, err := nc.Request("queen.api."+verb, []byte(bodies[verb]), patience)
		if err != nil {
			t.Fatal(err)
		}
		plaintexttest.Check(t, verb, string(m.Data))
	}

	marked := false
	for !marked {
		m, err := heard.NextMsg(patience)
		if errors.Is(err, nats.ErrTimeout) {
			t.Fatal("no event holds the text")
		} else if err != nil {
			t.Fatal(err)
		}
		plaintexttest.Printable(t, m.Subject, string(m.Data))
		marked = strings.Contains(string(m.Data), plaintexttest.Mark)
	}
}
