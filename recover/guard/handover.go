package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// handOver gives held files to the keeper, which stays when the guard goes.
func handOver(ctx context.Context, settings recover.Settings, needed []guardHold) error {
	if len(needed) == 0 {
		return nil
	}
	c, err := keeper.Start(ctx, keeper.Options{Dir: settings.StateDir, Command: settings.KeeperCommand})
	if err != nil {
		return fmt.Errorf("%d deleted files that instances may need can't be handed to the keeper, and are held by their QEMU alone, "+
			"if that lives: %w", len(needed), err)
	}
	defer c.Close()
	var errs error
	for _, h := range needed {
		errs = errors.Join(errs, giveTo(ctx, c, h, false))
	}
	if errs == nil {
		zerolog.Ctx(ctx).Warn().Int("files", len(needed)).Int("keeper", c.PID()).
			Msg("the keeper holds the deleted files now that instances need, or may need")
	}
	return errs
}

// giveTo gives one held file to the keeper, for each of its owners. What is noted of one that it has
// already stays as it is: that may be a run's.
func giveTo(ctx context.Context, c *keeper.Client, h guardHold, has bool) error {
	meta, err := json.Marshal(h.meta())
	if err != nil {
		return err
	}
	if has {
		meta = nil
	}
	for _, owner := range h.givenFor() {
		if err := c.Hold(ctx, owner, h.inode().Key(), meta, h.file); err != nil {
			return fmt.Errorf("%s is held by its QEMU alone, if that lives: %w", h.Path, err)
		}
	}
	return nil
}
