package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/run/staging"
)

// abandon ends one disk's mirror and removes its file, unless the guest is on it:
// then it is there to stay.
func (s *mirrors) abandon(ctx context.Context, m *mirror) error {
	if m.published {
		return nil
	}
	if err := s.t.Run.Hypervisor.EndMirror(ctx, s.t.Plan.UUID, m.want.Target); err != nil {
		return fmt.Errorf("end the mirror of %s: %w", m.want.Path, err)
	}
	isOnNew, isOnOld := s.awaitOne(ctx, m)
	switch {
	case !s.guest.SameProcess():
		return s.abandonEnded(ctx, m)
	case m.file != nil && isOnNew && isOnOld:
		return fmt.Errorf("%w: QEMU has both the old %s open and its mirror, which stays where it is", recover.ErrUnproven, m.want.Path)
	case m.file != nil && isOnNew:
		m.pivoted = true
		if _, err := s.t.Run.Root.Lstat(m.want.Path); errors.Is(err, fs.ErrNotExist) {
			if err := m.lend(); err != nil {
				return err
			}
		}
		return s.own(ctx, m)
	case m.file == nil:
		return nil
	case !isOnOld:
		return fmt.Errorf("%w: QEMU has neither the old %s open nor its mirror, which stays where it is", recover.ErrUnproven, m.want.Path)
	}
	zerolog.Ctx(ctx).Debug().Str("path", m.want.Path).Msg("the mirror is abandoned")
	return s.removed(ctx, m)
}

// abandonEnded is abandon for a guest whose QEMU is gone. A mirror's file is removed
// only while the inode that it was made of is held.
func (s *mirrors) abandonEnded(ctx context.Context, m *mirror) error {
	if m.file == nil {
		return nil
	}
	st, err := s.t.Run.Root.Lstat(m.want.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	placed := err == nil && st.Inode() == m.inode
	_, err = s.t.Run.Source(ctx, m.want)
	held := err == nil
	switch {
	case placed && (m.pivoted || m.pivoting && !held):
		m.pivoted = true
		return s.own(ctx, m)
	case !held || m.pivoting && !placed:
		s.t.Notef("the mirror of %s, perhaps all that is left of it, stays at %s", m.want.Path, m.place(placed))
		return nil
	case placed && m.placing:
		if err := s.isUnused(ctx, m); err != nil {
			return err
		}
	}
	return s.removed(ctx, m)
}

// closeTime is how long a QEMU may take to close the file that it does not need after a mirror's end.
const closeTime = 5 * time.Second

// awaitOne waits until QEMU has one of the old file and the mirror open and not both, and returns which: a
// mirror that has just ended by an error is closed a moment after libvirt has forgotten it, and is none that
// the guest is on.
func (s *mirrors) awaitOne(ctx context.Context, m *mirror) (isOnNew, isOnOld bool) {
	for end := time.Now().Add(closeTime); ; recover.Pause(ctx, 20*time.Millisecond) {
		isOnNew, isOnOld = s.isOn(ctx, m)
		if m.file == nil || !isOnNew || !isOnOld || ctx.Err() != nil || time.Now().After(end) {
			return isOnNew, isOnOld
		}
	}
}

// removed removes a mirror's file, and tells a guard, which may have taken it for the disk: while it was made
// it had the disk's name.
func (s *mirrors) removed(ctx context.Context, m *mirror) error {
	if err := m.remove(); err != nil {
		return err
	}
	if err := staging.GuardForgets(ctx, s.t, m.inode.Key()); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("path", m.want.Path).Msg("a guard may go on holding what the run has made and removed")
	}
	return nil
}

// isUnused makes sure that a mirror that had its disk's name when its QEMU ended is
// no more than the old inode: somebody may have started the guest on it since.
// ErrConflict.
func (s *mirrors) isUnused(ctx context.Context, m *mirror) error {
	d, err := s.guest.Domain(ctx)
	if err != nil && !errors.Is(err, recover.ErrNoDomain) {
		return err
	}
	if err == nil && d.State != recover.StateShutOff {
		return fmt.Errorf("%w: somebody has started it on the new %s", recover.ErrConflict, m.want.Path)
	}
	// libvirt has taken the file of the domain that ended away from QEMU's user.
	if err := beneath.SetOwner(m.file, s.t.Run.Owners.File(m.want, s.t.Plan.DACLabel)); err != nil {
		return err
	}
	// However long it takes: an undo has little time.
	err = s.compare(context.WithoutCancel(ctx), m, "")
	if errors.Is(err, recover.ErrUnproven) {
		return fmt.Errorf("%w: the new %s and the old inode, which the keeper holds, differ since the run was interrupted: "+
			"somebody has started the guest on the new one, or let it go on with the old one, and only they know which is later. "+
			"Both are kept; to go on with the new one, end the run: os-rescue resume --abandon %s: %w",
			recover.ErrConflict, m.want.Path, s.t.Run.Plan.Run, err)
	}
	return err
}
