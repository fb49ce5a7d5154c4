//go:build unix && !linux

package runner

import "log/slog"

// adoptOrphans does nothing: only Linux can do that.
func adoptOrphans(*slog.Logger) {}
