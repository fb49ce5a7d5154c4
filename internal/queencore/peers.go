package queencore

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
)

// Queens hear each other. NATS keeps giving questions to a stopped queen until its pings
// fail, so the other queens notice its silence themselves, and one of them answers in its
// place:
//
//	                         a peer is silent for peerMissed, the token
//	 in the queue group      returns, and no peer of a lower id backs up
//	 (one of all answers) ─────────────────────────────────────▶ backs up
//	          ▲                                            (answers everything)
//	          └── no peer is missing, or one of a lower id backs up ──┘
//
// Queens also report to each other which hives may not be alive, and which store they use.

const (
	peerEvery  = 500 * time.Millisecond
	peerMissed = 1500 * time.Millisecond
	// peerForgotten is long after NATS has removed an unresponsive queen from the queue
	// group. With its default pings NATS needs 4 to 6 minutes.
	peerForgotten = 10 * time.Minute
	maxPeers      = 64

	// doubtEvery is how often a queen repeats its doubtful hives, and doubtLasts how long
	// each message counts.
	doubtEvery    = time.Second
	doubtLasts    = 3 * time.Second
	doubtsInOne   = 1000 // hives per message
	maxDoubtPages = 10
	maxPeerBytes  = 256 << 10
)

// PeerMessage is what a queen sends to the others (docs/PROTOCOL.md, section 6).
type PeerMessage struct {
	V     int    `json:"v"`
	Queen string `json:"queen"`
	// Bye means that the queen ends, and answers no more.
	Bye bool `json:"bye,omitempty"`
	// Backup means that it answers in place of a missing queen.
	Backup bool `json:"backup,omitempty"`
	// Stores is the identity of its buckets and stream.
	Stores string `json:"stores,omitempty"`
	// Unverified are the hives that it holds as unverified, and the hives whose connection
	// closed and that it has not heard since. Each comes with the newest evidence it has.
	Unverified []PeerDoubt `json:"unverified,omitempty"`
}

// PeerDoubt is a hive that may not be alive.
type PeerDoubt struct {
	Hive string `json:"hive"`
	Inc  uint64 `json:"inc"`
	Seq  uint64 `json:"seq"`
}

// peers is the knowledge of this queen about the others.
type peers struct {
	known   map[string]*peer
	backup  bool
	stores  string
	bye     bool
	sayAt   time.Time
	doubtAt time.Time
	doubted int // doubtful hives at the last look
}

type peer struct {
	heard  time.Time
	backup bool
	missed bool // the log says so
	stores string
}

func (p *peer) silent(now time.Time) bool { return now.Sub(p.heard) >= peerMissed }

// Stores sets the identity of the buckets and the stream that this queen uses: an opaque
// string, equal if they are the same.
func (c *Core) Stores(identity string) { c.peers.stores = identity }

// OtherStores returns the sorted ids of the queens that are heard and use other buckets and
// another stream than this one.
func (c *Core) OtherStores(now time.Time) (ids []string) {
	p := &c.peers
	for id, x := range p.known {
		if !x.silent(now) && x.stores != "" && p.stores != "" && x.stores != p.stores {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Peer takes a message that a queen sent to the others.
func (c *Core) Peer(now time.Time, payload []byte) {
	c.look(now)
	c.hearing.Prove(now)
	var m PeerMessage
	err := fmt.Errorf("%d bytes are too many", len(payload))
	if len(payload) <= maxPeerBytes {
		if err = json.Unmarshal(payload, &m); err == nil {
			err = hivebeat.CheckID("queen", m.Queen)
		}
	}
	if err != nil || m.V != 1 {
		if n := c.hearing.Limiter.Allow("refused peer", now); n > 0 {
			c.ready.Logs.Add(slog.LevelWarn, "what another queen says can not be read", slog.Int("v", m.V), slog.Any("err", err), slog.Uint64("count", n))
		}
		return
	}
	p := &c.peers
	switch x := p.known[m.Queen]; {
	case m.Queen == c.cfg.ID:
	case m.Bye:
		delete(p.known, m.Queen)
	case x == nil && len(p.known) >= maxPeers:
	default:
		if x == nil {
			x = &peer{}
			if p.known == nil {
				p.known = make(map[string]*peer)
			}
			p.known[m.Queen] = x
		}
		if x.missed {
			c.ready.Logs.Add(slog.LevelInfo, "another queen is heard again", slog.String("peer", m.Queen), slog.Duration("after", now.Sub(x.heard)))
		}
		x.heard, x.backup, x.missed, x.stores = now, m.Backup, false, m.Stores
		for i := range m.Unverified {
			d := &m.Unverified[i]
			c.view.Index().DoubtElsewhere(d.Hive, m.Queen, d.Inc, d.Seq, now, now.Add(doubtLasts))
		}
	}
}

// Backup reports whether this queen answers in place of a missing one, and whether a third
// queen may answer the same questions.
func (c *Core) Backup(now time.Time) (on, others bool) {
	for _, x := range c.peers.known {
		others = others || !x.silent(now)
	}
	return c.peers.backup, others
}

// next returns when the next message is due; zero if that is not in the future.
func (p *peers) next(now time.Time) time.Time {
	if !p.sayAt.After(now) {
		return time.Time{}
	}
	return p.sayAt
}

// credit counts all peers as heard now, since none could be heard before.
func (p *peers) credit(now time.Time) {
	for _, x := range p.known {
		x.heard = now
	}
}

// peer sends the other queens the state that they need, and decides whether this queen
// answers in place of another. A queen that is not warm receives no questions.
func (c *Core) peer(now time.Time) {
	p := &c.peers
	if c.startup.leaving || !c.startup.warm {
		if c.startup.leaving && c.startup.warm && !p.bye {
			p.bye = true
			c.sayToPeers(PeerMessage{Bye: true})
		}
		return
	}
	before, doubted := p.backup, p.doubted
	c.backUp(now)
	p.doubted = c.view.Doubted()
	news := p.backup != before
	if p.doubted > doubted { // no queen should pick those
		news, p.doubtAt = true, now
	}
	if now.Before(p.sayAt) && !news || !c.hearing.Connected() {
		return
	}
	p.sayAt = now.Add(peerEvery)
	m := PeerMessage{Backup: p.backup, Stores: p.stores}
	if !now.Before(p.doubtAt) {
		p.doubtAt = now.Add(doubtEvery)
		doubts := c.doubts(now)
		for range maxDoubtPages - 1 {
			if len(doubts) <= doubtsInOne {
				break
			}
			m.Unverified, doubts = doubts[:doubtsInOne], doubts[doubtsInOne:]
			c.sayToPeers(m)
		}
		m.Unverified = doubts[:min(len(doubts), doubtsInOne)]
	}
	c.sayToPeers(m)
}

func (c *Core) backUp(now time.Time) {
	p := &c.peers
	missing, lower := false, false
	for id, x := range p.known {
		switch silent := now.Sub(x.heard); {
		case silent >= peerForgotten:
			delete(p.known, id)
		case silent >= peerMissed:
			missing = true
		default:
			lower = lower || x.backup && id < c.cfg.ID
		}
	}
	switch {
	case !missing || lower:
		p.backup = false
	case !p.backup && c.hearing.Trusts() && c.hearing.Hears(now): // else after the token
		p.backup = true
		for _, id := range c.missing(now) {
			p.known[id].missed = true
			c.ready.Logs.Add(slog.LevelWarn, "another queen is not heard: this one answers in its place", slog.String("peer", id))
		}
	}
}

func (c *Core) missing(now time.Time) (ids []string) {
	for id, x := range c.peers.known {
		if x.silent(now) && !x.missed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// doubts returns the hives that may not be alive, and that other queens should not pick. A
// queen that may hear badly itself returns none.
func (c *Core) doubts(now time.Time) (list []PeerDoubt) {
	if !c.hearing.Trusts() || c.view.Apart() != "" || !c.cfg.NoJetStream && !c.StoreThere() {
		return nil
	}
	c.view.EachDoubted(now, func(h *fleet.Hive) {
		list = append(list, PeerDoubt{Hive: h.ID(), Inc: h.Inc(), Seq: h.Seq()})
	})
	slices.SortFunc(list, func(a, b PeerDoubt) int { return strings.Compare(a.Hive, b.Hive) })
	return list
}

func (c *Core) sayToPeers(m PeerMessage) {
	m.V, m.Queen = 1, c.cfg.ID
	b, err := json.Marshal(m)
	if err != nil {
		return // these types always encode
	}
	c.ready.Peers = append(c.ready.Peers, b)
}
