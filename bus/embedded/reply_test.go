package embedded_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// These tests pin what internal/inbox assumes about nats-server: which reply subjects a
// responder can see, and which clients can send them.

// asked subscribes to "ask", and returns a function that returns the reply subject
// of the next request.
func asked(t *testing.T, nc *nats.Conn) (next func() string) {
	t.Helper()
	sub, err := nc.SubscribeSync("ask")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	return func() string {
		t.Helper()
		m, err := sub.NextMsg(soon)
		if err != nil {
			t.Fatalf("no request: %v", err)
		}
		return m.Reply
	}
}

func TestClientsCanNotSendReservedReplies(t *testing.T) {
	srv := start(t, embedded.Config{})
	next := asked(t, connect(t, srv.URL()))
	refused := make(chan error, 10)
	nc := connect(t, srv.URL(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))

	for _, reply := range []string{"_R_.x", "_R_.ABCDEF.ghijkl", "_GR_.clustr.server.queen.log.x", "_GR_.x", "$GR.x"} {
		if err := nc.PublishRequest("ask", reply, nil); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(reply)) {
				t.Errorf("reply %s: %v", reply, err)
			}
		case <-time.After(soon):
			t.Fatalf("reply %s was not refused", reply)
		}
	}
	// No client may publish to a gateway's reply subject either, so an answer to it is
	// futile.
	if err := nc.Publish("_GR_.clustr.server.x", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-refused:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Error(err)
		}
	case <-time.After(soon):
		t.Fatal("a client may publish to _GR_.")
	}
	if err := nc.PublishRequest("ask", "_INBOX.last", nil); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "_INBOX.last" {
		t.Errorf("a request with the reply subject %s came through", got)
	}
}

// A leaf connection counts as a server, so a program that speaks its protocol may send
// any reply subject. The server strips the gateway prefix before a client sees the
// subject, so the rest is checked like any other. If the rest is still a gateway's, the
// server stops the responder from answering.
func TestLeavesCanSendReservedReplies(t *testing.T) {
	srv := start(t, embedded.Config{Options: func(o *embedded.Options) {
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", -1
	}})
	nc := connect(t, srv.URL())
	next := asked(t, nc)

	leaf := dialLeaf(t, srv.LeafURL())
	for _, c := range []struct{ sent, shown string }{
		{"_R_.x", "_R_.x"},
		{"queen.log.x", "queen.log.x"},
		{"_GR_.clustr.server.queen.log.x", "queen.log.x"},
		{"_GR_.clustr.server._R_.x", "_R_.x"},
		{"_GR_.clustr.server._GR_.clustr.server.queen.log.x", "_GR_.clustr.server.queen.log.x"},
		{"_INBOX.last", "_INBOX.last"},
	} {
		if _, err := fmt.Fprintf(leaf, "LMSG ask %s 2\r\n{}\r\n", c.sent); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != c.shown {
			t.Errorf("reply %s is shown as %s, not as %s", c.sent, got, c.shown)
		}
	}
}

// dialLeaf connects as a hand-written leaf node.
func dialLeaf(t *testing.T, leafURL string) net.Conn {
	t.Helper()
	u, err := url.Parse(leafURL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil { // INFO
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(c, "CONNECT {\"server_id\":\"MADE-UP\",\"name\":\"made-up\",\"version\":\"2.12.0\",\"headers\":true}\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	for { // until it is let in, and has received the subscriptions
		if err := c.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("as a leaf: %v", err)
		}
		if strings.HasPrefix(line, "-ERR") {
			t.Fatalf("as a leaf: %s", line)
		}
		if strings.HasPrefix(line, "PONG") {
			return c
		}
	}
}

// Over a gateway a responder sees the reply subject that was sent, and its answer finds
// the way back: it need not accept _GR_.
func TestGatewaysShowRepliesAsTheyWereSent(t *testing.T) {
	var eastOpts *embedded.Options
	east := start(t, embedded.Config{Options: func(o *embedded.Options) {
		o.Gateway = server.GatewayOpts{Name: "east", Host: "127.0.0.1", Port: -1}
		eastOpts = o // the server writes the port to it
	}})
	west := start(t, embedded.Config{Options: func(o *embedded.Options) {
		at := &url.URL{Scheme: "nats", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(eastOpts.Gateway.Port))}
		o.Gateway = server.GatewayOpts{Name: "west", Host: "127.0.0.1", Port: -1, Gateways: []*server.RemoteGatewayOpts{{Name: "east", URLs: []*url.URL{at}}}}
	}})

	responder := connect(t, east.URL())
	seen := make(chan string, 100)
	if _, err := responder.Subscribe("ask", func(m *nats.Msg) { seen <- m.Reply; _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, responder)
	asker := connect(t, west.URL())
	inbox := asker.NewInbox()
	answers, err := asker.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	bustest.Eventually(t, soon, func() (bool, string) { // until the two servers are connected
		if err := asker.PublishRequest("ask", inbox, nil); err != nil {
			t.Fatal(err)
		}
		_, err := answers.NextMsg(100 * time.Millisecond)
		return err == nil, fmt.Sprint("an answer over the gateway: ", err)
	})
	if got := <-seen; got != inbox {
		t.Errorf("the responder was shown %s, sent was %s", got, inbox)
	}
}
