package queencore

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

// hear gives the core a message of another queen.
func (r *rig) hear(m PeerMessage) {
	r.t.Helper()
	m.V = 1
	b, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	r.c.Peer(r.now, b)
	r.turn()
}

// said returns the last message of this queen to the others, and forgets all its messages.
func (r *rig) said() (m PeerMessage) {
	r.t.Helper()
	if len(r.peers) == 0 {
		return m
	}
	if err := json.Unmarshal(r.peers[len(r.peers)-1], &m); err != nil {
		r.t.Fatal(err)
	}
	r.peers = nil
	return m
}

// with lets time pass while other queens are heard.
func (r *rig) with(d time.Duration, others ...PeerMessage) {
	r.t.Helper()
	for end := r.now.Add(d); r.now.Before(end); {
		for _, m := range others {
			r.hear(m)
		}
		r.pass(250 * time.Millisecond)
	}
}

func (r *rig) backup(want bool) {
	r.t.Helper()
	if on, _ := r.c.Backup(r.now); on != want {
		r.t.Errorf("after %v: it answers in place of another: %v, not %v", r.now.Sub(epoch), on, want)
	}
}

// A queen that misses another one answers in its place within 2 s, until it is back.
func TestAQueenAnswersInPlaceOfAnother(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	r.pass(startupWait)
	other := PeerMessage{Queen: "q1"}
	r.with(3*time.Second, other)
	r.backup(false)
	r.pass(time.Second)
	r.backup(false) // a moment of silence does not count
	r.pass(time.Second)
	r.backup(true)
	if m := r.said(); !m.Backup || m.Queen != "q" || m.V != 1 {
		t.Errorf("it says %+v", m)
	}
	r.hear(other)
	r.backup(false)
	// A queen that ends in order is not missed.
	r.hear(PeerMessage{Queen: "q1", Bye: true})
	r.pass(10 * time.Second)
	r.backup(false)
}

// A queen whose token does not return misses no other queen.
func TestAQueenThatHearsNothingTakesNoPlace(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	r.pass(startupWait)
	r.with(time.Second, PeerMessage{Queen: "q1"})
	r.mute = true
	r.pass(10 * time.Second)
	r.backup(false)
	r.mute = false
	r.pass(time.Second) // the silence of the other queen did not count meanwhile
	r.backup(false)
	r.pass(2 * time.Second)
	r.backup(true)
}

// If several queens miss another one, the queen with the lowest id answers in its place.
func TestOneOfAllQueensAnswersInPlaceOfAnother(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true}) // this queen is q
	r.pass(startupWait)
	r.hear(PeerMessage{Queen: "stopped"})
	lower, higher := PeerMessage{Queen: "a"}, PeerMessage{Queen: "z", Backup: true}
	r.with(3*time.Second, lower, higher)
	r.backup(true) // a knows nothing of the stopped queen
	if _, others := r.c.Backup(r.now); !others {
		t.Error("nobody else answers")
	}
	lower.Backup = true
	r.with(time.Second, lower, higher)
	r.backup(false)
	r.with(3*time.Second, higher) // a is stopped too
	r.backup(true)
}

// A queen announces itself while it is warm, and announces its end.
func TestWhatAQueenSaysToOthers(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	r.c.Stores("s1")
	r.pass(startupWait / 2)
	if len(r.peers) > 0 {
		t.Errorf("it is not warm, and says %s", r.peers)
	}
	r.pass(startupWait)
	r.peers = nil
	r.pass(10 * time.Second)
	if n := len(r.peers); n < 18 || n > 22 {
		t.Errorf("%d messages in 10 s", n)
	}
	if m := r.said(); m.Stores != "s1" || m.Bye || m.Backup {
		t.Errorf("%+v", m)
	}
	r.hear(PeerMessage{Queen: "q1", Stores: "s1"})
	r.hear(PeerMessage{Queen: "q2", Stores: "s2"})
	r.hear(PeerMessage{Queen: "q3"}) // it does not know its stores yet
	if ids := r.c.OtherStores(r.now); len(ids) != 1 || ids[0] != "q2" {
		t.Errorf("other stores: %v", ids)
	}
	r.c.Leave()
	r.turn()
	if m := r.said(); !m.Bye {
		t.Errorf("it ends and says %+v", m)
	}
	r.pass(time.Second)
	if len(r.peers) > 0 {
		t.Errorf("it ended and says %s", r.peers)
	}
}

// Messages that any client can send cost a bounded amount of memory, and change nothing.
func TestWhatOthersSayIsBounded(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	r.pass(startupWait)
	for _, bad := range []string{"", "{", `[]`, `{"v":2,"queen":"q1"}`, `{"v":1,"queen":"a.b"}`, `{"v":1}`, fmt.Sprintf(`{"v":1,"queen":"q1","stores":%q}`, make([]byte, maxPeerBytes))} {
		r.c.Peer(r.now, []byte(bad))
	}
	if n := len(r.c.peers.known); n != 0 {
		t.Errorf("%d queens are known", n)
	}
	for i := range 10 * maxPeers {
		r.hear(PeerMessage{Queen: fmt.Sprint("q", i), Unverified: []PeerDoubt{{Hive: fmt.Sprint("nobody", i), Inc: 1, Seq: 1}}})
	}
	if n := len(r.c.peers.known); n != maxPeers {
		t.Errorf("%d queens are known", n)
	}
	if n, _ := r.c.View().Index().DoubtedElsewhere(r.now); n != 0 || r.c.View().Len() != 0 {
		t.Errorf("%d hives are doubted, %d known", n, r.c.View().Len())
	}
	r.pass(2 * peerForgotten)
	r.backup(false)
	if n := len(r.c.peers.known); n != 0 {
		t.Errorf("%d queens are known after so long", n)
	}
}

// A hive that another queen holds as unverified is in doubt here, until this queen knows
// more of it or the other queen no longer reports it.
func TestADoubtOfAnotherQueenCounts(t *testing.T) {
	r := newRig(t, Config{NoJetStream: true})
	r.pass(startupWait)
	r.snapshot("h", 100, 7)
	r.turn()
	h := r.c.View().Index().Hive("h")
	doubt := func(inc, seq uint64) string {
		r.hear(PeerMessage{Queen: "q1", Unverified: []PeerDoubt{{"h", inc, seq}}})
		return r.c.View().Index().DoubtedBy(h, r.now)
	}
	for _, tt := range []struct {
		inc, seq uint64
		want     string
	}{{99, 9, ""}, {100, 6, ""}, {100, 7, "q1"}, {101, 1, "q1"}, {100, 8, "q1"}} {
		if got := doubt(tt.inc, tt.seq); got != tt.want {
			t.Errorf("at (%d, %d) it is doubted by %q, not %q", tt.inc, tt.seq, got, tt.want)
		}
	}
	r.snapshot("h", 100, 9)
	r.turn()
	if got := r.c.View().Index().DoubtedBy(h, r.now); got != "" {
		t.Errorf("it was heard since, and is doubted by %q", got)
	}
	if doubt(100, 9) == "" {
		t.Error("it is not doubted")
	}
	// A queen that has heard less of it does not contradict that.
	r.hear(PeerMessage{Queen: "q2", Unverified: []PeerDoubt{{"h", 100, 3}}})
	if got := r.c.View().Index().DoubtedBy(h, r.now); got != "q1" {
		t.Errorf("a queen that has heard less of it doubts it too, and now %q does", got)
	}
	r.pass(doubtLasts)
	if n, by := r.c.View().Index().DoubtedElsewhere(r.now); n != 0 {
		t.Errorf("%d are doubted by %q, which says so no more", n, by)
	}
}

// A queen whose brake is on reports to the others which hives it holds, unless it is not
// sure of itself.
func TestAQueenTellsWhomItHolds(t *testing.T) {
	r := newRig(t, Config{})
	r.pass(startupWait)
	const hives = 6
	for i := range hives {
		r.snapshot(fmt.Sprint("h", i), 100, 5)
	}
	r.pass(46 * time.Second)
	r.peers = nil
	r.pass(doubtEvery)
	doubts := func() (n int) {
		for _, b := range r.peers {
			var m PeerMessage
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			for _, d := range m.Unverified {
				if d.Inc != 100 || d.Seq != 5 {
					t.Errorf("%+v", d)
				}
			}
			n = max(n, len(m.Unverified))
		}
		r.peers = nil
		return n
	}
	if n := doubts(); n != hives {
		t.Errorf("it holds %d hives, and tells of %d", hives, n)
	}
	r.broken = true
	r.c.StoreState(r.now, errAway)
	r.pass(doubtEvery)
	doubts() // one may have been sent before
	r.pass(doubtEvery)
	if n := doubts(); n != 0 {
		t.Errorf("without its store it tells of %d hives", n)
	}
}

// A queen that hears the connections of many hives close at once does not believe that they
// died, and does not pick them. It reports them to the other queens at once. Those do not
// pick them either, until the hives are heard again or a queen has heard more of them.
func TestAQueenTellsWhoseConnectionClosed(t *testing.T) {
	r, other := newRig(t, Config{}), newRig(t, Config{NoJetStream: true})
	for _, r := range []*rig{r, other} {
		r.pass(startupWait)
		r.snapshot("h", 100, 7)
		r.pass(time.Second)
	}
	r.peers = nil
	for i := range 4 {
		r.c.Closed(r.now, liveness.Disconnect{Server: "S", Conn: fmt.Sprint("S/", 10+i), Reason: "Read Error"})
	}
	r.closes()
	r.turn()
	h := r.c.View().Hive("h")
	if len(r.peers) != 1 || h.Live() != hivebeat.Alive || !r.c.View().Index().Hive("h").Doubtful() {
		t.Fatalf("it is %s, in doubt: %t, and says %s", h.Live(), r.c.View().Index().Hive("h").Doubtful(), r.peers)
	}
	doubted := func() string { return other.c.View().Index().DoubtedBy(other.c.View().Index().Hive("h"), other.now) }
	hear := func() {
		for len(r.peers) > 0 {
			var m PeerMessage
			if err := json.Unmarshal(r.peers[0], &m); err != nil {
				t.Fatal(err)
			}
			m.Queen, r.peers = "q1", r.peers[1:]
			other.hear(m)
		}
	}
	if hear(); doubted() != "q1" {
		t.Error("another queen would pick it")
	}
	for range 10 { // the window of a held hive has no end
		r.pass(doubtEvery)
		other.pass(doubtEvery)
		if hear(); doubted() != "q1" {
			t.Fatalf("another queen would pick it after %v", r.now.Sub(epoch))
		}
	}
	other.snapshot("h", 100, 8)
	if other.turn(); doubted() != "" {
		t.Error("it was heard since, and is doubted")
	}
	r.snapshot("h", 100, 9)
	r.pass(doubtEvery)
	r.peers = nil
	r.pass(2 * doubtEvery)
	if hear(); doubted() != "" {
		t.Error("it is back, and doubted")
	}
}

// A queen that was stopped reports which hives it has not heard since.
func TestAQueenThatWasStoppedSaysWhomItMisses(t *testing.T) {
	r := newRig(t, Config{})
	r.pass(startupWait)
	r.snapshot("h1", 100, 5)
	r.snapshot("h2", 100, 5)
	r.pass(time.Second)
	r.now = r.now.Add(time.Minute)
	r.c.Look(r.now)
	if _, ok := r.c.Hearing().Doubts(); !ok {
		t.Error("it does not doubt itself")
	}
	r.turn() // the token comes back at once
	if n, since := r.c.Unheard(); n != 2 || !since.Equal(r.now) {
		t.Errorf("%d hives were not heard since %v", n, since)
	}
	r.pass(time.Second)
	r.snapshot("h1", 100, 6)
	r.turn()
	if n, _ := r.c.Unheard(); n != 1 {
		t.Errorf("%d hives were not heard since", n)
	}
	r.snapshot("h2", 100, 6)
	r.turn()
	if n, _ := r.c.Unheard(); n != 0 {
		t.Errorf("%d hives were not heard since", n)
	}
}
