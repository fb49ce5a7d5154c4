package bus

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

// DisconnectSubject is where a NATS server tells, in its system account, of each
// client that disconnects.
const DisconnectSubject = "$SYS.ACCOUNT.*.DISCONNECT"

// Disconnect is what such an advisory says: a connection is closed, for whatever
// reason, and a process that ends without a word looks like one that leaves.
type Disconnect struct {
	Server string // its id
	Client uint64 // its id at that server
	Reason string // in the server's words: "Client Closed", "Stale Connection" …
	Host   string // the client's address, as the server sees it
	Name   string // of the connection
	Kind   string // of the connection: "Client", or "Leafnode" and others
	// Lived is how long the connection was there, by the server's clock. 0 is not
	// known.
	Lived time.Duration
}

// PassingWithin is how long a client may have been there that only passed by.
const PassingWithin = 10 * time.Second

// Conn names the connection as ConnID does, and the conn of a beat.
func (d Disconnect) Conn() string { return d.Server + "/" + strconv.FormatUint(d.Client, 10) }

// OfClient reports whether it is a client that disconnected, and not another
// server.
func (d Disconnect) OfClient() bool { return d.Kind == "" || d.Kind == "Client" }

// Evidence reports whether it may tell the end of the client's process. It does
// not where the server shut down, nor where the client said nothing for too long
// or read nothing, for which its server closed the connection: so does a process
// that is stopped, or that loads a model.
func (d Disconnect) Evidence() bool {
	return d.Reason != "Server Shutdown" && d.Reason != "Stale Connection" && !strings.HasPrefix(d.Reason, "Slow Consumer")
}

// Passing reports whether it tells of a client which had been there for less than
// PassingWithin and ended by itself, or by its death: a script, or a look whether
// the port is open. A server that fails, and what lies before one, closes those
// that stay.
func (d Disconnect) Passing() bool {
	return d.Reason == "Client Closed" && d.Lived > 0 && d.Lived < PassingWithin
}

// SplitConn takes apart what ConnID made, or a beat says: the id of a server, which can
// be a token of a subject, and of a client there.
func SplitConn(conn string) (server string, client uint64, ok bool) {
	server, id, _ := strings.Cut(conn, "/")
	client, err := strconv.ParseUint(id, 10, 64)
	return server, client, err == nil && client > 0 && hivebeat.ValidID(server) && server != "PING" // which are all servers
}

// ConnzRequest returns the question to a server, in its system account, for one of its
// clients: an answer is for ParseConnz.
func ConnzRequest(server string, client uint64) (subject string, payload []byte) {
	return "$SYS.REQ.SERVER." + server + ".CONNZ", fmt.Appendf(nil, `{"cid":%d}`, client)
}

// ParseConnz returns the address of the client, as its server sees it. ok is false where
// the answer does not say it: the client is gone, or in the server's own process.
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

// ParseDisconnect reads a message of DisconnectSubject.
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

			Start json.RawMessage `json:"start"` // not needed: what is no time is not known
			Stop  json.RawMessage `json:"stop"`
		} `json:"client"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(payload, &m); err != nil {
		return Disconnect{}, fmt.Errorf("bus: disconnect advisory: %w", err)
	}
	if m.Server.ID == "" || m.Client.ID == 0 {
		return Disconnect{}, fmt.Errorf("bus: disconnect advisory: %w", errNoDisconnect)
	}
	d := Disconnect{Server: m.Server.ID, Client: m.Client.ID, Reason: m.Reason, Host: m.Client.Host, Name: m.Client.Name, Kind: m.Client.Kind}
	var start, stop time.Time
	if json.Unmarshal(m.Client.Start, &start) == nil && json.Unmarshal(m.Client.Stop, &stop) == nil && !start.IsZero() {
		d.Lived = max(0, stop.Sub(start)) // its clock may have been set
	}
	return d, nil
}
