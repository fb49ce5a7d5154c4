package link

import (
	"fmt"
	"testing"
	"time"
)

func TestParseDisconnect(t *testing.T) {
	d, err := ParseDisconnect([]byte(`{"type":"io.nats.server.advisory.v1.client_disconnect","server":{"id":"NABC","name":"n1"},` +
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
		if got := (Disconnect{Reason: reason}).Evidence(); got != want {
			t.Errorf("%q: evidence %t, want %t", reason, got, want)
		}
	}
	if (Disconnect{Kind: "Leafnode"}).OfClient() {
		t.Error("a leaf node is no client")
	}
	for _, c := range []struct {
		start, stop string
		reason      string
		lived       time.Duration
		passing     bool
	}{
		{`"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:00.25Z"`, "Client Closed", 250 * time.Millisecond, true},
		{`"2026-01-01T00:00:00Z"`, `"2026-01-01T02:00:09.999+02:00"`, "Client Closed", 9999 * time.Millisecond, true},
		{`"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:10Z"`, "Client Closed", 10 * time.Second, false},
		{`"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:01Z"`, "Read Error", time.Second, false},
		{`"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:01Z"`, "Authentication Failure", time.Second, false},
		{`"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:01Z"`, "Server Shutdown", time.Second, false},
		{`"2026-01-01T00:00:01Z"`, `"2026-01-01T00:00:00Z"`, "Client Closed", 0, false}, // the server's clock was set
		{`null`, `"2026-01-01T00:00:00Z"`, "Client Closed", 0, false},
		{`"2026-01-01T00:00:01Z"`, `null`, "Client Closed", 0, false},
		{`"yesterday"`, `7`, "Client Closed", 0, false},
	} {
		d, err := ParseDisconnect(fmt.Appendf(nil, `{"server":{"id":"N"},"client":{"id":1,"start":%s,"stop":%s},"reason":%q}`, c.start, c.stop, c.reason))
		if err != nil || d.Lived != c.lived || d.Passing() != c.passing {
			t.Errorf("%s to %s, %s: %+v, passing %t, %v", c.start, c.stop, c.reason, d, d.Passing(), err)
		}
	}
	if d, err := ParseDisconnect([]byte(`{"server":{"id":"N"},"client":{"id":1},"reason":"Client Closed"}`)); err != nil || d.Lived != 0 || d.Passing() {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{
		"", "null", "[]", "{", `{"server":{"id":"N"}}`, `{"client":{"id":1}}`, `{"server":{"id":7},"client":{"id":1}}`, `{"server":{"id":"N"},"client":{"id":-1}}`,
	} {
		if d, err := ParseDisconnect([]byte(bad)); err == nil {
			t.Errorf("%s is taken for %+v", bad, d)
		}
	}
}

func TestConnectionsAreLocated(t *testing.T) {
	for conn, want := range map[string]bool{
		"NABC/42": true, "NABC": false, "NABC/": false, "/42": false, "NABC/0": false, "NABC/-1": false, "N.ABC/1": false, "*/1": false, "PING/1": false, ">/1": false, "": false,
	} {
		if server, client, ok := SplitConn(conn); ok != want || ok && (server != "NABC" || client != 42) {
			t.Errorf("%q is client %d of %q: %t", conn, client, server, ok)
		}
	}
	if subject, payload := ConnzRequest("NABC", 42); subject != "$SYS.REQ.SERVER.NABC.CONNZ" || string(payload) != `{"cid":42}` {
		t.Errorf("asks %s %s", subject, payload)
	}
	for answer, want := range map[string]string{
		`{"server":{},"data":{"connections":[{"cid":42,"ip":"192.0.2.1","port":4222}]}}`: "192.0.2.1:4222",
		`{"data":{"connections":[{"cid":42,"ip":"2001:db8::1","port":4222}]}}`:           "[2001:db8::1]:4222",
		`{"data":{"connections":[{"cid":41,"ip":"192.0.2.1","port":4222}]}}`:             "",
		`{"data":{"connections":[{"cid":42,"ip":"","port":0}]}}`:                         "",
		`{"data":{"connections":[{"cid":42,"ip":"a name","port":1}]}}`:                   "",
		`{"data":{"connections":[]}}`:                                                    "",
		`{"error":{"code":400}}`:                                                         "",
		`garbage`:                                                                        "",
	} {
		if addr, ok := ParseConnz([]byte(answer), 42); addr != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", answer, addr, ok)
		}
	}
}
