package hive

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"github.com/beatfabric/hivebeat"
)

// Sources of the file systems, as named in a snapshot's collect. They are apart from
// sourceHost and from each other: a dead network mount answers no call, and must hide
// neither the facts of the host nor those of the other file system.
const (
	sourceCache = "cache" // the file system of the model cache
	sourceStore = "store" // the file system of the store
)

// DefaultCacheDir returns the directory in which Hugging Face's libraries keep models:
// $HF_HOME, else huggingface in $XDG_CACHE_HOME or ~/.cache. It is empty if none of them
// is set and the home directory is unknown.
func DefaultCacheDir() string {
	if dir := os.Getenv("HF_HOME"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "huggingface")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".cache", "huggingface")
}

// space is the size of a file system and what an unprivileged process may still write, in
// bytes.
type space struct{ total, free uint64 }

// spaceOf reads the file system of dir, or of its nearest parent that exists: a model
// cache appears with the first download. It may never return.
func spaceOf(ctx context.Context, dir string) (space, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return space{}, err
	}
	for {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return space{}, err
		}
		dir = parent
	}
	u, err := disk.UsageWithContext(ctx, dir)
	if err != nil {
		return space{}, err
	}
	return space{total: u.Total, free: min(u.Free, u.Total)}, nil
}

// disks holds the latest facts of the file systems.
type disks struct{ cache, store space }

// fill copies the known facts into h.
func (d *disks) fill(h *hivebeat.Host) {
	if d.cache.total > 0 {
		h.CacheTotal, h.CacheFree = small(d.cache.total), small(d.cache.free)
	}
	if d.store.total > 0 {
		h.StoreTotal, h.StoreFree = small(d.store.total), small(d.store.free)
	}
}

// storeSpace stores a reading of one file system. After a failed reading its facts are
// unknown: models are placed by the free space, which the old figure does not tell.
func (m *machine) storeSpace(source string, s space, err error) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		s = space{}
	}
	if source == sourceCache {
		m.disks.cache = s
	} else {
		m.disks.store = s
	}
	return m.set(source, err)
}

// collectDisks reads the file systems of the model cache and the store. A custom
// Config.Host may describe another machine, and then reports their sizes itself.
func (h *Hive) collectDisks(ctx context.Context, wg *sync.WaitGroup) {
	if h.cfg.Host != nil {
		return
	}
	read := h.cfg.readSpace
	if read == nil {
		read = spaceOf
	}
	for source, dir := range map[string]string{sourceCache: h.cfg.CacheDir, sourceStore: h.cfg.StoreDir} {
		if dir == "" {
			continue
		}
		c := collector[space]{
			every: collectEvery, limit: collectLimit,
			read: func(ctx context.Context) (space, error) { return read(ctx, dir) },
			store: func(_ time.Time, s space, err error) {
				if h.machine.storeSpace(source, s, err) {
					h.collected(source, err, slog.String("dir", dir))
				}
			},
		}
		wg.Go(func() { c.run(ctx) })
	}
}
