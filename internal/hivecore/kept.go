package hivecore

import (
	"log/slog"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// kept is the reading state of the last snapshot that a queen stored for this hive.
type kept struct {
	read            uint64 // pages
	inc, seq, pages uint64 // of the first page
	warm            bool
	over            bool
}

// Recall handles the next page of the last snapshot that a queen stored for this hive,
// and reports whether to read another. All pages come before other inputs. The core
// takes each record as true, and workers that were gone stay in the list. The hive
// becomes warm once it has heard all workers that were present then, instead of after
// detector.WarmAfter. That requires a complete snapshot, from a hive that was warm
// itself.
func (c *Core) Recall(now time.Time, page *ledger.Entry) (more bool) {
	k := &c.kept
	if k.over {
		return false
	}
	k.over = true // unless another page is needed
	var v wire.SnapshotView
	if err := wire.ParseSnapshot(page.Payload, &v); err != nil {
		return false
	}
	if k.read == 0 {
		k.inc, k.seq, k.pages, k.warm = v.Inc, v.Seq, v.Pages, v.Warm
	}
	if string(v.Hive) != c.cfg.ID || v.Page != k.read || v.Inc != k.inc || v.Seq != k.seq || v.Pages != k.pages {
		return false
	}
	age := page.Age(hivebeat.Millis(v.Every).Duration())
	for i := range v.Workers {
		var rec hivebeat.Record
		v.Workers[i].Update(&rec)
		if rec.Host == "" { // the snapshot has it once for all workers
			rec.Host = string(v.Host.Name)
		}
		c.reg.Recall(now, &rec, age)
	}
	if k.read++; k.read < k.pages {
		k.over = false
		return true
	}
	if k.warm {
		c.reg.RecalledAll()
	}
	there, _ := c.reg.Expected()
	c.logs.Add(slog.LevelInfo, "recalled the last snapshot", slog.Int("workers", there), slog.Int("gone", c.reg.Len()), slog.Bool("warm", k.warm))
	return false
}
