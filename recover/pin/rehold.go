package pin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// ensureTime bounds Ensure. A keeper that is stopped does not answer, which takes some seconds
// of it to find out, and a few more until another one has its place.
const ensureTime = time.Minute

// Ensure makes sure that a keeper holds all that it is to hold for this run and for those
// before it. One that has died or does not answer is replaced by another one, which is given
// everything again. Call it before what
// could free an inode. ErrUnusable when it can't be held.
func (c *Custody) Ensure(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ensure(ctx)
}

// HandOn is Ensure at the end of a run, whose own descriptors go with it. ErrUnusable only
// when something has no other holder: then it is lost with the run.
func (c *Custody) HandOn(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.ensure(ctx)
	if err == nil {
		return nil
	}
	for uuid := range c.spares.owners() {
		if c.spares.isLast(uuid) {
			return fmt.Errorf("%w; the process that had the lost files of %s open has ended too", err, uuid)
		}
	}
	zerolog.Ctx(ctx).Error().Err(err).Msg("the keeper has ended")
	return nil
}

// WhoHolds says, for an error, who holds an instance's lost files now; "" when the run holds
// none of it.
func (c *Custody) WhoHolds(ctx context.Context, uuid string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.spares.owners()[uuid] {
		return ""
	}
	if err := c.ensure(ctx); err != nil {
		return fmt.Sprintf("its lost files are held by its QEMU alone, so do not stop it (%v)", err)
	}
	return "the keeper holds its lost files"
}

func (c *Custody) ensure(ctx context.Context) error {
	if len(c.spares) == 0 {
		return nil
	}
	// What is to be held is held even if the run is being interrupted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ensureTime)
	defer cancel()
	if c.keeper != nil {
		holds, err := c.keeper.List(ctx)
		switch {
		case err == nil:
			return c.give(ctx, c.spares.missing(holds))
		case !isGone(err):
			return fmt.Errorf("%w: the keeper does not say what it holds: %w", recover.ErrUnusable, err)
		}
		c.disconnect()
	}
	client, err := keeper.Start(ctx, keeper.Options{Dir: c.options.StateDir, Command: c.options.KeeperCommand})
	if err != nil {
		return fmt.Errorf("%w: the keeper has ended or does not answer, and no other one can be had, so that the lost files are held "+
			"by this run and their QEMU alone: %w", recover.ErrUnusable, err)
	}
	c.use(ctx, client)
	holds, err := client.List(ctx)
	if err == nil {
		err = c.give(ctx, c.spares.missing(holds))
	}
	if err != nil {
		return fmt.Errorf("%w: the keeper has ended or does not answer, and another one does not hold the lost files: %w",
			recover.ErrUnusable, err)
	}
	zerolog.Ctx(ctx).Warn().Int("keeper", client.PID()).Int("files", len(c.spares)).
		Msg("the keeper had ended, or did not answer: another one holds everything again")
	return nil
}

// isGone is true for the errors of a keeper that another one is to replace.
func isGone(err error) bool {
	return errors.Is(err, keeper.ErrNoKeeper) || errors.Is(err, keeper.ErrSilent)
}

// give has the keeper hold spares.
func (c *Custody) give(ctx context.Context, keys []string) error {
	for _, key := range keys {
		one := c.spares[key]
		for owner := range one.owners {
			if err := c.keeper.Hold(ctx, owner, key, one.meta, one.file); err != nil {
				return fmt.Errorf("%w: %w", recover.ErrUnusable, err)
			}
		}
	}
	return nil
}

// use takes a connection over, and replaces its keeper at once when that ends.
func (c *Custody) use(ctx context.Context, client *keeper.Client) {
	ctx, c.stopWatching = context.WithCancel(context.WithoutCancel(ctx))
	c.keeper = client
	go func() {
		if keeper.AwaitEnd(ctx, client.PID()) != nil {
			return // it is not watched any more, or can't be: Ensure asks
		}
		if c.options.Failpoint != nil && c.needs(client) {
			c.options.Failpoint(keeperEnded)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.keeper != client {
			return
		}
		if err := c.ensure(ctx); err != nil {
			zerolog.Ctx(ctx).Error().Err(err).Msg("the keeper has ended")
		}
	}()
}

// needs is true when something is to be held, and that keeper is the one for it.
func (c *Custody) needs(client *keeper.Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keeper == client && len(c.spares) > 0
}

// disconnect drops the connection.
func (c *Custody) disconnect() {
	if c.keeper != nil {
		c.stopWatching()
		c.keeper.Close()
		c.keeper = nil
	}
}
