package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// fleet is what fake queens watch: hives with the revision of their last change.
type fleet struct {
	mu      sync.Mutex
	rev     int
	hives   map[string]int
	changed chan struct{}
	done    <-chan struct{} // the test ends
}

func newFleet(t *testing.T) *fleet {
	return &fleet{hives: map[string]int{}, changed: make(chan struct{}), done: t.Context().Done()}
}

func (f *fleet) touch(hive string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	f.hives[hive] = f.rev
	close(f.changed)
	f.changed = make(chan struct{})
}

// watchedBy answers watches as a queen with this id does.
func (f *fleet) watchedBy(id string) func(asked) *api.Answer {
	return func(q asked) *api.Answer {
		over := time.After(q.req.Wait.Duration())
		for {
			f.mu.Lock()
			a := f.since(id, q.req.After)
			changed := f.changed
			f.mu.Unlock()
			if len(a.Hives) > 0 || a.Resync != "" || q.req.After == "" {
				return a
			}
			select {
			case <-changed:
			case <-over:
				return a
			case <-f.done:
				return nil
			}
		}
	}
}

func (f *fleet) since(id, cursor string) *api.Answer {
	queen, text, _ := strings.Cut(cursor, ".")
	after, _ := strconv.Atoi(text)
	a := &api.Answer{Next: fmt.Sprintf("%s.%d", id, f.rev)}
	if cursor != "" && queen != id {
		a.Resync, after = "the cursor is of another queen, "+queen, 0
	}
	for rev := after + 1; rev <= f.rev; rev++ {
		for h, of := range f.hives {
			if of == rev {
				a.Hives = append(a.Hives, api.HiveInfo{Hive: h, Seq: uint64(rev)})
			}
		}
	}
	return a
}

func idsOf(a Changes) string {
	var ids []string
	for _, h := range a.Hives {
		ids = append(ids, h.Hive)
	}
	return strings.Join(ids, " ")
}

// pull turns a watch into a function that returns its next answer.
func pull(t *testing.T, all iter.Seq2[Changes, error]) func() (Changes, error) {
	t.Helper()
	next, stop := iter.Pull2(all)
	t.Cleanup(stop)
	return func() (Changes, error) {
		t.Helper()
		a, err, ok := next()
		if !ok {
			t.Fatal("the watch ended")
		}
		return a, err
	}
}

// must returns the next answer that reports something.
func must(t *testing.T, next func() (Changes, error)) Changes {
	t.Helper()
	for {
		a, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Hives) > 0 || a.Resync != "" {
			return a
		}
	}
}

// First comes everything, then the changes. A slow caller gets the changes since its
// last answer in one, because Watch asks for nothing until the caller wants more. A
// cursor continues later.
func TestWatch(t *testing.T) {
	srv := server(t)
	fleet := newFleet(t)
	fleet.touch("a")
	fleet.touch("b")
	f := serveFake(t, srv, "q1", "", fleet.watchedBy("q1"))
	c := newClient(t, srv, Config{})
	next := pull(t, c.Watch(t.Context(), WatchQuery{Filter: api.Filter{Zone: "eu"}}))
	if a := must(t, next); idsOf(a) != "a b" || a.Status.Queen != "q1" {
		t.Errorf("first %+v", a)
	}
	asked := len(f.questions())
	for i := range 1000 { // the caller is busy
		fleet.touch("h" + strconv.Itoa(i%3))
	}
	if n := len(f.questions()); n != asked {
		t.Errorf("it asked %d times while the caller was busy", n-asked)
	}
	a := must(t, next)
	if len(a.Hives) != 3 || a.Cursor != "q1.1002" {
		t.Errorf("then %+v", a)
	}
	for _, q := range f.questions() {
		if q.req.Zone != "eu" {
			t.Errorf("asked without the filter: %+v", q)
		}
	}
	next = pull(t, c.Watch(t.Context(), WatchQuery{After: a.Cursor}))
	fleet.touch("b")
	if a := must(t, next); idsOf(a) != "b" || a.Resync != "" {
		t.Errorf("after a cursor %+v", a)
	}
}

// An answer comes even if nothing changed, and says how sure the queen is.
func TestWatchWhereNothingChanges(t *testing.T) {
	srv := server(t)
	serveFake(t, srv, "q1", "", newFleet(t).watchedBy("q1"))
	c := newClient(t, srv, Config{})
	next := pull(t, c.Watch(t.Context(), WatchQuery{Wait: time.Millisecond}))
	for range 5 {
		if a, err := next(); err != nil || a.Status.Queen != "q1" || len(a.Hives) > 0 {
			t.Errorf("%+v %v", a, err)
		}
	}
}

// A watch stays with its queen, because others do not know its cursors. When that queen
// is gone, another takes over and tells the watcher to resync.
func TestWatchFollowsItsQueen(t *testing.T) {
	srv := server(t)
	fleet := newFleet(t)
	fleet.touch("a")
	q1 := serveFake(t, srv, "q1", "", fleet.watchedBy("q1"))
	c := newClient(t, srv, Config{})
	next := pull(t, c.Watch(t.Context(), WatchQuery{}))
	must(t, next)
	q2 := serveFake(t, srv, "q2", "", fleet.watchedBy("q2"))
	for i := range 20 {
		fleet.touch("a")
		if a := must(t, next); a.Resync != "" || a.Status.Queen != "q1" {
			t.Fatalf("change %d: %+v", i, a)
		}
	}
	if n := len(q2.questions()); n != 0 {
		t.Errorf("the other queen was asked %d times", n)
	}
	q1.leave(t)
	fleet.touch("b")
	a := must(t, next)
	if a.Resync == "" || a.Status.Queen != "q2" || idsOf(a) != "a b" {
		t.Errorf("at the other queen %+v", a)
	}
	fleet.touch("c")
	if a := must(t, next); a.Resync != "" || idsOf(a) != "c" {
		t.Errorf("and then %+v", a)
	}
}

// A queen that is present but does not answer is left for another.
func TestWatchLeavesAQueenThatIsSilent(t *testing.T) {
	srv := server(t)
	fleet := newFleet(t)
	fleet.touch("a")
	q1 := serveFake(t, srv, "q1", "", fleet.watchedBy("q1"))
	c := newClient(t, srv, Config{Timeout: 100 * time.Millisecond})
	next := pull(t, c.Watch(t.Context(), WatchQuery{Wait: time.Millisecond}))
	must(t, next)
	q1.mu.Lock()
	q1.gone = true // it receives, and is silent
	q1.mu.Unlock()
	serveFake(t, srv, "q2", "", fleet.watchedBy("q2"))
	for {
		a, err := next()
		if err != nil { // NATS may choose the silent queen several times
			if !errors.Is(err, ErrNoAnswer) {
				t.Fatal(err)
			}
			continue
		}
		if a.Status.Queen == "q2" {
			if a.Resync == "" || idsOf(a) != "a" {
				t.Errorf("%+v", a)
			}
			return
		}
	}
}

// If there is no queen, the watch says so, and continues when one comes.
func TestWatchWithoutAQueen(t *testing.T) {
	srv := server(t)
	c := newClient(t, srv, Config{})
	fleet := newFleet(t)
	fleet.touch("a")
	next := pull(t, c.Watch(t.Context(), WatchQuery{}))
	for range 3 {
		if a, err := next(); !errors.Is(err, ErrNoQueen) || a.Cursor != "" {
			t.Errorf("%+v %v", a, err)
		}
	}
	serveFake(t, srv, "q1", "", fleet.watchedBy("q1"))
	bustest.Eventually(t, patience, func() (bool, string) {
		a, err := next()
		if err == nil {
			return idsOf(a) == "a", idsOf(a)
		}
		return false, err.Error()
	})
}

// An error that does not pass ends a watch.
func TestWatchEnds(t *testing.T) {
	srv := server(t)
	code := api.CodeBadRequest
	f := serveFake(t, srv, "q1", "", func(asked) *api.Answer { return &api.Answer{Error: &api.Error{Code: code, Message: "no"}} })
	c := newClient(t, srv, Config{})
	n := 0
	for a, err := range c.Watch(t.Context(), WatchQuery{}) {
		n++
		if !errors.Is(err, ErrBadRequest) || a.Status.Queen != "q1" {
			t.Errorf("%+v %v", a, err)
		}
	}
	if n != 1 || len(f.questions()) != 1 {
		t.Errorf("told %d times, asked %d times", n, len(f.questions()))
	}

	code = api.CodeUnavailable
	n = 0
	for _, err := range c.Watch(t.Context(), WatchQuery{}) {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
		if n++; n == 3 {
			break
		}
	}

	// So does the end of its context, while it waits.
	srv2 := server(t)
	fleet := newFleet(t)
	serveFake(t, srv2, "q1", "", fleet.watchedBy("q1"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n = 0
	for a, err := range newClient(t, srv2, Config{}).Watch(ctx, WatchQuery{Wait: time.Hour}) {
		if err != nil {
			t.Errorf("%+v %v", a, err)
		}
		n++
		cancel()
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
	fleet.touch("a") // releases the answer of the fake
}
