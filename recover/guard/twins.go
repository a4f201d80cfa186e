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

// twinTime bounds the exchange with a keeper that hangs.
const twinTime = 20 * time.Second

// run settles the twins whenever that is due, until the context ends.
func (t *twins) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.due:
			err := t.settle(ctx, isLostOne)
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
// to that. What an earlier guard gave the keeper, and this one does not hold, it takes up.
func (t *twins) settle(ctx context.Context, wanted func(guardHold) bool) error {
	ctx, cancel := context.WithTimeout(ctx, twinTime)
	defer cancel()
	mine := map[recover.Inode]guardHold{}
	var give []guardHold
	for _, h := range t.holds.all() {
		mine[h.inode()] = h
		if !h.Deleted.IsZero() && wanted(h) {
			give = append(give, h)
		}
	}
	c, err := keeper.Connect(ctx, t.settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		t.holds.parted(func(p partings) { p.settle(nil) })
		return handOver(ctx, t.settings, give)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	given, err := c.List(ctx)
	if err != nil {
		return err
	}
	byKey := map[recover.Inode]keeper.Hold{}
	for _, k := range given {
		if inode, ok := recover.ParseKey(k.Key); ok {
			byKey[inode] = k
		}
	}
	for _, h := range give {
		if k, ok := byKey[h.inode()]; !ok || !isTwin(k, h) {
			if err := giveTo(ctx, c, h, ok); err != nil {
				return err
			}
		}
	}
	busy, err := t.busyRuns(ctx)
	if err != nil {
		return err
	}
	later := map[recover.Inode]bool{}
	for inode, k := range byKey {
		h, isMine := mine[inode]
		meta, err := pin.MetaOf(k)
		switch {
		case err != nil:
		case busy[meta.Run]:
			later[inode] = true
		case isMine:
			if meta.Run == pin.GuardRun && h.Deleted.IsZero() { // it has a name again
				err = releaseAll(ctx, c, k)
				break
			}
			err = t.release(ctx, c, k, inode, h.Owners)
		default:
			err = t.releaseOrTake(ctx, c, k, inode, meta)
		}
		if err != nil {
			return err
		}
	}
	t.holds.parted(func(p partings) { p.settle(later) })
	return nil
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
