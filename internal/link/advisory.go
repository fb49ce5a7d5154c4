package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

// DisconnectSubject is the subject in the system account on which a NATS server reports
// each client that disconnects.
const DisconnectSubject = "$SYS.ACCOUNT.*.DISCONNECT"

// Disconnect is the content of a disconnect advisory: a connection closed, for any
// reason. A process that dies without a goodbye looks the same as one that leaves.
type Disconnect struct {
	Server string // the id of the server
	Client uint64 // the id of the client at that server
	Reason string // in the server's words: "Client Closed", "Stale Connection" …
	Host   string // the client's address, as the server sees it
	Name   string // name of the connection
	Kind   string // kind of the connection: "Client", or "Leafnode" and others
	// Lived is how long the connection existed, by the server's clock. 0 means unknown.
	Lived time.Duration
}

// passingWithin is the lifetime below which a client may count as passing.
const passingWithin = 10 * time.Second

// Conn names the connection in the form of bus.ConnID and of the conn of a beat.
func (d Disconnect) Conn() string { return d.Server + "/" + strconv.FormatUint(d.Client, 10) }

// OfClient reports whether a client disconnected, rather than another server.
func (d Disconnect) OfClient() bool { return d.Kind == "" || d.Kind == "Client" }

// Evidence reports whether the disconnect may be evidence that the client's process
// ended. It is not if the server shut down. Nor is it if the server closed the
// connection because the client was silent for too long or did not read: a process that
// is stopped, or that loads a model, behaves in the same way.
func (d Disconnect) Evidence() bool {
	return d.Reason != "Server Shutdown" && d.Reason != "Stale Connection" && !strings.HasPrefix(d.Reason, "Slow Consumer")
}

// Passing reports whether the client was connected for less than passingWithin and
// closed the connection itself, or died: a script, or a probe of the port. A failing
// server, or a failing network in front of it, also closes connections that stay.
func (d Disconnect) Passing() bool {
	return d.Reason == "Client Closed" && d.Lived > 0 && d.Lived < passingWithin
}

// SplitConn splits a name made by bus.ConnID, or the conn of a beat, into the id of a
// server, which is a valid subject token, and the id of a client at that server.
func SplitConn(conn string) (server string, client uint64, ok bool) {
	server, id, _ := strings.Cut(conn, "/")
	client, err := strconv.ParseUint(id, 10, 64)
	return server, client, err == nil && client > 0 && hivebeat.ValidID(server) && server != "PING" // PING addresses all servers
}

// ConnzRequest returns a request to a server, in its system account, for the details of
// one of its clients. ParseConnz parses the answer.
func ConnzRequest(server string, client uint64) (subject string, payload []byte) {
	return "$SYS.REQ.SERVER." + server + ".CONNZ", fmt.Appendf(nil, `{"cid":%d}`, client)
}

// ParseConnz returns the address of the client, as its server sees it. ok is false if
// the answer does not contain it: the client is gone, or runs in the server's own
// process.
func ParseConnz(payload []byte, client uint64) (addr string, ok bool) {
	var m struct {
		Data struct {
			Connections []struct {
				ID   uint64 `json:"cid"`
				IP   string `json:"ip"`
				Port uint16 `json:"port"`
			} `json:"connections"`
		} `json:"data"`
	}
	if json.Unmarshal(payload, &m) != nil {
		return "", false
	}
	for _, c := range m.Data.Connections {
		if ip, err := netip.ParseAddr(c.IP); c.ID == client && err == nil {
			return netip.AddrPortFrom(ip, c.Port).String(), true
		}
	}
	return "", false
}

var errNoDisconnect = errors.New("names no server or no client")

// ParseDisconnect parses a message received on DisconnectSubject.
func ParseDisconnect(payload []byte) (Disconnect, error) {
	var m struct {
		Server struct {
			ID string `json:"id"`
		} `json:"server"`
		Client struct {
			ID   uint64 `json:"id"`
			Host string `json:"host"`
			Name string `json:"name"`
			Kind string `json:"kind"`

			Start json.RawMessage `json:"start"` // optional: an invalid time counts as unknown
			Stop  json.RawMessage `json:"stop"`
		} `json:"client"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return Disconnect{}, fmt.Errorf("disconnect advisory: %w", err)
	}
	if m.Server.ID == "" || m.Client.ID == 0 {
		return Disconnect{}, fmt.Errorf("disconnect advisory: %w", errNoDisconnect)
	}
	d := Disconnect{Server: m.Server.ID, Client: m.Client.ID, Reason: m.Reason, Host: m.Client.Host, Name: m.Client.Name, Kind: m.Client.Kind}
	var start, stop time.Time
	if json.Unmarshal(m.Client.Start, &start) == nil && json.Unmarshal(m.Client.Stop, &stop) == nil && !start.IsZero() {
		d.Lived = max(0, stop.Sub(start)) // the server's clock may have been set
	}
	return d, nil
}
