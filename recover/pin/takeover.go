package pin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// takeOver has the keeper hold what keepers hold that have lost their place: the state
// directory of one was removed, or it did not answer for a time. They let it go then, and end by
// themselves. Of one that does not answer now, only that is said.
func (c *Custody) takeOver(ctx context.Context) error {
	keepers, err := keeper.Of(ctx, c.options.StateDir)
	if err != nil {
		return fmt.Errorf("%w: the keepers can't be found: %w", recover.ErrUnusable, err)
	}
	defer keeper.CloseAll(keepers)
	for _, k := range keepers {
		if k.Client == nil {
			zerolog.Ctx(ctx).Warn().Int("keeper", k.PID).Msg("a keeper does not answer: it is stopped, or hangs. What it holds stays held; " +
				"os-rescue status names it, and kill -CONT may wake it")
			continue
		}
		if !k.Apart {
			continue
		}
		if c.keeper == nil {
			client, err := keeper.Start(ctx, keeper.Options{Dir: c.options.StateDir, Command: c.options.KeeperCommand})
			if err != nil {
				return fmt.Errorf("%w: no keeper: %w", recover.ErrUnusable, err)
			}
			c.use(ctx, client)
		}
		if c.keeper.PID() == k.PID {
			continue // it has its place again
		}
		n, err := takeAll(ctx, k.Client, c.keeper)
		if err != nil {
			return fmt.Errorf("%w: what the keeper of process %d holds can't be taken over: %w", recover.ErrUnusable, k.PID, err)
		}
		zerolog.Ctx(ctx).Warn().Int("keeper", k.PID).Int("files", n).Int("now", c.keeper.PID()).
			Msg("a keeper had lost its place in the state directory: another one holds everything of it now")
	}
	return nil
}

// takeAll has one keeper hold what another one holds, which lets each file go then.
func takeAll(ctx context.Context, from, to *keeper.Client) (int, error) {
	holds, err := from.List(ctx)
	if err != nil {
		return 0, err
	}
	for _, h := range holds {
		f, err := from.Open(ctx, h.Key)
		if errors.Is(err, os.ErrNotExist) {
			continue // released meanwhile
		}
		if err != nil {
			return 0, err
		}
		for _, owner := range h.Owners {
			if err = to.Hold(ctx, owner, h.Key, h.Meta, f); err != nil {
				break
			}
		}
		f.Close()
		if err != nil {
			return 0, err
		}
		for _, owner := range h.Owners {
			if err := from.Release(ctx, owner, h.Key); err != nil {
				return 0, err
			}
		}
	}
	return len(holds), nil
}

// heldFile opens what a keeper holds of a planned file; fs.ErrNotExist when none does. What one
// holds that does not answer is opened through its descriptor.
func (c *Custody) heldFile(ctx context.Context, f recover.FilePlan) (*os.File, error) {
	err := fmt.Errorf("no keeper holds it: %w", os.ErrNotExist)
	if c.keeper != nil {
		var file *os.File
		if file, err = c.keeper.Open(ctx, f.Key()); err == nil || !errors.Is(err, os.ErrNotExist) && !isGone(err) {
			return file, err
		}
	}
	keepers, ferr := keeper.Of(ctx, c.options.StateDir)
	if ferr != nil {
		return nil, errors.Join(err, ferr)
	}
	defer keeper.CloseAll(keepers)
	for _, k := range keepers {
		if k.Client != nil {
			if c.keeper != nil && k.PID == c.keeper.PID() {
				continue
			}
			file, oerr := k.Client.Open(ctx, f.Key())
			if oerr == nil {
				return file, nil
			}
			err = errors.Join(err, oerr)
			continue
		}
		held, herr := heldSilently(ctx, c.options.StateDir, k.PID)
		if herr != nil {
			continue // it has ended
		}
		for _, h := range held {
			if !f.Identity().Is(h.Inode(), true) {
				continue
			}
			src, oerr := Open(recover.File{Path: f.Path, Device: f.Device, Inode: f.Inode, Birth: f.Birth, Holders: []recover.Holder{h.Holder()}})
			if oerr == nil {
				return src.File, nil
			}
			err = errors.Join(err, oerr)
		}
	}
	return nil, err
}
