package bus_test

import (
	"testing"

	"github.com/beatfabric/hivebeat/bus"
)

func TestParseDisconnect(t *testing.T) {
	d, err := bus.ParseDisconnect([]byte(`{"type":"io.nats.server.advisory.v1.client_disconnect","server":{"id":"NABC","name":"n1"},` +
		`"client":{"id":42,"acc":"$G","name":"hivebeat worker gpu-01/llama","kind":"Client"},"sent":{"msgs":3},"reason":"Client Closed"}`))
	if err != nil {
		t.Fatal(err)
	}
	if d.Conn() != "NABC/42" || !d.OfClient() || !d.Evidence() || d.Name != "hivebeat worker gpu-01/llama" {
		t.Errorf("got %+v", d)
	}
	for reason, want := range map[string]bool{
		"Client Closed": true, "Read Error": true, "Write Error": true, "Kicked": true, "": true,
		"Server Shutdown": false, "Stale Connection": false, "Slow Consumer (Pending Bytes)": false, "Slow Consumer (Write Deadline)": false,
	} {
		if got := (bus.Disconnect{Reason: reason}).Evidence(); got != want {
			t.Errorf("%q: evidence %t, want %t", reason, got, want)
		}
	}
	if (bus.Disconnect{Kind: "Leafnode"}).OfClient() {
		t.Error("a leaf node is no client")
	}
	for _, bad := range []string{
		"", "null", "[]", "{", `{"server":{"id":"N"}}`, `{"client":{"id":1}}`, `{"server":{"id":7},"client":{"id":1}}`, `{"server":{"id":"N"},"client":{"id":-1}}`,
	} {
		if d, err := bus.ParseDisconnect([]byte(bad)); err == nil {
			t.Errorf("%s is taken for %+v", bad, d)
		}
	}
}
