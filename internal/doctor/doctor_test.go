package doctor_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/doctor"
	"github.com/beatfabric/hivebeat/internal/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, bustest.Leaks()) }

func check(t *testing.T, nc *nats.Conn, cfg doctor.Config) []doctor.Finding {
	t.Helper()
	list, err := doctor.Check(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// only returns the findings of one check.
func only(list []doctor.Finding, check string) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f doctor.Finding) bool { return f.Check != check })
}

// worst returns the worst level among list, OK for an empty one.
func worst(list []doctor.Finding) doctor.Level {
	worst := doctor.OK
	for _, f := range list {
		if f.Level == doctor.Fail || f.Level == doctor.Warn && worst == doctor.OK {
			worst = f.Level
		}
	}
	return worst
}

func show(list []doctor.Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%-4s %-14s %s\n", f.Level, f.Check, f.What)
		if f.Do != "" {
			fmt.Fprintf(&b, "     → %s\n", f.Do)
		}
	}
	return b.String()
}

// has fails unless a finding of the check has the level and each text.
func has(t *testing.T, list []doctor.Finding, level doctor.Level, check string, texts ...string) {
	t.Helper()
	for _, f := range only(list, check) {
		ok := f.Level == level
		for _, text := range texts {
			ok = ok && strings.Contains(f.What+"\n"+f.Do, text)
		}
		if ok {
			if level != doctor.OK && f.Do == "" {
				t.Errorf("nothing says what to do about %q", f.What)
			}
			return
		}
	}
	t.Errorf("no %s %s with %q in\n%s", level, check, texts, show(list))
}

func TestAllIsWell(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	for _, role := range doctor.Roles() {
		t.Run(string(role), func(t *testing.T) {
			list := check(t, nc, doctor.Config{Role: role, Hive: "gpu-01", Worker: "llama"})
			if role == doctor.Viewer {
				has(t, list, doctor.Warn, doctor.CheckPermission, "may also hold and release capacity",
					`deny: ["queen.api.hold", "queen.api.hold.*", "queen.as.*.hold", "queen.as.*.hold.*", "queen.api.release", `)
			}
			for _, c := range []string{
				doctor.CheckConnection, doctor.CheckVersion, doctor.CheckRoundTrip, doctor.CheckPayload, doctor.CheckPermission,
			} {
				has(t, list, doctor.OK, c)
			}
			switch role {
			case doctor.Queen:
				has(t, list, doctor.OK, doctor.CheckJetStream)
				if stored := only(list, doctor.CheckStored); len(stored) != 4 {
					t.Errorf("stored:\n%s", show(stored))
				}
				has(t, list, doctor.OK, doctor.CheckStored, "queen_hives", "does not exist yet")
			case doctor.Viewer, doctor.Scheduler:
				has(t, list, doctor.Warn, doctor.CheckQueen, "no queen answers", "hivebeat queen")
				return
			}
			if worst(list) != doctor.OK {
				t.Errorf("not all is well:\n%s", show(list))
			}
		})
	}
}

func TestWithoutJetStream(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	list := check(t, nc, doctor.Config{Role: doctor.Queen})
	has(t, list, doctor.Fail, doctor.CheckJetStream, "nats-server -js", "--no-jetstream")
	if list = check(t, nc, doctor.Config{Role: doctor.Queen, NoJetStream: true}); worst(list) != doctor.OK {
		t.Errorf("a queen without JetStream needs none:\n%s", show(list))
	}
	if list = check(t, nc, doctor.Config{Role: doctor.Hive}); worst(list) != doctor.OK {
		t.Errorf("a hive needs none:\n%s", show(list))
	}
}

func TestStored(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	subjects, err := hivebeat.NewSubjects("acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(t.Context(), nc, ledger.Config{Subjects: subjects}); err != nil {
		t.Fatal(err)
	}
	list := check(t, nc, doctor.Config{Role: doctor.Queen, Subjects: subjects})
	for _, name := range []string{"acme_queen_hives", "acme_queen_roster", "acme_queen_holds", "acme_QUEEN_EVENTS"} {
		has(t, list, doctor.OK, doctor.CheckStored, name, "has the right settings")
	}

	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: hivebeat.BucketHives, TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	list = check(t, nc, doctor.Config{Role: doctor.Queen})
	has(t, list, doctor.Fail, doctor.CheckStored, "bucket queen_hives", "TTL is 1m0s, not 24h0m0s", "nats stream rm KV_queen_hives")
	has(t, list, doctor.OK, doctor.CheckStored, "bucket queen_roster", "does not exist yet")
	if _, err := js.KeyValue(t.Context(), hivebeat.BucketRoster); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("a bucket was made: %v", err)
	}
}

// Subscribers receive nothing but real requests: hives and queens would count a
// malformed beat or snapshot, and a stored event would be shown.
func TestNobodyHearsIt(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	if _, err := ledger.Open(t.Context(), nc, ledger.Config{}); err != nil {
		t.Fatal(err)
	}
	heard := make(chan *nats.Msg, 1000)
	if _, err := bustest.Conn(t, srv).ChanSubscribe(">", heard); err != nil {
		t.Fatal(err)
	}
	answers, err := bustest.Conn(t, srv).QueueSubscribe("queen.api.*", "q", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"status":{"queen":"q-1","warm":true}}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Unsubscribe()
	bustest.Flush(t, nc)
	for _, role := range doctor.Roles() {
		for _, pinned := range []bool{false, true} {
			list := check(t, nc, doctor.Config{Role: role, Hive: "gpu-01", Worker: "llama", Pinned: pinned})
			if role == doctor.Viewer { // it reports that the user may hold
				list = slices.DeleteFunc(list, func(f doctor.Finding) bool { return strings.Contains(f.What, "may also hold") })
			}
			if worst(list) != doctor.OK {
				t.Errorf("%s:\n%s", role, show(list))
			}
		}
	}
	if err := nc.Publish("end", nil); err != nil {
		t.Fatal(err)
	}
	for m := range heard {
		switch s := m.Subject; {
		case s == "end":
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"KV_queen_hives", "KV_queen_roster", "KV_queen_holds", "QUEEN_EVENTS"} {
				stream, err := js.Stream(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if n := stream.CachedInfo().State.LastSeq; n != 0 {
					t.Errorf("%s holds %d messages", name, n)
				}
			}
			return
		case strings.HasPrefix(s, "$JS.EVENT.ADVISORY.STREAM.CREATED."): // of ledger.Open above, and late
		case s == "$JS.API.INFO", s == "$JS.EVENT.ADVISORY.API", strings.HasPrefix(s, "$JS.API.STREAM.INFO."), strings.HasPrefix(s, "_INBOX."), s == "queen.api.summary", s == "queen.api.events", s == "$SRV.PING.queen":
			// These are genuine requests.
		default:
			t.Errorf("heard on %s: %.80q", s, m.Data)
		}
	}
}

// Each permission is checked: if a user lacks just one, a finding names it.
func TestPermissions(t *testing.T) {
	for _, cfg := range []doctor.Config{
		{Role: doctor.Worker, Hive: "gpu-01", Worker: "llama"},
		{Role: doctor.Worker, Hive: "gpu-01", Worker: "llama", Pinned: true},
		{Role: doctor.Hive, Hive: "gpu-01"},
		{Role: doctor.Hive, Hive: "gpu-01", Pinned: true},
		{Role: doctor.Queen},
		{Role: doctor.Queen, NoJetStream: true},
		{Role: doctor.Viewer},
		{Role: doctor.Viewer, Asker: "ann"},
		{Role: doctor.Scheduler},
		{Role: doctor.Scheduler, Asker: "ann"},
	} {
		t.Run(fmt.Sprintf("%s pinned=%v nojs=%v asker=%s", cfg.Role, cfg.Pinned, cfg.NoJetStream, cfg.Asker), func(t *testing.T) {
			all := cfg.Permissions()
			without := map[string]string{"all": ""}
			users := []bustest.Option{bustest.User("all", all.Publish, all.Subscribe)}
			add := func(i int, verb, subject string, pub, sub []string) {
				name := fmt.Sprint(verb, i)
				without[name] = subject
				users = append(users, bustest.User(name, pub, sub))
			}
			cut := func(list []string, i int) []string { // never empty, which would allow everything
				return append(slices.Delete(slices.Clone(list), i, i+1), "unused")
			}
			for i, s := range all.Publish {
				add(i, "pub", s, cut(all.Publish, i), all.Subscribe)
			}
			for i, s := range all.Subscribe {
				add(i, "sub", s, all.Publish, cut(all.Subscribe, i))
			}
			srv := bustest.Server(t, users...)
			// The doctor waits 1 s for an answer that a queen's user may not ask for.
			// t.Parallel would let only as many wait at once as there are CPUs.
			var wg sync.WaitGroup
			defer wg.Wait()
			slots := make(chan struct{}, 10)
			for name, subject := range without {
				run := func(t *testing.T) {
					nc := bustest.Conn(t, srv, nats.UserInfo(name, name), nats.Timeout(20*time.Second), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
						t.Errorf("the borrowed connection hears %v", err)
					}))
					list := only(check(t, nc, cfg), doctor.CheckPermission)
					bad := slices.DeleteFunc(slices.Clone(list), func(f doctor.Finding) bool { return f.Level == doctor.OK })
					if subject == "" {
						if len(bad) > 0 || len(list) != 1 || !strings.Contains(list[0].What, "has every permission that a "+string(cfg.Role)+" needs") {
							t.Errorf("with all permissions:\n%s", show(list))
						}
						return
					}
					if len(list) != len(bad) {
						t.Errorf("without %s %s something is still ok:\n%s", name, subject, show(list))
					}
					if len(bad) != 1 {
						t.Errorf("without %s %s:\n%s", name, subject, show(list))
						return
					}
					verb := map[string]string{"pub": "publish to ", "sub": "subscribe to "}[name[:3]]
					if !strings.Contains(bad[0].What, verb) || bad[0].Do == "" || !matches(subject, bad[0].What) {
						t.Errorf("without %s %s: %+v", name, subject, bad[0])
					}
				}
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					t.Run(name, run)
				})
			}
		})
	}
}

// matches reports whether a word of text is a subject that pattern allows.
func matches(pattern, text string) bool {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" ,;", r) }) {
		p, w := strings.Split(pattern, "."), strings.Split(word, ".")
		ok := true
		for i := 0; ok && i < len(p); i++ {
			if p[i] == ">" && i < len(w) {
				return true
			}
			ok = i < len(w) && (p[i] == "*" || p[i] == w[i])
		}
		if ok && len(p) == len(w) {
			return true
		}
	}
	return false
}

func TestPermissionToMakeWhatExists(t *testing.T) {
	t.Parallel()
	all := doctor.Config{Role: doctor.Queen}.Permissions()
	pub := slices.DeleteFunc(slices.Clone(all.Publish), func(s string) bool { return strings.Contains(s, "STREAM.CREATE") })
	srv := bustest.Server(t, bustest.User("root", nil, nil), bustest.User("me", pub, all.Subscribe))
	me := bustest.Conn(t, srv, nats.UserInfo("me", "me"))
	list := check(t, me, doctor.Config{Role: doctor.Queen})
	has(t, list, doctor.Fail, doctor.CheckPermission, "STREAM.CREATE.QUEEN_EVENTS")
	if _, err := ledger.Open(t.Context(), bustest.Conn(t, srv, nats.UserInfo("root", "root")), ledger.Config{}); err != nil {
		t.Fatal(err)
	}
	list = check(t, me, doctor.Config{Role: doctor.Queen})
	has(t, list, doctor.Warn, doctor.CheckPermission, "STREAM.CREATE.QUEEN_EVENTS", "it exists")
	if worst(list) != doctor.Warn {
		t.Errorf("a queen would run:\n%s", show(list))
	}
}

func TestMissingPermissionsAreNoTimeouts(t *testing.T) {
	srv := bustest.Server(t, bustest.User("me", []string{"unused"}, []string{"unused"}))
	nc := bustest.Conn(t, srv, nats.UserInfo("me", "me"))
	list := check(t, nc, doctor.Config{Role: doctor.Queen})
	has(t, list, doctor.Fail, doctor.CheckPermission, "subscribe to queen.hives")
	has(t, list, doctor.Warn, doctor.CheckJetStream, "not checked")
	list = check(t, nc, doctor.Config{Role: doctor.Worker})
	has(t, list, doctor.Fail, doctor.CheckPermission, "hive.doctor.workers", "pass the ids")
	list = check(t, nc, doctor.Config{Role: doctor.Worker, Hive: "gpu-01", Worker: "llama"})
	has(t, list, doctor.Fail, doctor.CheckPermission, "hive.gpu-01.workers", "--pinned")
	list = check(t, nc, doctor.Config{Role: doctor.Scheduler})
	has(t, list, doctor.Fail, doctor.CheckPermission, "queen.api.hold", "--asker")
	list = check(t, nc, doctor.Config{Role: doctor.Scheduler, Asker: "ann"})
	has(t, list, doctor.Fail, doctor.CheckPermission, "queen.as.ann.hold", `publish = "queen.as.ann.hold"`)
}

// The refusals that the doctor provokes do not reach the log; those of other clients
// do.
func TestItFillsNoLog(t *testing.T) {
	var buf bytes.Buffer // written under its handler's lock, read after the server's end
	log := slog.New(slog.NewTextHandler(&buf, nil))
	srv, err := embedded.Start(t.Context(), embedded.Config{Logger: log, Options: func(o *embedded.Options) {
		none := &embedded.SubjectPermission{Allow: []string{"unused"}}
		o.Users = []*embedded.User{{Username: "me", Password: "me", Permissions: &embedded.Permissions{Publish: none, Subscribe: none}}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	nc := bustest.Conn(t, srv, nats.UserInfo("me", "me"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	for _, role := range doctor.Roles() {
		has(t, check(t, nc, doctor.Config{Role: role}), doctor.Fail, doctor.CheckPermission)
	}
	if err := nc.Publish("of.somebody.else", nil); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, nc)
	nc.Close()
	bustest.Stop(t, srv)
	if got := buf.String(); strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, "of.somebody.else") {
		t.Errorf("the server logs:\n%s", got)
	}
}

func TestMaxPayload(t *testing.T) {
	small := func(n int32) *nats.Conn {
		return bustest.Conn(t, bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) { o.MaxPayload = n })))
	}
	has(t, check(t, small(4<<10), doctor.Config{Role: doctor.Worker}), doctor.Fail, doctor.CheckPayload, "4096", "max_payload")
	nc := small(32 << 10)
	has(t, check(t, nc, doctor.Config{Role: doctor.Worker}), doctor.OK, doctor.CheckPayload)
	has(t, check(t, nc, doctor.Config{Role: doctor.Hive}), doctor.Warn, doctor.CheckPayload, "32768")
}

func TestSlowLink(t *testing.T) {
	t.Parallel()
	line := bustest.NewProxy(t, bustest.Server(t, bustest.NoJetStream()).URL())
	nc := bustest.Dial(t, line.URL())
	line.Delay(150 * time.Millisecond)
	has(t, check(t, nc, doctor.Config{Role: doctor.Worker}), doctor.Warn, doctor.CheckRoundTrip, "--every")
}

func TestNotConnected(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	bustest.Stop(t, srv)
	list := check(t, nc, doctor.Config{Role: doctor.Worker})
	has(t, list, doctor.Fail, doctor.CheckConnection, "no servers", "hivebeat up")
	if len(list) != 1 {
		t.Errorf("what can it say beyond that?\n%s", show(list))
	}
}

func TestEndsWithContext(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := doctor.Check(ctx, nc, doctor.Config{Role: doctor.Worker}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A queen does not answer to inboxes with a prefix that it does not accept.
func TestInboxPrefixOfItsOwn(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream())
	queen := bustest.Conn(t, srv)
	if _, err := queen.SubscribeSync("queen.api.summary"); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, queen)
	nc := bustest.Conn(t, srv, nats.CustomInboxPrefix("_INBOX_ops"))
	has(t, check(t, nc, doctor.Config{Role: doctor.Viewer}), doctor.Warn, doctor.CheckQueen, "no answer", "--inbox-prefix _INBOX_ops")
}

// An event stream that is too small for the fleet is reported if a queen reports the
// size of the fleet.
func TestEventsOfTheFleetDoNotFit(t *testing.T) {
	srv := bustest.Server(t)
	queen := bustest.Conn(t, srv)
	if _, err := queen.Subscribe("queen.api.summary", func(m *nats.Msg) { _ = m.Respond([]byte(`{"summary":{"workers":{"alive":99000,"lost":1000}}}`)) }); err != nil {
		t.Fatal(err)
	}
	bustest.Flush(t, queen)
	nc := bustest.Conn(t, srv)
	has(t, check(t, nc, doctor.Config{Role: doctor.Queen}), doctor.Warn, doctor.CheckStored, "has 64 MiB", "all 100000 workers", "--events-max")
	if list := only(check(t, nc, doctor.Config{Role: doctor.Queen, EventsMax: 1 << 30}), doctor.CheckStored); worst(list) != doctor.OK {
		t.Errorf("1 GiB is not enough:\n%s", show(list))
	}
}

// Two processes with one id are reported while both run.
func TestConflicts(t *testing.T) {
	srv := bustest.Server(t, bustest.NoJetStream())
	queen := bustest.Conn(t, srv)
	for verb, answer := range map[string]string{
		"summary": `{"status":{"queen":"q-1","warm":true}}`,
		"events": `{"events":[
			{"subject":"gpu-01/w","data":{"hive":"gpu-01","worker":"w","kind":"conflict","reason":"two workers: pid 5 from 192.0.2.1:7, pid 6; stop one of them, or give it another id"}},
			{"subject":"gpu-01/w","data":{"hive":"gpu-01","worker":"w","kind":"conflict","reason":"told before"}},
			{"subject":"gpu-02","data":{"hive":"gpu-02","kind":"conflict","reason":"it is over"}}]}`,
		"worker": `{"workers":[{"worker":"w","rival":7}]}`,
		"hive":   `{"hives":[{"hive":"gpu-02"}]}`,
	} {
		if _, err := queen.Subscribe("queen.api."+verb, func(m *nats.Msg) { _ = m.Respond([]byte(answer)) }); err != nil {
			t.Fatal(err)
		}
	}
	bustest.Flush(t, queen)
	list := only(check(t, bustest.Conn(t, srv), doctor.Config{Role: doctor.Viewer}), doctor.CheckConflict)
	has(t, list, doctor.Warn, doctor.CheckConflict, "pid 5 from 192.0.2.1:7, pid 6\nstop one")
	if len(list) != 1 {
		t.Errorf("%s", show(list))
	}
}

func TestConfig(t *testing.T) {
	for field, cfg := range map[string]doctor.Config{
		"Config.Role":   {Role: "king"},
		"Config.Hive":   {Role: doctor.Hive, Hive: "a.b"},
		"Config.Worker": {Role: doctor.Worker, Worker: ">"},
	} {
		nc := bustest.Conn(t, bustest.Server(t, bustest.NoListen()))
		if _, err := doctor.Check(t.Context(), nc, cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := doctor.Check(t.Context(), nil, doctor.Config{Role: doctor.Worker}); err == nil {
		t.Error("no error for a nil connection")
	}
}

// lenient is a minimal server that permits everything.
type lenient struct{ heard chan string }

func (l lenient) InProcessConn() (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		fmt.Fprint(server, `INFO {"server_id":"x","version":"2.14.9","max_payload":1048576,"headers":true}`+"\r\n")
		for in := bufio.NewScanner(server); in.Scan(); {
			if verb, rest, _ := strings.Cut(in.Text(), " "); verb == "PUB" {
				l.heard <- rest
			}
			if in.Text() == "PING" {
				fmt.Fprint(server, "PONG\r\n")
			}
		}
	}()
	return client, nil
}

// If the server does not refuse the reserved reply subject, nothing is published to a
// real subject.
func TestServerThatRefusesNothing(t *testing.T) {
	bustest.Bubble(t, func(t *testing.T) {
		srv := lenient{make(chan string, 100)}
		nc, err := nats.Connect("", nats.InProcessServer(srv))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		list := check(t, nc, doctor.Config{Role: doctor.Hive, Hive: "gpu-01"})
		has(t, list, doctor.Warn, doctor.CheckPermission, "cannot check the permissions")
		close(srv.heard)
		for s := range srv.heard {
			if !strings.HasPrefix(s, "hivebeat.doctor.") {
				t.Errorf("published to %s", s)
			}
		}
	})
}
