package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// twins makes the keeper hold what must not end with this process: each deleted file that an instance has
// lost, from that moment on and as long as the guard does. systemd's descriptor store may be there or
// not, nobody says so; a keeper that answers is.
type twins struct {
	settings recover.Settings
	holds    *holdings
	problems *problems
	due      trigger
}

// Bounds of the exchange with a keeper that hangs: while the guard runs, which tries again, and at its end.
const (
	twinTime     = 20 * time.Second
	lastTwinTime = 2 * time.Minute
)

// run settles the twins whenever that is due, until the context ends.
func (t *twins) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.due:
			err := t.settle(ctx, twinTime, isLostOne)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				err = fmt.Errorf("the keeper may hold files that are let go here, or not those that it should: %w", err)
			}
			t.problems.set("keeper", err)
		}
	}
}

// isLostOne is true for a deleted file that an instance has lost.
func isLostOne(h guardHold) bool {
	return h.Needed && h.Role != recover.RoleConsoleLog && h.Role != recover.RoleDiskInfo
}

// settle gives the keeper what it has not of the deleted files that are wanted, and has it let go of
// what was let go here: with two holders, one that lets go frees no space. What a run works with, it leaves
// to that. What an earlier guard gave the keeper, and this one does not hold, it takes up. A keeper that is
// silent is replaced.
func (t *twins) settle(ctx context.Context, limit time.Duration, wanted func(guardHold) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var parted map[recover.Inode]int
	t.holds.parted(func(p partings) { parted = p.open() })
	mine := map[recover.Inode]guardHold{}
	var give []guardHold
	for _, h := range t.holds.all() {
		mine[h.inode()] = h
		if !h.Deleted.IsZero() && wanted(h) {
			give = append(give, h)
		}
	}
	c, given, err := t.ask(ctx)
	switch {
	case errors.Is(err, keeper.ErrNoKeeper):
		t.holds.parted(func(p partings) { p.settle(parted) })
		return handOver(ctx, t.settings, give)
	case errors.Is(err, keeper.ErrSilent):
		return errors.Join(err, handOver(context.WithoutCancel(ctx), t.settings, give))
	case err != nil:
		return err
	}
	defer c.Close()
	var errs error
	for _, h := range give {
		if k, ok := given[h.inode()]; !ok || !isTwin(k, h) {
			errs = errors.Join(errs, giveTo(ctx, c, h, ok))
		}
	}
	busy, err := t.busyRuns(ctx)
	if err != nil {
		return errors.Join(errs, err)
	}
	for inode, k := range given {
		h, isMine := mine[inode]
		meta, err := pin.MetaOf(k)
		switch {
		case err != nil:
		case busy[meta.Run]:
			delete(parted, inode) // later
		case isMine && meta.Run == pin.GuardRun && h.Deleted.IsZero(): // it has a name again
			err = releaseAll(ctx, c, k)
		case isMine:
			err = t.release(ctx, c, k, inode, h.Owners)
		default:
			err = t.releaseOrTake(ctx, c, k, inode, meta)
		}
		if err != nil {
			delete(parted, inode)
			errs = errors.Join(errs, err)
		}
	}
	t.holds.parted(func(p partings) { p.settle(parted) })
	return errs
}

// ask connects to the keeper, and returns what it holds.
func (t *twins) ask(ctx context.Context) (*keeper.Client, map[recover.Inode]keeper.Hold, error) {
	c, err := keeper.Connect(ctx, t.settings.StateDir)
	if err != nil {
		return nil, nil, err
	}
	list, err := c.List(ctx)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	given := map[recover.Inode]keeper.Hold{}
	for _, k := range list {
		if inode, ok := recover.ParseKey(k.Key); ok {
			given[inode] = k
		}
	}
	return c, given, nil
}

// release has the keeper let a file go for those that it was let go for here, but those who have it again.
func (t *twins) release(ctx context.Context, c *keeper.Client, k keeper.Hold, inode recover.Inode, but []string) error {
	for _, owner := range k.Owners {
		if t.holds.isLetGo(inode, owner) && !slices.Contains(but, owner) {
			if err := c.Release(ctx, owner, k.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

func releaseAll(ctx context.Context, c *keeper.Client, k keeper.Hold) error {
	for _, owner := range k.Owners {
		if err := c.Release(ctx, owner, k.Key); err != nil {
			return err
		}
	}
	return nil
}

// releaseOrTake has the keeper let a file go that was let go here; one that an earlier guard gave it the
// guard holds from now on, so that it is judged.
func (t *twins) releaseOrTake(ctx context.Context, c *keeper.Client, k keeper.Hold, inode recover.Inode, meta pin.Meta) error {
	isParted := false
	t.holds.parted(func(p partings) { isParted = p[inode] != nil })
	if isParted {
		return t.release(ctx, c, k, inode, nil)
	}
	if meta.Run != pin.GuardRun || t.holds.isFull() {
		return nil
	}
	f, err := c.Open(ctx, k.Key)
	if err != nil {
		return err
	}
	m := holdMemory{Path: meta.Path, Role: meta.Role, Format: meta.Format, Target: meta.Target, Backing: meta.Backing, Belongs: meta.Belongs,
		Owners:  slices.DeleteFunc(slices.Clone(k.Owners), func(o string) bool { return o == pin.GuardRun }),
		Retired: meta.Retired, Needed: meta.Needed, Opened: meta.Opened, Deleted: time.Now().UTC()}
	if _, unlinked, err := identifyFile(f); err != nil || !unlinked {
		m.Deleted = time.Time{}
	}
	return t.holds.add(f, m)
}

// busyRuns are the runs that are under way or are to be resumed, by their names.
func (t *twins) busyRuns(ctx context.Context) (map[string]bool, error) {
	unsettled, err := runs.Of(t.settings.StateDir).Unsettled(ctx)
	if err != nil {
		return nil, err
	}
	busy := map[string]bool{}
	for _, run := range unsettled {
		busy[run] = true
	}
	if now, running := statedir.Dir(t.settings.StateDir).Running(); running {
		busy[now.Run] = true
	}
	return busy, nil
}

// isTwin is true when the keeper holds a file for all its owners already.
func isTwin(k keeper.Hold, h guardHold) bool {
	return !slices.ContainsFunc(h.givenFor(), func(owner string) bool { return !slices.Contains(k.Owners, owner) })
}

// givenFor is for whom the keeper gets a file: one of nobody's for the guard.
func (h guardHold) givenFor() []string {
	if len(h.Owners) == 0 {
		return []string{pin.GuardRun}
	}
	return h.Owners
}
