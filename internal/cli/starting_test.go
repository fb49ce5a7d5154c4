package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/beatfabric/hivebeat/internal/bustest"
)

// The command waits for a queen that is running but does not answer yet. It tells that case
// apart from no queen, and from a queen with another prefix.
func TestQueenThatStarts(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	ping := micro.Ping{ServiceIdentity: micro.ServiceIdentity{Name: "queen", ID: "q1", Metadata: map[string]string{"prefix": "acme"}}}
	if _, err := nc.Subscribe("$SRV.PING.queen", func(m *nats.Msg) {
		b, _ := json.Marshal(ping)
		_ = m.Respond(b)
	}); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	code, out, errs := run(t, nil, "ls", "--nats", srv.URL(), "--prefix", "acme", "--timeout", "300ms")
	if want := "hivebeat: queen q1 has just started and does not answer yet\nhint: ask again in a moment"; code != ExitFailed || out != "" || !strings.HasPrefix(errs, want) {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
	code, _, errs = run(t, nil, "ls", "--nats", srv.URL())
	if code != ExitFailed || !strings.HasPrefix(errs, "hivebeat: no queen answers on ") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}
