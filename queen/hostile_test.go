package queen

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/doctor"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// strictServer runs a server with an unrestricted user, and with a queen and a reader
// that have the permissions of docs/OPERATIONS.md. The reader may send every request,
// with an asker and without, and may also use nats micro.
func strictServer(t *testing.T) *embedded.Server {
	t.Helper()
	q, r := doctor.Config{Role: doctor.Queen}.Permissions(), doctor.Config{Role: doctor.Scheduler}.Permissions()
	r.Publish = append(r.Publish, "queen.as.reader.>")
	return bustest.Server(t, bustest.User("admin", nil, nil), bustest.User("reader", append(r.Publish, "$SRV.>"), r.Subscribe),
		bustest.Configure(func(o *embedded.Options) {
			o.Users = append(o.Users, &embedded.User{Username: "queen", Password: "queen", Permissions: &embedded.Permissions{
				Publish:   &embedded.SubjectPermission{Allow: q.Publish},
				Subscribe: &embedded.SubjectPermission{Allow: q.Subscribe},
				Response:  &embedded.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}, // allow_responses: true
			}})
		}))
}

func as(t *testing.T, srv *embedded.Server, user string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return bustest.Conn(t, srv, append(opts, nats.UserInfo(user, user))...)
}

// questions returns every subject on which a queen answers requests.
func questions(id string) []string {
	var s hivebeat.Subjects
	var list []string
	for _, verb := range api.Verbs() {
		for _, asker := range []string{"", "reader"} {
			list = append(list, s.Ask(asker, verb, ""), s.Ask(asker, verb, id))
		}
	}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		list = append(list, "$SRV."+verb, "$SRV."+verb+".queen", "$SRV."+verb+".queen."+id)
	}
	return list
}

// A queen may publish where a reader may not. It does not lend that permission to a
// request whose reply subject is such a subject.
func TestQueenIsNoConfusedDeputy(t *testing.T) {
	t.Parallel()
	const id = "deputy"
	srv := strictServer(t)
	admin := as(t, srv, "admin")
	q := startQueen(t, as(t, srv, "queen", nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})), Config{ID: id})
	q.warm()
	w := workerOf("w1")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	startHive(t, admin, "gpu-01", time.Hour, w)
	waitStored(t, admin, hivebeat.KindJoined, "gpu-01", "")
	waitStored(t, admin, hivebeat.KindJoined, "gpu-01", "w1")
	js, err := jetstream.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	kept := func() string {
		var all strings.Builder
		for _, name := range []string{"QUEEN_EVENTS", "KV_queen_hives", "KV_queen_roster", "KV_queen_holds"} {
			s, err := js.Stream(t.Context(), name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			st := s.CachedInfo().State
			fmt.Fprintf(&all, "%s %d messages up to %d\n", name, st.Msgs, st.LastSeq)
		}
		return all.String()
	}
	bustest.Eventually(t, patience, func() (bool, string) {
		kv, err := js.KeyValue(t.Context(), hivebeat.BucketHives)
		if err == nil {
			_, err = kv.Get(t.Context(), "gpu-01")
		}
		return err == nil, fmt.Sprint("the hive's key: ", err)
	})
	before := kept()

	tap, err := admin.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, admin)

	reader := as(t, srv, "reader")
	asked := questions(id)
	targets := []string{
		"queen.log.gpu-01.w1.lost", "queen.events.gpu-01.w1.lost", "queen.hives", "queen.hives.gpu-01", "queen.rollcall", "queen.api.release",
		"hive.gpu-01.workers", "hive.gpu-01.rollcall", "$KV.queen_hives.gpu-01", "$KV.queen_roster.gpu-01", "$KV.queen_holds.w.gpu-01.w1",
		"$JS.API.STREAM.DELETE.KV_queen_hives", "$JS.API.STREAM.PURGE.QUEEN_EVENTS", "$SRV.PING", "anything", "_INBOXES.x", "_INBOX", "_INBOX.*", "_INBOX.>", "_INBOX..x",
	}
	for _, subject := range asked {
		for _, target := range targets {
			if err := reader.PublishRequest(subject, target, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, subject := range asked { // a proper request after them is answered
		if _, err := reader.Request(subject, nil, patience); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	if got, want := q.Stats().RepliesRefused, uint64(len(asked)*len(targets)); got != want {
		t.Errorf("%d requests are counted as refused, of %d", got, want)
	}
	log := q.log.String()
	if n := strings.Count(log, "requests refused: their reply subject"); n == 0 || n > 10 || !strings.Contains(log, "reply="+targets[0]) {
		t.Errorf("the log warns %d times, or does not name %s", n, targets[0])
	}
	bustest.Flush(t, q.nc)
	bustest.Flush(t, admin)

	leaked := map[string]int{}
	for {
		m, err := tap.NextMsg(time.Millisecond)
		if err != nil {
			break
		}
		inbox := strings.HasPrefix(m.Subject, "_INBOX.") && !strings.ContainsAny(m.Subject, "*>") && !strings.Contains(m.Subject, "..")
		own := m.Subject == "queen.peers" // a queen names itself there twice a second; no target is that subject
		if answer := bytes.Contains(m.Data, []byte(`"`+id+`"`)); answer && !inbox && !own {
			leaked[m.Subject]++
		}
	}
	for subject, n := range leaked {
		t.Errorf("%d answers at %s", n, subject)
	}
	if after := kept(); after != before {
		t.Errorf("what is kept was:\n%sand is:\n%s", before, after)
	}
}

// A reply subject on a snapshot or beat must not be answered: an answer would reveal
// whether a queen listens.
func TestQueenAnswersNoSnapshotAndNoBeat(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q"})
	q.warm()
	answers, err := nc.SubscribeSync("_INBOX.answers")
	if err != nil {
		t.Fatal(err)
	}
	send := func(subject string, body []byte) {
		if err := nc.PublishRequest(subject, answers.Subject, body); err != nil {
			t.Fatal(err)
		}
	}
	o := startAdoptionRig(t, bustest.Conn(t, srv), 1, false)
	o.kill()
	q.sees("w0", hivebeat.Alive, hivebeat.ViaQueen)
	o.workers[0].kill()
	b := o.workers[0].b
	b.Seq, b.State = b.Seq+1, hivebeat.Draining
	send("hive.h.workers", encodeBeat(t, &b))
	q.eventually("the beat is heard", func() bool { w, _ := q.worker("w0"); return w.State == hivebeat.Draining })
	send("queen.hives", encode(t, snapshotOf("other", 7, 1)))
	q.eventually("the snapshot is heard", func() bool { return q.live("other") == hivebeat.Alive })
	bustest.Flush(t, q.nc)
	bustest.Flush(t, nc)
	if m, err := answers.NextMsg(time.Millisecond); err == nil {
		t.Errorf("an answer: %q", m.Data)
	}
}

func encodeBeat(t *testing.T, b *hivebeat.Beat) []byte {
	t.Helper()
	body, err := wire.EncodeBeat(b)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// A refused request changes nothing, even if its verb would.
func TestRefusedRequestChangesNothing(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q"})
	q.warm()
	w := workerOf("w1")
	w.State, w.Slots, w.Busy = hivebeat.Ready, 4, 0
	startHive(t, nc, "gpu-01", time.Hour, w)
	q.eventually("a place to pick", func() bool { return len(q.ask(api.VerbPick, api.Request{}).Picks) == 1 })

	if err := nc.PublishRequest("queen.api.pick", "queen.log.x", []byte(`{"hold":"evil"}`)); err != nil {
		t.Fatal(err)
	}
	q.eventually("refused", func() bool { return q.Stats().RepliesRefused == 1 })
	if a := q.ask(api.VerbHolds, api.Request{}); len(a.Holds) != 0 {
		t.Errorf("it holds %+v", a.Holds)
	}
}

func TestInboxPrefixes(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	own := bustest.Conn(t, srv, nats.CustomInboxPrefix("_INBOX_ops"))
	request := func(subject string, within time.Duration) error {
		_, err := own.Request(subject, nil, within)
		return err
	}

	plain := startQueen(t, bustest.Conn(t, srv), Config{ID: "plain"})
	plain.warm()
	bustest.Flush(t, plain.nc) // otherwise the server has no subscriber for the request
	if err := request("queen.api.summary", 100*time.Millisecond); err == nil {
		t.Error("a queen answers to an inbox prefix that it was not told of")
	}
	plain.logged("reply=_INBOX_ops.")
	plain.stop()

	told := startQueen(t, bustest.Conn(t, srv), Config{ID: "told", InboxPrefixes: []string{"other", "_INBOX_ops"}})
	told.warm()
	bustest.Flush(t, told.nc)
	for _, subject := range questions("told") {
		if err := request(subject, patience); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}

	for _, bad := range []string{"", "queen", "acme", "acme.queen", "hive.x", "$KV", "$JS.API", "a.*", "a."} {
		_, err := New(own, Config{Prefix: "acme", InboxPrefixes: []string{"fine", bad}})
		if !errors.Is(err, hivebeat.ErrSubject) || !strings.Contains(err.Error(), "queen: Config.InboxPrefixes: ") || !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("prefix %q: %v", bad, err)
		}
	}
}

// The queen answers another account that imports its API. The server gives such
// requests a reply subject of a special form.
func TestQueenAnswersAcrossImports(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		fleet, ops := embedded.NewAccount("FLEET"), embedded.NewAccount("OPS")
		o.Accounts = []*embedded.Account{fleet, ops}
		o.Users = []*embedded.User{{Username: "fleet", Password: "fleet", Account: fleet}, {Username: "ops", Password: "ops", Account: ops}}
		for _, subject := range []string{"queen.api.>", "queen.as.>", "$SRV.>"} {
			if err := fleet.AddServiceExport(subject, []*embedded.Account{ops}); err != nil {
				t.Fatal(err)
			}
			if err := ops.AddServiceImport(fleet, subject, subject); err != nil {
				t.Fatal(err)
			}
		}
	}))
	inFleet := as(t, srv, "fleet")
	shown, err := inFleet.SubscribeSync("queen.api.summary")
	if err != nil {
		t.Fatal(err)
	}
	q := startQueen(t, inFleet, Config{ID: "q", NoJetStream: true})
	q.eventually("warm", func() bool { return q.ask(api.VerbSummary, api.Request{}).Status.Warm })
	bustest.Flush(t, inFleet)

	ops := as(t, srv, "ops")
	for _, subject := range questions("q") {
		if _, err := ops.Request(subject, nil, patience); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	if m, err := shown.NextMsg(patience); err != nil || !strings.HasPrefix(m.Reply, "_R_.") {
		t.Errorf("the test is void: the queen was asked for %+v (%v)", m, err)
	}
}

// A beat has all required keys of a snapshot. A beat sent to the subject of snapshots
// neither creates a hive nor replaces one, even with a higher incarnation.
func TestBeatIsNoSnapshot(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	q := startQueen(t, bustest.Conn(t, srv), Config{ID: "q"})
	q.warm()
	w := workerOf("w1")
	w.N = 0
	transition(&w, hivebeat.KindJoined, "alive")
	h := startHive(t, nc, "gpu-01", time.Hour, w)
	q.eventually("alive", func() bool { return q.live("gpu-01") == hivebeat.Alive })
	waitStored(t, nc, hivebeat.KindJoined, "gpu-01", "w1")

	for i, hive := range []string{"gpu-01", "gpu-02"} {
		b := hivebeat.Beat{V: 1, Hive: hive, Worker: "w1", Facts: hivebeat.Facts{Inc: h.snap.Inc + 1_000_000, Seq: 9, Every: 60_000, State: hivebeat.Ready}}
		for k, subject := range []string{"queen.hives", "queen.hives." + hive} {
			if err := nc.Publish(subject, encodeBeat(t, &b)); err != nil {
				t.Fatal(err)
			}
			q.eventually("it is refused", func() bool { return q.Stats().Refused[hivebeat.RefusedForeign] == uint64(2*i+k+1) })
		}
	}
	q.logged("is a beat")
	a := q.ask(api.VerbHives, api.Request{})
	if len(a.Hives) != 1 || a.Hives[0].Hive != "gpu-01" || a.Hives[0].Inc != h.snap.Inc || a.Hives[0].Live != hivebeat.Alive || a.Hives[0].Conflict {
		t.Errorf("the hives are %+v", a.Hives)
	}
	if a := q.ask(api.VerbWorker, api.Request{Hive: "gpu-01", Worker: "w1"}); len(a.Workers) != 1 || a.Workers[0].Live != hivebeat.Alive {
		t.Errorf("its worker is %+v", a.Workers)
	}
	h.send(nil) // its next snapshot counts
	q.eventually("the next snapshot", func() bool { return q.ask(api.VerbHive, api.Request{Hive: "gpu-01"}).Hives[0].Seq == h.snap.Seq })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), hivebeat.BucketHives)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(t.Context(), "gpu-02"); err == nil {
		t.Errorf("a key of %d bytes was put for gpu-02", len(e.Value()))
	}
	if n := countStored(t, nc, hivebeat.KindJoined, "gpu-02") + countStored(t, nc, hivebeat.KindRestarted, "gpu-01"); n != 0 {
		t.Errorf("%d events tell what did not happen", n)
	}
}
