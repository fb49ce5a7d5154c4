package hivecore

import (
	"log/slog"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/core"
	"github.com/beatfabric/hivebeat/internal/detector"
)

// logStep adds the log line of a transition.
func logStep(logs *core.Logs, s *detector.Step) {
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("worker", s.Worker), slog.String("kind", string(s.Kind))}
	if s.From != "" {
		attrs = append(attrs, slog.String("from", s.From))
	}
	attrs = append(attrs, slog.String("to", s.To), slog.Uint64("inc", s.Inc), slog.Uint64("seq", s.Seq), slog.Uint64("n", s.N))
	if s.Cause != "" {
		attrs = append(attrs, slog.String("cause", string(s.Cause)))
	}
	if s.Age > 0 {
		attrs = append(attrs, slog.Duration("age", s.Age))
	}
	if s.Reason != "" {
		attrs = append(attrs, slog.String("reason", s.Reason))
	}
	if s.Detect > 0 {
		attrs = append(attrs, slog.Duration("detect", s.Detect))
	}
	switch {
	case s.Damped:
		level = slog.LevelDebug
		attrs = append(attrs, slog.Bool("damped", true))
	case s.Kind == hivebeat.KindLost || s.Kind == hivebeat.KindConflict || s.Kind == hivebeat.KindLooping && s.To != "":
		level = slog.LevelWarn
	case s.Margin > 0: // the verdict was wrong, or true of the link only
		level = slog.LevelWarn
		attrs = append(attrs, slog.Duration("margin", s.Margin), slog.Bool("cut_off", s.CutOff))
	}
	logs.Add(level, "worker verdict", attrs...)
}
