package guard

import (
	"context"
	"errors"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
)

// settleTwins makes the keeper hold of the guard's files what would otherwise end with this
// process, and no more: a guard that no service manager keeps descriptors for gives it each
// deleted file that an instance has lost, at once. What is on the shelf, and what was let go, the
// keeper lets go: with two holders, one that lets go frees no space. Of what an earlier guard gave
// it, and this one does not hold, it lets nothing go.
func settleTwins(ctx context.Context, settings recover.Settings, holds *holdings) error {
	gone := holds.letGoSince()
	err := settleAll(ctx, settings, holds, gone)
	if err != nil {
		holds.stillToSettle(gone)
	}
	return err
}

func settleAll(ctx context.Context, settings recover.Settings, holds *holdings, gone map[recover.Inode]bool) error {
	mine := map[recover.Inode]guardHold{}
	var give []guardHold
	for _, h := range holds.all() {
		mine[h.inode()] = h
		if h.isOnlyHere() {
			give = append(give, h)
		}
	}
	c, err := keeper.Connect(ctx, settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return handOver(ctx, settings, give)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	given, err := c.List(ctx)
	if err != nil {
		return err
	}
	for _, k := range given {
		inode, ok := recover.ParseKey(k.Key)
		if !ok {
			continue
		}
		h, isMine := mine[inode]
		meta, err := pin.MetaOf(k)
		isRuns := err != nil || meta.Run != pin.GuardRun // which says what it is, and lets it go
		give = slices.DeleteFunc(give, func(g guardHold) bool { return g.inode() == inode && (isRuns || isTwin(k, g)) })
		if isRuns || !isMine && !gone[inode] {
			continue
		}
		for _, owner := range k.Owners {
			if isMine && h.shelf == "" && slices.Contains(h.givenFor(), owner) {
				continue
			}
			if err := c.Release(ctx, owner, k.Key); err != nil {
				return err
			}
		}
	}
	for _, h := range give {
		if err := giveTo(ctx, c, h); err != nil {
			return err
		}
	}
	return nil
}

// isTwin is true when the keeper holds a file for all its owners already.
func isTwin(k keeper.Hold, h guardHold) bool {
	return !slices.ContainsFunc(h.givenFor(), func(owner string) bool { return !slices.Contains(k.Owners, owner) })
}

// isOnlyHere is true for a deleted file that an instance has lost, and that would end with this
// process and its QEMU.
func (h guardHold) isOnlyHere() bool {
	return h.shelf == "" && !h.Deleted.IsZero() && h.Needed && isEssential(h.Role)
}

// givenFor is for whom the keeper gets a file: one of nobody's for the guard.
func (h guardHold) givenFor() []string {
	if len(h.Owners) == 0 {
		return []string{pin.GuardRun}
	}
	return h.Owners
}
