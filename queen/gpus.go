package queen

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/gpu"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/internal/ledger"
	"github.com/beatfabric/hivebeat/internal/query"
	"github.com/beatfabric/hivebeat/queen/api"
)

// forgetGPU answers the verb forget: it asks the hive to remove a GPU. Whether the hive does is in its next
// snapshot, and in the event gpu-forgotten.
func (q *Queen) forgetGPU(ctx context.Context, asker string, r api.Request) api.Answer {
	return q.look(ctx, func(time.Time) api.Answer {
		a := query.Forget(q.view.Index(), &r)
		if a.Error == nil {
			q.publish(q.subjects.HiveRollcallOf(r.Hive), hivebeat.Forget{GPU: r.GPU, Asker: asker}.Append(nil))
		}
		return a
	})
}

// The roster remembers the GPUs of each hive (gpu.Memory), so that one that disappears while its hive or machine
// restarts is gone and not forgotten. All queens derive the same from the same snapshots. A queen that finds that a
// hive reports other GPUs or states waits for a short random time, and reads first: so usually one queen writes.
const (
	gpusLook   = 250 * time.Millisecond // between two looks at some hives
	gpusHives  = 512                    // how many hives one look takes
	gpusSpread = 2 * time.Second        // the longest wait before a write
	gpusPause  = 5 * time.Second        // least time between two writes for one hive
	gpusAgain  = 20 * time.Hour         // an entry that is older is put again
)

// gpuKeeper is what a queen knows of the entries of the roster for GPUs. Only the loop uses it.
type gpuKeeper struct {
	seed  maphash.Seed
	next  string // hives after this id are looked at next
	hives map[*index.Hive]*gpuNote
}

// gpuNote is what a queen knows of the entry of one hive.
type gpuNote struct {
	inc    uint64    // incarnation of the hive that boot is of
	boot   string    // of its machine
	kept   uint64    // hash of what the hive reported when the entry was read or put; 0: not yet
	at     time.Time // when the entry was put
	due    time.Time // when to compare it; zero: it is not due
	rest   time.Time // no write before this time
	seen   uint64    // number of the last transition of its GPUs that was looked at
	forgot []string  // UUIDs of GPUs that were forgotten since
	busy   bool
}

func newGPUKeeper() gpuKeeper {
	return gpuKeeper{seed: maphash.MakeSeed(), hives: make(map[*index.Hive]*gpuNote)}
}

// gpuWork is a comparison of an entry with what its hive reports.
type gpuWork struct {
	hive   *index.Hive
	id     string
	hash   uint64
	boot   string
	forgot []string
	gpus   []gpu.Kept
}

// keepGPUs keeps the entries of the roster for GPUs up to date. It runs beside the loop.
func (q *Queen) keepGPUs(work context.Context, l *ledger.Ledger) {
	k := &q.gpus
	tick := time.NewTicker(gpusLook)
	defer tick.Stop()
	for {
		select {
		case <-work.Done():
			return
		case <-q.leaving:
			return
		case <-tick.C:
		}
		var list []gpuWork
		if q.do(work, func(now time.Time) {
			if _, doubts := q.core.Hearing().Doubts(); !doubts && q.store.there() {
				list = k.look(q.view.Index(), now)
			}
		}) != nil {
			return
		}
		for i := range list {
			w := &list[i]
			age, err := w.keep(work, l)
			if err != nil && !errors.Is(err, ledger.ErrConflict) && work.Err() == nil {
				q.log.Debug("cannot keep the GPUs of a hive, trying again", slog.String("hive", w.id), slog.Any("err", err))
			}
			if q.do(work, func(now time.Time) { k.done(w, age, err, now) }) != nil {
				return
			}
		}
	}
}

// look looks at some hives, and returns the work that is due.
func (k *gpuKeeper) look(x *index.Index, now time.Time) (list []gpuWork) {
	rest := x.After(k.next)
	if len(rest) <= gpusHives {
		k.next = ""
		for h := range k.hives {
			if !x.Has(h) {
				delete(k.hives, h)
			}
		}
	} else {
		rest = rest[:gpusHives]
		k.next = rest[gpusHives-1].ID()
	}
	for _, h := range rest {
		if h.Up() && h.Fresh() && h.Head().Inc != 0 && h.Conflict(now) == nil {
			if w, due := k.compare(h, now); due {
				list = append(list, w)
			}
		}
	}
	return list
}

// compare returns the work to do for a hive, if some is due.
func (k *gpuKeeper) compare(h *index.Hive, now time.Time) (w gpuWork, due bool) {
	n, head := k.hives[h], h.Head()
	if n == nil {
		n = &gpuNote{}
		k.hives[h] = n
	}
	if n.inc != head.Inc {
		n.inc, n.boot, n.seen = head.Inc, "", 0
	}
	for i := range head.GPUTr {
		if t := &head.GPUTr[i]; t.N > n.seen && t.Kind == hivebeat.KindGPUForgotten {
			n.forgot = append(n.forgot, t.GPU)
		}
	}
	n.seen = max(n.seen, head.GPUN)
	if n.busy || now.Before(n.rest) {
		return w, false
	}
	if n.boot == "" {
		n.boot = bootOf(h)
	}
	hash := k.hash(head, n.boot)
	switch {
	case n.kept == hash && len(n.forgot) == 0 && now.Sub(n.at) < gpusAgain:
		n.due = time.Time{}
		return w, false
	case n.due.IsZero():
		n.due = now.Add(rand.N(gpusSpread))
	}
	if now.Before(n.due) {
		return w, false
	}
	n.busy, n.due = true, time.Time{}
	w = gpuWork{hive: h, id: h.ID(), hash: hash, boot: n.boot, forgot: slices.Clone(n.forgot)}
	for i := range head.GPUs {
		g := head.GPUs[i]
		g.Age, g.Since = index.EffectiveAge(g.Age, h.Received(), now), index.EffectiveAge(g.Since, h.Received(), now)
		w.gpus = append(w.gpus, gpu.Keep(&g))
	}
	return w, true
}

// done records the outcome of a comparison. age is how old the entry is.
func (k *gpuKeeper) done(w *gpuWork, age time.Duration, err error, now time.Time) {
	n := k.hives[w.hive]
	if n == nil {
		return
	}
	n.busy, n.rest = false, now.Add(gpusPause)
	if err == nil {
		n.kept, n.at = w.hash, now.Add(-age)
		n.forgot = n.forgot[min(len(n.forgot), len(w.forgot)):] // those that came since stay
	}
}

// hash returns a number for what the entry of a hive depends on; never 0.
func (k *gpuKeeper) hash(s *hivebeat.Snapshot, boot string) uint64 {
	var h maphash.Hash
	h.SetSeed(k.seed)
	write := func(words ...string) {
		for _, w := range words {
			_, _ = h.WriteString(w)
			_ = h.WriteByte(0)
		}
	}
	write(boot)
	for i := range s.GPUs {
		g := &s.GPUs[i]
		write(g.UUID, string(g.Condition()), string(g.Cause), g.Action)
		_ = h.WriteByte(byte(g.Boots))
	}
	return h.Sum64() | 1
}

// bootOf returns the id of the boot of a hive's machine, as its workers report it: those that name no other host.
func bootOf(h *index.Hive) string {
	for _, w := range h.Workers() {
		r := w.Record()
		if boot, _, ok := strings.Cut(r.NS, "/"); ok && r.Host == "" && r.Live == hivebeat.Alive {
			return boot
		}
	}
	return ""
}

// keep compares the entry with what the hive reports, and puts it if it differs or is old. It returns how old the
// entry is then.
func (w *gpuWork) keep(ctx context.Context, l *ledger.Ledger) (age time.Duration, err error) {
	item, err := l.GPUs(ctx, w.id)
	if err != nil {
		return 0, err
	}
	var was gpu.Memory
	if item.Body != nil {
		if was, err = gpu.DecodeMemory(item.Body); err != nil {
			was = gpu.Memory{} // it is put again
		}
	}
	next := gpu.Memory{Boot: w.boot, GPUs: w.merge(was.GPUs, item.Stored)}
	if next.Boot == was.Boot && slices.EqualFunc(next.GPUs, was.GPUs, sameGPU) && item.Stored < gpusAgain {
		return item.Stored, nil
	}
	body, err := next.Encode()
	if err != nil {
		return 0, err
	}
	return 0, l.PutGPUs(ctx, w.id, item.Revision, body)
}

func sameGPU(a, b gpu.Kept) bool {
	return a.UUID == b.UUID && a.State == b.State && a.Cause == b.Cause && a.Action == b.Action && a.Boots == b.Boots
}

// merge returns the GPUs that the hive reports, and after them those that the entry has and the hive does not list:
// one that has just begun may not know them yet. Those that were forgotten, or not seen for long, are left out.
func (w *gpuWork) merge(was []gpu.Kept, stored time.Duration) []gpu.Kept {
	list := w.gpus
	for _, g := range was {
		g.Age, g.Since = g.Age+hivebeat.MillisOf(stored), g.Since+hivebeat.MillisOf(stored)
		listed := slices.ContainsFunc(list, func(o gpu.Kept) bool { return o.UUID == g.UUID })
		if !listed && !slices.Contains(w.forgot, g.UUID) && g.Age.Duration() < gpu.KeepKnown && len(list) < hivebeat.MaxGPUs {
			list = append(list, g)
		}
	}
	return list
}
