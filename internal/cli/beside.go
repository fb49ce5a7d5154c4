package cli

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// companion runs beside a role. The role works without it, so a failure of the companion
// is logged and does not end the role. Run lasts until Stop.
type companion interface {
	Run(ctx context.Context) error
	Stop(ctx context.Context) error
}

// beside returns r together with c, which starts with r and stops after it. If c is nil,
// it returns r.
func beside(r role, log *slog.Logger, c companion) role {
	if c == nil {
		return r
	}
	return &accompanied{role: r, companion: c, log: log}
}

type accompanied struct {
	role      role
	companion companion
	first     bool // the companion stops first
	log       *slog.Logger
}

// Run runs the role and its companion until the role ends.
func (a *accompanied) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.companion.Run(ctx); err != nil {
			a.log.Error("companion failed", slog.Any("err", err))
		}
	})
	err := a.role.Run(ctx)
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveIn)
	defer cancel()
	a.stop(leave) // if the role ended by itself; otherwise Stop has stopped it, or is about to
	wg.Wait()
	return err
}

// Stop stops the role and its companion, one after the other.
func (a *accompanied) Stop(ctx context.Context) error {
	if a.first {
		a.stop(ctx)
		return a.role.Stop(ctx)
	}
	err := a.role.Stop(ctx)
	a.stop(ctx)
	return err
}

func (a *accompanied) stop(ctx context.Context) {
	if err := a.companion.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		a.log.Warn("companion did not stop in order", slog.Any("err", err))
	}
}
