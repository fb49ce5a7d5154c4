package core_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/liveness"
)

var t0 = time.Unix(1_700_000_000, 0)

const (
	second    = time.Second
	unnoticed = 30 * second
)

// judge records the reports of a Hearing.
type judge struct {
	doubts  []time.Time
	closed  int
	noted   liveness.Noted // the result of Disconnect
	settled []time.Time
	more    bool
	forgot  int
}

func (j *judge) Doubt(since time.Time) { j.doubts = append(j.doubts, since) }
func (j *judge) Disconnect(time.Time, liveness.Disconnect) liveness.Noted {
	j.closed++
	return j.noted
}

func (j *judge) SettleDisconnects(upTo time.Time) bool {
	j.settled = append(j.settled, upTo)
	return j.more
}

func (j *judge) VouchDisconnects(time.Time, liveness.Path) {}
func (j *judge) ForgetDisconnects()                        { j.forgot++ }

// listener is a Hearing under test.
type listener struct {
	*core.Hearing
	t    *testing.T
	j    judge
	logs core.Logs
	now  time.Time
}

func newListener(t *testing.T) *listener {
	e := &listener{t: t, now: t0}
	e.Hearing = core.NewHearing("hive", "worker", &e.j, &e.logs)
	return e
}

// up returns a connected listener.
func up(t *testing.T) *listener {
	e := newListener(t)
	e.Look(e.now)
	e.Drops(e.now, 0)
	if turn := e.connection(true); !turn.First || turn.Back || turn.Cut {
		t.Fatalf("connected: %+v", turn)
	}
	e.Ask(e.now)
	return e
}

// after lets time pass, with looks as often as required.
func (e *listener) after(d time.Duration) {
	for end := e.now.Add(d); e.now.Before(end); {
		e.now = e.now.Add(min(end.Sub(e.now), liveness.LookEvery))
		e.Look(e.now)
		e.Drops(e.now, e.Dropped())
		e.Ask(e.now)
	}
}

func (e *listener) connection(up bool) core.Turn {
	return e.Connection(e.now, core.Connection{Up: up, Unnoticed: unnoticed})
}

// token returns the token that is requested now, or 0.
func (e *listener) token() uint64 {
	e.Ask(e.now)
	return e.TakeSignals().Token
}

func (e *listener) said(want ...string) {
	e.t.Helper()
	var got []string
	for _, l := range e.logs {
		if l.Level > slog.LevelDebug {
			got = append(got, l.Text)
		}
	}
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		e.t.Errorf("says %q, want %q", got, want)
	}
	e.logs = nil
}

func (e *listener) back(token uint64) (blind time.Duration, roll bool) {
	e.t.Helper()
	blind, roll, ok := e.TokenBack(e.now, token)
	if !ok {
		e.t.Errorf("token %d proves nothing", token)
	}
	return blind, roll
}

func TestHearingOfACut(t *testing.T) {
	e := up(t)
	if !e.Connected() || !e.Trusts() || !e.UpSince().Equal(t0) {
		t.Errorf("connected %t, trusts %t, since %v", e.Connected(), e.Trusts(), e.UpSince())
	}
	e.after(10 * second)
	e.Prove(e.now)
	heard := e.now
	e.after(20 * second)
	if turn := e.connection(false); !turn.Cut || turn.First || turn.Back {
		t.Errorf("cut: %+v", turn)
	}
	since, cut := e.CutSince()
	if e.Connected() || e.Trusts() || !cut || !since.Equal(e.now) {
		t.Errorf("connected %t, trusts %t, cut %t since %v", e.Connected(), e.Trusts(), cut, since)
	}
	if turn := e.connection(false); turn != (core.Turn{}) {
		t.Errorf("told again: %+v", turn)
	}
	// The connection may have been dead since the last message.
	if len(e.j.doubts) != 1 || !e.j.doubts[0].Equal(heard) || e.j.forgot != 1 {
		t.Errorf("the judge is told of doubt since %v, and forgets %d times", e.j.doubts, e.j.forgot)
	}
	e.said("NATS is away")
	e.after(time.Minute)
	if n := e.token(); n != 0 {
		t.Errorf("asks for token %d while NATS is away", n)
	}
	if turn := e.connection(true); !turn.Back || turn.Cut || turn.First {
		t.Errorf("back: %+v", turn)
	}
	if e.said("NATS is back"); e.Trusts() {
		t.Error("trusts itself before a token is back")
	}
	blind, roll := e.back(e.token())
	if want := e.now.Sub(heard) + liveness.BackGrace; blind != want || !roll || !e.Trusts() || e.Blind() != want {
		t.Errorf("credits %v, want %v; roll %t, trusts %t", blind, want, roll, e.Trusts())
	}
	e.said("this hive hears again")
}

func TestHearingBeforeTheFirstConnection(t *testing.T) {
	e := newListener(t)
	e.Look(e.now)
	for range 2 {
		if turn := e.connection(false); turn != (core.Turn{}) {
			t.Errorf("not there: %+v", turn)
		}
	}
	e.said("NATS is not there yet")
	e.after(10 * second)
	if since, cut := e.CutSince(); !cut || !since.Equal(t0) || e.Connected() || e.Trusts() {
		t.Errorf("cut %t since %v, connected %t, trusts %t", cut, since, e.Connected(), e.Trusts())
	}
	if turn := e.connection(true); !turn.First || turn.Back {
		t.Errorf("there: %+v", turn)
	}
	if e.said("NATS is there"); !e.Trusts() {
		t.Error("doubts though there is nothing to doubt")
	}
	if turn := e.connection(true); turn != (core.Turn{}) {
		t.Errorf("told again: %+v", turn)
	}
}

func TestHearingOfAFlap(t *testing.T) {
	e := up(t)
	turn := e.Connection(e.now, core.Connection{Up: true, Flapped: true, Unnoticed: unnoticed})
	if !turn.Cut || !turn.Back || e.Trusts() || !e.Connected() {
		t.Errorf("%+v, trusts %t, connected %t", turn, e.Trusts(), e.Connected())
	}
	e.said("NATS is away", "NATS is back")
}

func TestHearingOfAStop(t *testing.T) {
	e := up(t)
	e.after(5 * second)
	ran := e.now
	e.now = e.now.Add(time.Minute)
	if paused := e.Look(e.now); paused != time.Minute || e.Paused() != time.Minute {
		t.Errorf("paused for %v, in all %v", paused, e.Paused())
	}
	if len(e.j.doubts) != 1 || !e.j.doubts[0].Equal(ran) {
		t.Errorf("doubts since %v, want %v", e.j.doubts, ran)
	}
	e.said("this hive was stopped or starved")
	if blind, roll := e.back(e.token()); blind != time.Minute || !roll {
		t.Errorf("credits %v, roll %t", blind, roll)
	}
}

func TestHearingOfDrops(t *testing.T) {
	e := up(t)
	e.after(5 * second)
	clean := e.now
	e.now = e.now.Add(second / 2)
	for total := uint64(1); total <= 3; total++ {
		e.Drops(e.now, total)
	}
	if len(e.j.doubts) == 0 || !e.j.doubts[0].Equal(clean) || e.Dropped() != 3 {
		t.Errorf("doubts since %v, want %v; %d dropped", e.j.doubts, clean, e.Dropped())
	}
	e.said("messages came faster")
	token := e.token()
	e.Drops(e.now, 4) // before the token is back, so the token proves nothing
	if _, _, ok := e.TokenBack(e.now, token); ok || e.Trusts() {
		t.Errorf("a drop is healed by a token that was sent before: it counts %t, trusts itself %t", ok, e.Trusts())
	}
	if blind, roll := e.back(e.token()); blind != second/2 || roll {
		t.Errorf("credits %v, roll %t", blind, roll)
	}
	e.said()
	e.after(core.LogAgain)
	e.Drops(e.now, 5)
	if l := e.logs[len(e.logs)-1]; fmt.Sprint(l.Attrs) != "[dropped=4 total=5]" {
		t.Errorf("a minute later: %v", l)
	}
}

// Every message calls Look, and drops happen when there are many messages: they are
// counted in time all the same.
func TestDropsAreCountedInTime(t *testing.T) {
	e := up(t)
	for range 10 {
		e.now = e.now.Add(second / 10)
		e.Look(e.now)
	}
	if next := e.NextLook(); next.After(e.now) {
		t.Errorf("counts drops in %v", next.Sub(e.now))
	}
}

// Silence is evidence if the observer knows that messages reach it.
func TestHearingOfNothing(t *testing.T) {
	e := up(t)
	e.after(second / 2)
	if !e.Hears(e.now) {
		t.Error("does not hear, and was connected just now")
	}
	if n := e.token(); n != 0 {
		t.Errorf("token %d", n)
	}
	e.after(10 * second)
	proof := e.UpSince()
	if e.Hears(e.now) {
		t.Error("hears, and nothing came for 10 s")
	}
	first := e.token()
	if first == 0 || !e.Trusts() {
		t.Fatalf("token %d, trusts %t", first, e.Trusts())
	}
	if n := e.token(); n != 0 {
		t.Errorf("asks for one more at once: %d", n)
	}
	e.said()
	for range 3 {
		e.after(3 * second)
	}
	if len(e.j.doubts) == 0 || !e.j.doubts[0].Equal(proof) || e.Trusts() {
		t.Errorf("no answer: doubts since %v, want %v; trusts %t", e.j.doubts, proof, e.Trusts())
	}
	e.said("nobody is heard, and NATS does not answer")
	if _, _, ok := e.TokenBack(e.now, first); ok {
		t.Error("an old token proves something")
	}
	e.after(2 * second)
	e.TakeSignals()
	e.after(2 * second)
	if _, roll := e.back(e.TakeSignals().Token); !roll || !e.Hears(e.now) {
		t.Errorf("roll %t, hears %t", roll, e.Hears(e.now))
	}
}

func TestHearingOfClosedConnections(t *testing.T) {
	d := liveness.Disconnect{Server: "S", Conn: "S/1", Evidence: true}
	e := newListener(t)
	if e.Closed(e.now, d); e.j.closed != 0 {
		t.Error("the judge is told before there is a connection")
	}
	e = up(t)
	if waits, s := e.Closed(e.now, d), e.TakeSignals(); waits || s.Settle {
		t.Errorf("no window opened, and it waits: %t, %+v", waits, s)
	}
	e.j.noted = liveness.Noted{Opened: true}
	at := e.now
	if waits, s := e.Closed(e.now, d), e.TakeSignals(); !waits || !s.Settle {
		t.Errorf("a window opened, and it does not wait: %t, %+v", waits, s)
	}
	e.now = e.now.Add(1)
	e.Closed(e.now, d)
	if e.TakeSignals().Settle {
		t.Error("waits twice at once")
	}
	e.j.more = true
	later := e.now.Add(1)
	e.Settled(later, liveness.Path{Server: "S"})
	if !e.TakeSignals().Settle {
		t.Error("does not wait for the later one")
	}
	e.j.more = false
	e.Settled(e.now.Add(2), liveness.Path{Server: "S"})
	e.Settled(e.now.Add(3), liveness.Path{Server: "S"})
	if e.TakeSignals().Settle || len(e.j.settled) != 2 || !e.j.settled[0].Equal(at) || !e.j.settled[1].Equal(later) {
		t.Errorf("settled %v, want %v and %v", e.j.settled, at, later)
	}
	e.System(true)
	if e.j.forgot != 0 {
		t.Error("forgets as the system account is there")
	}
	e.System(false)
	if e.j.forgot != 1 {
		t.Errorf("forgets %d times", e.j.forgot)
	}
}

// A warning is logged if the connections of a server keep closing.
func TestHearingOfAServersConnections(t *testing.T) {
	e := up(t)
	e.j.noted = liveness.Noted{Ignored: true}
	for range 12 {
		e.Closed(e.now, liveness.Disconnect{Server: "S", Name: "n", Reason: "r"})
		e.after(second)
	}
	e.said("connections of a NATS server close many at once: no worker there is picked until it is heard, and it is lost by its silence, or where this hive reaches that server from the same address")
	if e.Ignored() != 12 {
		t.Errorf("%d are ignored", e.Ignored())
	}
}

func TestLimiter(t *testing.T) {
	var l core.Limiter
	for i, want := range []uint64{1, 0, 0, 3, 0} {
		at := t0.Add(time.Duration(i) * core.LogAgain / 3)
		if i == 4 {
			at = t0.Add(core.LogAgain + 1)
		}
		if got := l.Allow("a", at); got != want {
			t.Errorf("%d. gives %d, want %d", i, got, want)
		}
	}
	if got := l.Allow("b", t0); got != 1 {
		t.Errorf("another kind gives %d", got)
	}
}
