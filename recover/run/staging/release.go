package staging

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// Unpin lets the old files of an instance go, which are back, proven: the keeper and the
// guard release them, and the run closes those that the guest writes. The error is the
// keeper's.
func Unpin(ctx context.Context, t *task.Task) error {
	return t.Step(ctx, journal.StepUnpin, "", func() error {
		if err := t.Run.Pins.Release(ctx, t.Plan.UUID); err != nil {
			return err
		}
		if err := guardLetsGo(ctx, t); err != nil {
			// It finds out by itself, from the journal.
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the guard may hold what is back for some seconds more")
		}
		for _, f := range t.Written() {
			t.Run.Pins.Drop(f)
		}
		return nil
	})
}

// guardLetsGo tells a guard that the instance's files are back, proven. One that
// does not run holds nothing.
func guardLetsGo(ctx context.Context, t *task.Task) error {
	var keys []string
	for _, f := range t.Plan.Files {
		if key := f.Key(); key != "" {
			keys = append(keys, key)
		}
	}
	c, err := keeper.ConnectGuard(ctx, t.Run.Settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) || len(keys) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return c.ReleaseFor(ctx, keeper.ReleasedProven, t.Plan.UUID, keys...)
}
