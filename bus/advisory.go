package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
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
