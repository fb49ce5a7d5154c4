package hivecore

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/sample"
)

// The last snapshot that a queen kept is worth something if it is whole, and of a hive
// that was warm.
func TestRecall(t *testing.T) {
	page := func(n, of uint64, change func(*hivebeat.Snapshot)) []byte {
		lost := sample.Record(fmt.Sprint("lost", n))
		lost.Live, lost.Cause = hivebeat.Lost, hivebeat.CauseMissed
		s := sample.Snapshot(sample.Hive, 1, 9, sample.Record(fmt.Sprint("w", n)), lost)
		s.Page, s.Pages = n, of
		if change != nil {
			change(s)
		}
		return sample.Encode(t, s)
	}
	for _, c := range []struct {
		name  string
		pages [][]byte
		taken bool
	}{
		{"one page", [][]byte{page(0, 1, nil)}, true},
		{"two pages", [][]byte{page(0, 2, nil), page(1, 2, nil)}, true},
		{"the second is missing", [][]byte{page(0, 2, nil)}, false},
		{"the first is missing", [][]byte{page(1, 2, nil), page(0, 2, nil)}, false},
		{"not warm", [][]byte{page(0, 1, func(s *hivebeat.Snapshot) { s.Warm = false })}, false},
		{"of another hive", [][]byte{page(0, 1, func(s *hivebeat.Snapshot) { s.Hive = "other" })}, false},
		{"of two snapshots", [][]byte{page(0, 2, nil), page(1, 2, func(s *hivebeat.Snapshot) { s.Seq++ })}, false},
		{"of two lives", [][]byte{page(0, 2, nil), page(1, 2, func(s *hivebeat.Snapshot) { s.Inc++ })}, false},
		{"of another number of pages", [][]byte{page(0, 2, nil), page(1, 3, nil)}, false},
		{"garbage", [][]byte{{0xdf, 0xff, 0xff, 0xff, 0xff}}, false},
		{"good after garbage", [][]byte{{}, page(0, 1, nil)}, false},
	} {
		r := newRig(t, Config{})
		for i, p := range c.pages {
			more := r.Recall(p)
			if last := i == len(c.pages)-1; more && last && c.name != "the second is missing" || !more && !last && c.taken {
				t.Errorf("%s: wants more after page %d: %t", c.name, i, more)
			}
		}
		r.up()
		if n := r.said(slog.LevelInfo, "knows its last snapshot"); (n == 1) != c.taken {
			t.Errorf("%s: taken %d times, want %t", c.name, n, c.taken)
		}
		for i := range c.pages {
			if r.Figures(r.now).Warm {
				t.Errorf("%s: warm before all were heard", c.name)
			}
			r.beat(newFake(fmt.Sprint("w", i)))
		}
		if warm := r.Figures(r.now).Warm; warm != c.taken {
			t.Errorf("%s: warm %t, want %t", c.name, warm, c.taken)
		}
		r.pass(detector.WarmAfter)
		if !r.Figures(r.now).Warm {
			t.Errorf("%s: not warm after %v", c.name, detector.WarmAfter)
		}
	}
}
