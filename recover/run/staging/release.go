package staging

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// Unpin lets the old files of an instance go, which are back, proven: the keeper and the
// guard release them, and the run closes those that the guest writes. What a QEMU that has
// ended had open besides them is nowhere else: it stays with the keeper. The error is
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

// releasePins releases what was brought back. What else the keeper holds for the instance, of this
// run or an earlier one, may be the last copy of a file that no definition names: that goes only
// while a QEMU of the instance has it open.
func releasePins(ctx context.Context, t *task.Task) error {
	holds, err := t.Run.Pins.Held(ctx, t.Plan.UUID)
	if err != nil {
		return err
	}
	keys := t.Plan.Keys()
	others := map[recover.Inode]keeper.Hold{}
	for _, h := range holds {
		file, ok := recover.ParseKey(h.Key)
		switch {
		case keeper.Names(keys, file):
		case !ok || slices.Contains(t.Plan.Strays, h.Key) || isStray(h):
			others[file] = h
		default:
			keys = append(keys, h.Key)
		}
	}
	open := openInQEMU(ctx, t, others)
	var held []keeper.Hold
	for file, h := range others {
		if open[file] {
			keys = append(keys, h.Key)
		} else {
			held = append(held, h)
		}
	}
	noteHeld(t, held)
	if len(keys) == 0 {
		return nil
	}
	return t.Run.Pins.Release(ctx, t.Plan.UUID, keys...)
}

// isStray is true for a hold of a file that no definition names, or of which that is not known.
func isStray(h keeper.Hold) bool {
	meta, err := pin.MetaOf(h)
	return err != nil || meta.Role == recover.RoleOther
}

// openInQEMU returns those of the files that a QEMU of the instance has open; none where that
// can't be found out.
func openInQEMU(ctx context.Context, t *task.Task, files map[recover.Inode]keeper.Hold) map[recover.Inode]bool {
	if len(files) == 0 {
		return nil
	}
	wanted, open := map[recover.Inode]bool{}, map[recover.Inode]bool{}
	for file := range files {
		wanted[file] = true
	}
	err := procfs.Holders(ctx, procfs.Dir, wanted, func(file recover.Inode, p *procfs.Process) {
		open[file] = open[file] || p.CheckQEMU(t.Plan.UUID) == nil
	})
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("it can't be found out which processes have deleted files open: none of them is let go")
		return nil
	}
	return open
}

// noteHeld reports what stays with the keeper, and how it is let go.
func noteHeld(t *task.Task, held []keeper.Hold) {
	if len(held) == 0 {
		return
	}
	var paths []string
	for _, h := range held {
		path := h.Key
		if meta, err := pin.MetaOf(h); err == nil && meta.Path != "" {
			path = meta.Path
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	t.Notef("the keeper goes on holding %d deleted files that were not brought back, and that its QEMU does not have (any more): %s; "+
		"when nobody needs them: os-rescue keeper release %s --accept-loss last-copy", len(held), strings.Join(paths, ", "), t.Plan.UUID)
}

// guardTime bounds what is told to a guard.
const guardTime = 2 * time.Second

// guardLetsGo tells a guard that the instance's files are back, proven.
func guardLetsGo(ctx context.Context, t *task.Task) error {
	return GuardForgets(ctx, t, t.Plan.Keys()...)
}

// GuardForgets tells a guard that it need not hold those deleted files for the instance any more: they are
// back, proven, or were never more than a run's own. One that does not run holds nothing. The error is the guard's, or
// the context's.
func GuardForgets(ctx context.Context, t *task.Task, keys ...string) error {
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
