//go:build !windows && !darwin

package cli

import (
	"errors"
	"os"
	"path/filepath"
)

// dataDir returns the directory for this user's data.
func dataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("neither XDG_DATA_HOME nor HOME is set, so there is no directory for the user's data")
	}
	return filepath.Join(home, ".local", "share"), nil
}
