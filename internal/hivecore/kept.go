package hivecore

import (
	"log/slog"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// kept is the last snapshot that a queen kept of this hive, as far as it was read.
type kept struct {
	read            uint64 // pages
	inc, seq, pages uint64 // of the first one
	workers         []string
	over            bool
}

// Recall takes the next page of the last snapshot that a queen kept of this hive, and
// reports whether there is one more to read. It comes before all other inputs. A hive
// that has heard all workers which are not given up there is warm; without it that takes
// detector.WarmAfter. The snapshot is worth something only if it is whole, and of a hive
// that was warm itself.
func (c *Core) Recall(page []byte) (more bool) {
	k := &c.kept
	if k.over {
		return false
	}
	k.over = true // unless one more is wanted
	var v wire.SnapshotView
	if err := wire.ParseSnapshot(page, &v); err != nil {
		return false
	}
	if k.read == 0 {
		k.inc, k.seq, k.pages = v.Inc, v.Seq, v.Pages
	}
	if string(v.Hive) != c.cfg.ID || !v.Warm || v.Page != k.read || v.Inc != k.inc || v.Seq != k.seq || v.Pages != k.pages {
		return false
	}
	for i := range v.Workers {
		if w := &v.Workers[i]; string(w.Live) != string(hivebeat.Lost) && string(w.Live) != string(hivebeat.Left) {
			k.workers = append(k.workers, string(w.Worker))
		}
	}
	if k.read++; k.read < k.pages {
		k.over = false
		return true
	}
	c.reg.Expect(k.workers)
	c.logs.Add(slog.LevelInfo, "knows its last snapshot", slog.Int("workers", len(k.workers)))
	k.workers = nil
	return false
}
