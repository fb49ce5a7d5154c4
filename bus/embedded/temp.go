package embedded

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
)

const (
	tempPattern = "hivebeat-nats-"
	sweepMost   = 64 // leftovers that one start removes at most, to bound its time
	tempTries   = 10
)

// errSwept: another process that cleans up removed the directory before it was locked.
var errSwept = errors.New("embedded: another process removed the new temporary directory as a leftover")

// openTemp makes a temporary store, after it has removed those that killed processes
// left.
func (s *Server) openTemp() error {
	base := os.TempDir()
	s.sweep(base)
	for try := 1; ; try++ {
		dir, err := os.MkdirTemp(base, tempPattern)
		if err != nil {
			return fmt.Errorf("embedded: %w: %w", ErrStore, err)
		}
		lock, err := moveIn(dir)
		if err == nil {
			s.cfg.StoreDir, s.temp, s.lock = dir, dir, lock
			return nil
		}
		_ = os.RemoveAll(dir)
		if !errors.Is(err, errSwept) || try == tempTries {
			return fmt.Errorf("embedded: %w: %w", ErrStore, err)
		}
	}
}

// moveIn creates and locks the lock file of a new store, and writes the name of this
// machine into it. From then on no process takes the store for a leftover.
func moveIn(dir string) (*storeLock, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "" // then only this process removes it
	}
	name := filepath.Join(dir, lockName)
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errSwept
	}
	if err != nil {
		return nil, err
	}
	locked, err := tryLock(file)
	switch {
	case err != nil:
		err = fmt.Errorf("lock %s: %w", name, err)
	case !locked || !stands(name, file):
		err = errSwept
	default:
		_, err = file.WriteString(host)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &storeLock{file}, nil
}

// stands reports whether name is still the file that was opened.
func stands(name string, file *os.File) bool {
	there, err := os.Lstat(name)
	if err != nil {
		return false
	}
	opened, err := file.Stat()
	return err == nil && os.SameFile(there, opened)
}

// sweep removes temporary stores of processes that were killed. It removes a directory
// only if it is certainly such a store: its name matches, it belongs to this user and
// is closed to others, and it has a lock file that was written on this machine and
// whose lock sweep holds meanwhile. A directory without a lock file may be under
// construction.
func (s *Server) sweep(base string) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return
	}
	found, _ := filepath.Glob(filepath.Join(base, tempPattern+"*"))
	removed := 0
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || !private(info) {
			continue
		}
		done, err := removeLeft(dir, host)
		if err != nil {
			s.cfg.Logger.Debug("cannot remove the temporary store of a killed process", slog.String("dir", dir), slog.Any("err", err))
		}
		if !done {
			continue
		}
		s.cfg.Logger.Debug("removed the temporary store of a killed process", slog.String("dir", dir))
		if removed++; removed == sweepMost {
			return
		}
	}
}

// removeLeft removes dir if its lock file exists, names this machine and is not locked.
func removeLeft(dir, host string) (done bool, err error) {
	name := filepath.Join(dir, lockName)
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	defer file.Close()
	if locked, err := tryLock(file); !locked || err != nil || !stands(name, file) {
		return false, err
	}
	text := make([]byte, len(host)+1)
	n, err := io.ReadFull(file, text)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	if string(text[:n]) != host {
		return false, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return false, err
	}
	return true, nil
}
