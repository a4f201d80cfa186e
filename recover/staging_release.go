package recover

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// unpin has the keeper and the guard release an instance's files, which are back,
// proven, and closes those that its guest writes.
func unpin(ctx context.Context, t *task) error {
	return t.step(ctx, stepUnpin, "", func() error {
		if err := t.run.pins.release(ctx, t.plan.UUID); err != nil {
			return err
		}
		if err := guardLetsGo(ctx, t); err != nil {
			// It finds out by itself, from the journal.
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the guard may hold what is back for some seconds more")
		}
		for _, f := range t.written() {
			t.run.pins.drop(f)
		}
		return nil
	})
}

// guardLetsGo tells a guard that the instance's files are back, proven. One that
// does not run holds nothing.
func guardLetsGo(ctx context.Context, t *task) error {
	var keys []string
	for _, f := range t.plan.Files {
		if key := f.Key(); key != "" {
			keys = append(keys, key)
		}
	}
	c, err := keeper.ConnectGuard(ctx, t.run.settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) || len(keys) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return c.ReleaseFor(ctx, keeper.ReleasedProven, t.plan.UUID, keys...)
}
