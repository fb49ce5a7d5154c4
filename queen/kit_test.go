package queen

import (
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/fleet"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/internal/sampletest"
	"github.com/beatfabric/hivebeat/internal/wire"
	"github.com/beatfabric/hivebeat/queen/api"
)

// Messages for tests.
var (
	at            = sampletest.At
	snapshotOf    = sampletest.Snapshot
	workerOf      = sampletest.Record
	encode        = sampletest.Encode
	fleetSnapshot = sampletest.Machine
)

// view is a fleet with its queries, without a queen.
type view struct{ *fleet.View }

// answer answers as a queen does, without the status.
func (v view) answer(verb string, r api.Request, now time.Time) api.Answer {
	if e := query.Check(verb, &r); e != nil {
		return api.Answer{Error: e}
	}
	v.Settle(now)
	if verb == api.VerbHives || verb == api.VerbWorkers {
		job := query.Page(verb, r)
		for !job.Step(v.View.Index(), now) {
		}
		return job.Answer()
	}
	return query.One(v.View.Index(), verb, &r, now)
}

func (v view) summary(now time.Time) api.Summary {
	v.Settle(now)
	return query.Summary(v.View.Index())
}

// feed encodes s, decodes it as received, and applies it to v.
func feed(t testing.TB, v view, s *hivebeat.Snapshot, now time.Time) error {
	t.Helper()
	var page wire.SnapshotView
	if err := wire.ParseSnapshot(encode(t, s), &page); err != nil {
		t.Fatalf("the test's own snapshot: %v", err)
	}
	return v.Apply(&page, now)
}

func mustFeed(t testing.TB, v view, s *hivebeat.Snapshot, now time.Time) {
	t.Helper()
	if err := feed(t, v, s, now); err != nil {
		t.Fatalf("%s %d.%d page %d: %v", s.Hive, s.Inc, s.Seq, s.Page, err)
	}
}

func newView(fresh time.Duration) view { return view{fleet.New(fresh)} }

// pagesOf splits s into n pages.
func pagesOf(s *hivebeat.Snapshot, n int) []*hivebeat.Snapshot {
	pages := make([]*hivebeat.Snapshot, n)
	for i := range n {
		p := *s
		p.Page, p.Pages = uint64(i), uint64(n)
		p.Workers = s.Workers[i*len(s.Workers)/n : (i+1)*len(s.Workers)/n]
		pages[i] = &p
	}
	return pages
}
