package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/sampletest"
	"github.com/beatfabric/hivebeat/queen"
	"github.com/beatfabric/hivebeat/queen/api"
)

// documented adds the users from docs/OPERATIONS.md, each with its name as password,
// and root, which has all permissions.
func documented(t *testing.T) bustest.Option {
	t.Helper()
	doc, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, marked := strings.Cut(string(doc), "<!-- test: permissions -->\n```\n")
	users, _, closed := strings.Cut(rest, "```")
	if !marked || !closed {
		t.Fatal("OPERATIONS.md shows no users")
	}
	users = strings.NewReplacer("$VIEWER", "viewer", "$ANN", "ann").Replace(users)
	return bustest.Configure(func(o *embedded.Options) {
		if err := o.ProcessConfigString(users); err != nil {
			t.Fatal(err)
		}
		o.Users = append(o.Users, &embedded.User{Username: "root", Password: "root"})
	})
}

// violations collects the permission errors of a connection.
type violations struct {
	mu    sync.Mutex
	texts []string
}

func (v *violations) took(text string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.texts, func(s string) bool { return strings.Contains(s, text) })
	if i >= 0 {
		v.texts = slices.Delete(v.texts, i, i+1)
	}
	return i >= 0
}

func (v *violations) all() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.texts)
}

// login connects as a user.
func login(t *testing.T, srv *embedded.Server, user string) (*nats.Conn, *violations) {
	t.Helper()
	v := &violations{}
	return bustest.Conn(t, srv, nats.UserInfo(user, user), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.texts = append(v.texts, err.Error())
	})), v
}

// queens runs q1, q2 and q3, which have heard a hive with workers of one slot each.
func queens(t *testing.T, workers int, dial func(id string) *nats.Conn) map[string]*queen.Queen {
	t.Helper()
	s := sampletest.Snapshot("h", 1, 0)
	s.Every = 3_600_000
	for i := range workers {
		w := sampletest.Record(fmt.Sprintf("w%03d", i))
		w.Slots, w.Every = 1, 3_600_000
		s.Workers = append(s.Workers, w)
	}
	all := map[string]*queen.Queen{}
	for _, id := range []string{"q1", "q2", "q3"} {
		nc := dial(id)
		q, err := queen.New(nc, queen.Config{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- q.Run(context.Background()) }()
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := errors.Join(q.Stop(ctx), <-done); err != nil {
				t.Error(err)
			}
		})
		all[id] = q
	}
	nc := dial("hive")
	for id, q := range all {
		bustest.Eventually(t, patience, func() (bool, string) {
			s.Seq++
			if err := nc.Publish(hivebeat.Subjects{}.Hives(), sampletest.Encode(t, s)); err != nil {
				t.Fatal(err)
			}
			a := q.Answer(t.Context(), api.VerbSummary, api.Request{})
			ready := a.Status.Warm && len(a.Status.Unsure) == 0 && a.Summary.Workers[hivebeat.Alive] == workers
			_, err := nc.Request(hivebeat.Subjects{}.Ask("", api.VerbSummary, id), nil, patience)
			return ready && err == nil, fmt.Sprintf("%s: %+v, %v", id, a, err)
		})
	}
	return all
}

func as(t *testing.T, nc *nats.Conn, asker string) *Client {
	t.Helper()
	c, err := New(nc, Config{Asker: asker, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// With the permissions of docs/OPERATIONS.md a viewer can read but not hold, and ann
// can hold only in her own name.
func TestReadsAndHoldsAreSeparateRights(t *testing.T) {
	srv := bustest.Server(t, documented(t))
	all := queens(t, 2, func(string) *nats.Conn { nc, _ := login(t, srv, "root"); return nc })
	held := func() (list []string) {
		for _, h := range all["q1"].Answer(t.Context(), api.VerbHolds, api.Request{}).Holds {
			list = append(list, h.Asker+"/"+h.ID)
		}
		return list
	}
	holds := func(want ...string) {
		t.Helper()
		bustest.Eventually(t, patience, func() (bool, string) { return slices.Equal(held(), want), fmt.Sprint(held()) })
	}

	ann, hers := login(t, srv, "ann")
	anns := as(t, ann, "ann")
	a, err := anns.Hold(t.Context(), HoldRequest{ID: "job", Duration: 10 * time.Minute})
	if err != nil || len(a.Places) != 1 || a.Status.Asker != "ann" || a.Places[0].Asker != "ann" {
		t.Fatalf("%+v, %v", a, err)
	}
	place := a.Places[0].Worker
	holds("ann/job")

	// A viewer reads, also from one queen alone, and follows it.
	nc, his := login(t, srv, "viewer")
	viewer := as(t, nc, "").Follow()
	for _, verb := range api.Verbs() {
		r := map[string]api.Request{api.VerbHive: {Hive: "h"}, api.VerbWorker: {Hive: "h", Worker: "w000"}}[verb]
		if api.Acts(verb) {
			continue
		}
		if a, err := viewer.Ask(t.Context(), verb, r); err != nil || len(a.Status.Unsure) != 0 || a.Status.Asker != api.Anyone {
			t.Errorf("%s: %+v, %v", verb, a, err)
		}
	}
	for a, err := range viewer.Watch(t.Context(), WatchQuery{Wait: time.Millisecond}) {
		if err != nil {
			t.Fatal(err)
		}
		if !a.More && len(a.Hives) == 0 { // nothing new: the request went to the followed queen
			break
		}
	}
	if all := his.all(); len(all) != 0 {
		t.Errorf("a viewer is refused %q", all)
	}

	// The viewer can change nothing, on any subject.
	refused := func(who string, v *violations, c *Client, subject string) {
		t.Helper()
		c.timeout = 50 * time.Millisecond // a refused request has no answer
		for verb, ask := range map[string]func() error{
			api.VerbHold:    func() error { _, err := c.Hold(t.Context(), HoldRequest{ID: "job"}); return err },
			api.VerbRelease: func() error { _, err := c.Release(t.Context(), "job"); return err },
			api.VerbForget:  func() error { _, err := c.Forget(t.Context(), "h", "GPU-3"); return err },
			api.VerbDrain:   func() error { _, err := c.Drain(t.Context(), DrainRequest{Place: Place{Hive: "h"}}); return err },
			api.VerbSilence: func() error {
				_, err := c.Silence(t.Context(), SilenceRequest{Place: Place{Hive: "h"}})
				return err
			},
			api.VerbUnsilence: func() error { _, err := c.Unsilence(t.Context(), Place{Hive: "h"}); return err },
			api.VerbUndrain:   func() error { _, err := c.Undrain(t.Context(), Place{Hive: "h"}); return err },
		} {
			at := strings.ReplaceAll(subject, "VERB", verb)
			if c.followed != nil {
				c.followed.mute = false
			}
			if err := ask(); !errors.Is(err, ErrNoAnswer) {
				t.Errorf("%s at %s: %v", who, at, err)
			}
			bustest.Eventually(t, patience, func() (bool, string) {
				return v.took(fmt.Sprintf("Permissions Violation for Publish to %q", at)), fmt.Sprint(at, ": ", v.all())
			})
		}
		holds("ann/job")
	}
	refused("a viewer", his, as(t, nc, ""), "queen.api.VERB")
	addressed := as(t, nc, "").Follow()
	s, err := addressed.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refused("a viewer", his, addressed, "queen.api.VERB."+s.Status.Queen)
	refused("a viewer", his, as(t, nc, "ann"), "queen.as.ann.VERB")
	refused("a viewer", his, as(t, nc, "anyone"), "queen.as.anyone.VERB")

	// Nor can ann in another name, or without one.
	refused("ann", hers, as(t, ann, "bob"), "queen.as.bob.VERB")
	refused("ann", hers, as(t, ann, ""), "queen.api.VERB")
	asBob := as(t, ann, "bob")
	asBob.timeout = 50 * time.Millisecond
	if _, err := asBob.Summary(t.Context()); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("%v", err)
	}
	bustest.Eventually(t, patience, func() (bool, string) { return hers.took(`Publish to "queen.as.bob.summary"`), fmt.Sprint(hers.all()) })

	// Another asker that may hold cannot touch ann's hold: bob's job is a different one.
	root, _ := login(t, srv, "root")
	bob := as(t, root, "bob")
	if _, err := bob.Release(t.Context(), "job"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	b, err := bob.Hold(t.Context(), HoldRequest{ID: "job", PickRequest: PickRequest{N: 2}})
	if err != nil || len(b.Places) != 1 || b.Places[0].Worker == place {
		t.Errorf("%+v, %v", b, err)
	}
	holds("ann/job", "bob/job")
	if _, err := anns.Release(t.Context(), "job"); err != nil {
		t.Error(err)
	}
	holds("bob/job")
}

// One of three real queens gives all answers of a view, each in one round trip. If it
// is present but answers nothing, as if stopped, another takes over, and the answer
// says so.
func TestAViewOfThreeQueens(t *testing.T) {
	srv := bustest.Server(t)
	lines := map[string]*bustest.Proxy{}
	const workers = 30
	queens(t, workers, func(id string) *nats.Conn {
		lines[id] = bustest.NewProxy(t, srv.URL())
		return bustest.Dial(t, lines[id].URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	})
	c := as(t, bustest.Conn(t, srv), "").Follow()
	c.again = time.Hour // no request is sent twice, however slow the machine is
	view := func() (queen string) {
		t.Helper()
		before, questions := c.nc.Stats().OutMsgs, uint64(1)
		a, err := c.Summary(t.Context())
		if err != nil || a.Workers[hivebeat.Alive] != workers {
			t.Fatalf("%+v, %v", a, err)
		}
		queen, n := a.Status.Queen, 0
		for page, err := range c.WorkerPages(t.Context(), Query{PageSize: 7}) {
			questions++
			if err != nil || page.Status.Queen != queen || len(page.Status.Unsure) != 0 {
				t.Errorf("%+v, %v", page.Status, err)
			}
			n += len(page.Rows)
		}
		if sent := c.nc.Stats().OutMsgs - before; n != workers || questions != 6 || sent != questions {
			t.Errorf("%d workers, %d questions, %d requests", n, questions, sent)
		}
		return queen
	}
	first := view()
	if again := view(); again != first {
		t.Errorf("%s, and then %s", first, again)
	}

	lines[first].Stall()
	defer lines[first].Resume()
	c.again = 20 * time.Millisecond // the mute queen still gets some of the requests
	a, err := c.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := a.Status.Queen
	if why := "queen " + first + " did not answer, queen " + second + " did"; second == first || !slices.Equal(a.Status.Unsure, []string{why}) {
		t.Errorf("%+v, want %q", a.Status, why)
	}
	c.again = time.Hour
	if again := view(); again != second {
		t.Errorf("%s, and then %s", second, again)
	}
}
