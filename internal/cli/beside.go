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

// beside returns r together with the companions that are not nil. They start with r and
// stop after it.
func beside(r role, log *slog.Logger, list ...companion) role {
	a := &accompanied{role: r, log: log}
	for _, c := range list {
		if c != nil {
			a.list = append(a.list, c)
		}
	}
	if len(a.list) == 0 {
		return r
	}
	return a
}

type accompanied struct {
	role
	log  *slog.Logger
	list []companion
}

// Run runs the role and its companions until the role ends.
func (a *accompanied) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, c := range a.list {
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				a.log.Error("companion failed", slog.Any("err", err))
			}
		})
	}
	err := a.role.Run(ctx)
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveIn)
	defer cancel()
	a.stop(leave) // if the role ended by itself; otherwise Stop has stopped them, or is about to
	wg.Wait()
	return err
}

// Stop stops the role, then its companions.
func (a *accompanied) Stop(ctx context.Context) error {
	err := a.role.Stop(ctx)
	a.stop(ctx)
	return err
}

func (a *accompanied) stop(ctx context.Context) {
	for _, c := range a.list {
		if err := c.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
			a.log.Warn("companion did not stop in order", slog.Any("err", err))
		}
	}
}
