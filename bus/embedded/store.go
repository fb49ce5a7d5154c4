package embedded

import (
	"fmt"
	"os"
	"path/filepath"
)

// lockName is the lock file in a store directory; its lock marks the directory as in
// use. The file is never removed: otherwise two servers could lock two files of one
// name.
const lockName = "hivebeat.lock"

// storeLock holds a lock of the operating system, which ends with the process, however
// the process ends.
type storeLock struct{ file *os.File }

func (l *storeLock) release() error { return l.file.Close() }

func (s *Server) openStore() error {
	if s.cfg.StoreDir == "" {
		return s.openTemp()
	}
	if err := os.MkdirAll(s.cfg.StoreDir, 0o700); err != nil {
		return fmt.Errorf("embedded: %w: %w", ErrStore, err)
	}
	name := filepath.Join(s.cfg.StoreDir, lockName)
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("embedded: %w: %w", ErrStore, err)
	}
	locked, err := tryLock(file)
	if err != nil {
		file.Close()
		return fmt.Errorf("embedded: %w: lock %s: %w", ErrStore, name, err)
	}
	if !locked {
		file.Close()
		return fmt.Errorf("embedded: %w: %s belongs to another running server", ErrStoreLocked, s.cfg.StoreDir)
	}
	s.lock = &storeLock{file}
	return nil
}
