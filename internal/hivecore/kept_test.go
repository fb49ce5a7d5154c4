package hivecore

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/sampletest"
)

// The last snapshot that a queen stored warms the hive if it is complete, and from a
// hive that was warm.
func TestRecall(t *testing.T) {
	page := func(n, of uint64, change func(*hivebeat.Snapshot)) ledger.Entry {
		lost := sampletest.Record(fmt.Sprint("lost", n))
		lost.Live, lost.Cause = hivebeat.Lost, hivebeat.CauseMissed
		s := sampletest.Snapshot(sampletest.Hive, 1, 9, sampletest.Record(fmt.Sprint("w", n)), lost)
		s.Page, s.Pages = n, of
		if change != nil {
			change(s)
		}
		return ledger.Entry{Payload: sampletest.Encode(t, s), Stored: 3 * time.Second, TTL: 40 * time.Second} // received 5 s before it was stored
	}
	for _, c := range []struct {
		name  string
		pages []ledger.Entry
		whole bool // complete, and read in full
		warms bool
		gone  int // workers in the list that are gone
	}{
		{"one page", []ledger.Entry{page(0, 1, nil)}, true, true, 1},
		{"two pages", []ledger.Entry{page(0, 2, nil), page(1, 2, nil)}, true, true, 2},
		{"the second is missing", []ledger.Entry{page(0, 2, nil)}, false, false, 1},
		{"the first is missing", []ledger.Entry{page(1, 2, nil), page(0, 2, nil)}, false, false, 0},
		{"not warm", []ledger.Entry{page(0, 1, func(s *hivebeat.Snapshot) { s.Warm = false })}, true, false, 1},
		{"of another hive", []ledger.Entry{page(0, 1, func(s *hivebeat.Snapshot) { s.Hive = "other" })}, false, false, 0},
		{"of two snapshots", []ledger.Entry{page(0, 2, nil), page(1, 2, func(s *hivebeat.Snapshot) { s.Seq++ })}, false, false, 1},
		{"of two lives", []ledger.Entry{page(0, 2, nil), page(1, 2, func(s *hivebeat.Snapshot) { s.Inc++ })}, false, false, 1},
		{"of another number of pages", []ledger.Entry{page(0, 2, nil), page(1, 3, nil)}, false, false, 1},
		{"garbage", []ledger.Entry{{Payload: []byte{0xdf, 0xff, 0xff, 0xff, 0xff}}}, false, false, 0},
		{"good after garbage", []ledger.Entry{{}, page(0, 1, nil)}, false, false, 0},
	} {
		r := newRig(t, Config{})
		for i := range c.pages {
			more := r.Recall(r.now, &c.pages[i])
			if last := i == len(c.pages)-1; more && last && c.name != "the second is missing" || !more && !last && c.whole {
				t.Errorf("%s: wants more after page %d: %t", c.name, i, more)
			}
		}
		r.up()
		if n := r.said(slog.LevelInfo, "recalled the last snapshot"); (n == 1) != c.whole {
			t.Errorf("%s: taken %d times, want %t", c.name, n, c.whole)
		}
		if n := r.Figures(r.now).Workers; n != c.gone {
			t.Errorf("%s: %d workers are in the list before one is heard, want %d", c.name, n, c.gone)
		}
		for i := range c.gone {
			if rec, ok := r.Record(r.now, fmt.Sprint("lost", i)); !ok || rec.Live != hivebeat.Lost || rec.Since < 108_000 || rec.Since > 110_000 {
				t.Errorf("%s: lost%d is %+v, %t", c.name, i, rec, ok)
			}
		}
		for i := range c.pages {
			if r.Figures(r.now).Warm {
				t.Errorf("%s: warm before all were heard", c.name)
			}
			r.beat(newFake(fmt.Sprint("w", i)))
		}
		if warm := r.Figures(r.now).Warm; warm != c.warms {
			t.Errorf("%s: warm %t, want %t", c.name, warm, c.warms)
		}
		r.pass(detector.WarmAfter)
		if !r.Figures(r.now).Warm {
			t.Errorf("%s: not warm after %v", c.name, detector.WarmAfter)
		}
	}
}
