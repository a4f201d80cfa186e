package guard

import (
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// disownBases forgets that an instance which is gone shared backing files: the image cache
// may remove them.
func (a *arbiter) disownBases(uuid string) {
	a.holds.updateEach(func(h *guardHold) {
		if h.Deleted.IsZero() && h.Role == recover.RoleBacking {
			h.dropOwner(uuid)
		}
	})
}

// letGo lets a deleted file go for some of its owners, or for all when none are
// named, and logs it if that frees the file.
func (a *arbiter) letGo(ctx context.Context, h guardHold, reason keeper.ReleaseReason, owners ...string) {
	freed, err := a.holds.letGo(h.inode(), reason, owners...)
	if err != nil {
		a.problems.set("shelf", fmt.Errorf("%s may still take its space: %w", h.Path, err))
	}
	if freed {
		zerolog.Ctx(ctx).Info().Str("path", h.Path).Strs("instances", h.Owners).Str("reason", string(reason)).
			Str("size", humanize.IBytes(uint64(h.bytes))).Msg("deleted file let go")
	}
}

// keepFree lets spare deleted files go, the oldest first, while their file system is fuller
// than it may be: a full one pauses every healthy guest on it. Nothing else goes for want of
// room: it is said.
func (j *judgement) keepFree(ctx context.Context) {
	least := j.options().MinFree
	full := map[uint64]bool{}
	for _, h := range j.holds.deleted() {
		if !isFull(h, least) {
			full[h.Device] = false
			continue
		}
		owners := j.spare[h.inode()]
		if len(owners) == 0 || j.isOpenForWriting(ctx, h) {
			full[h.Device] = true
			continue
		}
		zerolog.Ctx(ctx).Warn().Str("path", h.Path).Msg("free space is under the floor")
		j.letGo(ctx, h, keeper.ReleasedSpace, owners...)
	}
	var err error
	for _, is := range full {
		if is {
			err = errors.New("free space is under the floor, and the deleted files that are held are needed by instances, or may be: " +
				"make room, or rescue them")
		}
	}
	j.problems.set("space", err)
}

// isFull is true when less than a share of the file's file system is free; false also
// when that can't be found out.
func isFull(h guardHold, least float64) bool {
	var st unix.Statfs_t
	err := keeper.Control(h.file, func(fd int) error { return unix.Fstatfs(fd, &st) })
	return err == nil && st.Blocks > 0 && float64(st.Bavail)/float64(st.Blocks) < least
}
