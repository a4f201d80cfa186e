package staging

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// Unpin lets the old files of an instance go, which are back, proven: the keeper and the
// guard release them, and the run closes those that the guest writes. What the QEMU that
// was ended had open besides them is nowhere else: it stays with the keeper. The error is
// the keeper's.
func Unpin(ctx context.Context, t *task.Task) error {
	return t.Step(ctx, journal.StepUnpin, "", func() error {
		if err := releasePins(ctx, t); err != nil {
			return err
		}
		if err := guardLetsGo(ctx, t); err != nil {
			// It finds out by itself, from the journal.
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the guard may hold what is back for some seconds more")
		}
		for _, f := range t.Written() {
			t.Run.Pins.Drop(f)
			if f.Held != "" {
				t.Run.Pins.Drop(f.OfHeld())
			}
		}
		return nil
	})
}

func releasePins(ctx context.Context, t *task.Task) error {
	if len(t.Plan.Strays) == 0 {
		return t.Run.Pins.Release(ctx, t.Plan.UUID)
	}
	t.Notef("%d deleted files that were not brought back are held still (os-rescue status); "+
		"when nobody needs them: %s", len(t.Plan.Strays), task.LetGo(t.Run.Plan.Run))
	keys := plannedKeys(t)
	if len(keys) == 0 {
		return nil
	}
	return t.Run.Pins.Release(ctx, t.Plan.UUID, keys...)
}

// plannedKeys are the keys of the inodes that were brought back.
func plannedKeys(t *task.Task) []string {
	var keys []string
	for _, f := range t.Plan.Files {
		for _, key := range []string{f.Key(), f.Held} {
			if key != "" {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// guardTime bounds what is told to a guard.
const guardTime = 2 * time.Second

// guardLetsGo tells a guard that the instance's files are back, proven. One that
// does not run holds nothing.
func guardLetsGo(ctx context.Context, t *task.Task) error {
	keys := plannedKeys(t)
	ctx, cancel := context.WithTimeout(ctx, guardTime) // it finds out by itself, so nobody waits for long
	defer cancel()
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
