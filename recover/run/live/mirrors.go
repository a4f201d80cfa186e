package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// mirrorPoll is how often a mirror is looked at.
const mirrorPoll = 100 * time.Millisecond

// mirrorSettleTime is how long the mirrors of a suspended guest may take to have all that
// it wrote.
const mirrorSettleTime = 10 * time.Second

// mirrors are the disks of one guest that are, or were, mirrored.
type mirrors struct {
	t     *task.Task
	guest *guest.Guest
	files *staging.Set
	dirs  *staging.Directories
	all   []*mirror
}

// begin begins the mirror of one disk.
func (s *mirrors) begin(ctx context.Context, f recover.FilePlan, disk recover.Disk, support recover.MirrorSupport) error {
	t := s.t
	dir, err := s.dirs.ForFile(t.Run.Plan.Run, f, t.Run.Owners)
	if err != nil {
		return err
	}
	m, err := newMirror(t.Run.Root, dir, t.Plan.UUID, f, disk)
	if err != nil {
		return err
	}
	s.all = append(s.all, m)
	t.OnFailure(journal.StepCleanup, func(ctx context.Context) error { return s.abandon(ctx, m) })
	if err := errors.Join(m.measure(), dir.Sync()); err != nil {
		return err
	}
	src, err := t.Run.Source(ctx, f)
	if err == nil {
		err = copier.TakeOver(m.file, src)
	}
	if err != nil {
		return staging.CopyError(f, err)
	}
	return t.StepData(ctx, journal.StepMirror, f.Path, m.record(), func() (any, error) {
		if t.Run.Plan.Options.ReplaceExisting {
			if err := staging.ClearPath(t, f); err != nil {
				return nil, err
			}
		}
		if err := m.lend(); err != nil {
			return nil, err
		}
		err := t.Run.Hypervisor.Mirror(ctx, t.Plan.UUID, recover.MirrorRequest{
			Target:         f.Target,
			Path:           f.Path,
			Format:         f.Format,
			BytesPerSecond: t.Run.Plan.Options.Live.BytesPerSecond,
			Synchronous:    support.Synchronous,
		})
		if err == nil {
			// Somebody who powers the instance on from here on finds no half disk.
			err = m.takeBack()
		}
		if err != nil {
			return nil, staging.CopyError(f, err)
		}
		return nil, nil
	})
}

// keepAllocation reserves in each mirror of a raw disk what the disk has reserved. Where
// things lie in a qcow2 image is another matter in each file.
func (s *mirrors) keepAllocation(ctx context.Context) error {
	for _, m := range s.all {
		if m.want.Format != "raw" {
			continue
		}
		src, err := s.t.Run.Source(ctx, m.want)
		if err == nil {
			err = copier.KeepAllocation(m.file, src)
		}
		if err != nil {
			return staging.CopyError(m.want, err)
		}
	}
	return nil
}

// awaitReady waits until every mirror has all of its disk.
func (s *mirrors) awaitReady(ctx context.Context) error {
	if limit := s.t.Run.Plan.Options.Live.Timeout; limit > 0 {
		var cancel context.CancelFunc
		late := fmt.Errorf("its mirrors are not ready after %s (--timeout): the guest may write faster than they follow, "+
			"or --bandwidth is too low", limit)
		ctx, cancel = context.WithTimeoutCause(ctx, limit, late)
		defer cancel()
	}
	defer s.hide()
	return s.t.Step(ctx, journal.StepReady, "", func() error {
		for {
			ready := true
			for _, m := range s.all {
				state, err := s.look(ctx, m)
				if err != nil {
					return err
				}
				ready = ready && state.Ready
			}
			if ready {
				return nil
			}
			if err := s.roomLeft(); err != nil {
				return err
			}
			recover.Pause(ctx, mirrorPoll)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	})
}

func (s *mirrors) hide() {
	for _, m := range s.all {
		if m.show != nil {
			m.show.Done()
			m.show = nil
		}
		s.t.AddBytes(m.copied)
	}
}

// look reads how far a mirror is, and shows it.
func (s *mirrors) look(ctx context.Context, m *mirror) (recover.MirrorState, error) {
	state, err := s.t.Run.Hypervisor.MirrorState(ctx, s.t.Plan.UUID, m.want.Target)
	if errors.Is(err, recover.ErrNoMirror) {
		return state, endedError(m, err)
	}
	if err != nil {
		return state, err
	}
	if m.show == nil {
		m.show = s.t.Run.Progress.File(s.t.Subject(), m.want.Path, journal.StepMirror, state.Total)
	}
	if state.Copied > m.copied {
		m.show.Add(state.Copied - m.copied)
		m.copied = state.Copied
	}
	return state, nil
}

// endedError says why a mirror may have ended by itself: QEMU ends it at the first error
// of its target, and the guest goes on with its source (QEMU's qapi/block-core.json,
// blockdev-mirror: on-target-error is report by default).
func endedError(m *mirror, err error) error {
	err = fmt.Errorf("the mirror of %s ended before it was complete: QEMU had an error, or somebody ended it: %w", m.want.Path, err)
	room, serr := m.dir.Statfs()
	if serr == nil && int64(room.Free) < 16<<20 {
		return fmt.Errorf("%w: %s are free on the file system of %s: %w", recover.ErrNoSpace, humanize.IBytes(room.Free), m.want.Path, err)
	}
	return err
}

// roomLeft gives up before a file system is full on which healthy guests live:
// mirrors grow with what the guests write. ErrNoSpace.
func (s *mirrors) roomLeft() error {
	for _, m := range s.all {
		if err := m.dir.RoomLeft(s.t.Run.Settings.Headroom, m.want.Path); err != nil {
			return err
		}
	}
	return nil
}

// settle waits, with the guest suspended, until all it wrote is in the mirrors.
func (s *mirrors) settle(ctx context.Context) error {
	for end := time.Now().Add(mirrorSettleTime); ; recover.Pause(ctx, 5*time.Millisecond) {
		quiet := true
		for _, m := range s.all {
			state, err := s.t.Run.Hypervisor.MirrorState(ctx, s.t.Plan.UUID, m.want.Target)
			if err != nil {
				return err
			}
			quiet = quiet && state.Ready && state.Copied == state.Total
		}
		switch {
		case quiet:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("its mirrors did not settle within %.0f s of the suspend", mirrorSettleTime.Seconds())
		}
	}
}

// place gives the mirrors their disks' names.
func (s *mirrors) place(ctx context.Context) error {
	for _, m := range s.all {
		m.placing = true
		if err := s.t.Step(ctx, journal.StepPlace, m.want.Path, m.lend); err != nil {
			return err
		}
	}
	return nil
}

// pivot moves the guest onto the mirrors, one by one.
func (s *mirrors) pivot(ctx context.Context) error {
	if err := s.t.Run.Pins.Ensure(ctx); err != nil {
		return err
	}
	for _, m := range s.all {
		m.pivoting = true
		err := s.t.Step(ctx, journal.StepPivot, m.want.Path, func() error {
			err := s.t.Run.Hypervisor.Pivot(ctx, s.t.Plan.UUID, m.want.Target)
			if err != nil {
				if isOnNew, isOnOld := s.isOn(ctx, m); isOnNew && !isOnOld {
					err = nil // its answer was lost
				}
			}
			m.pivoted = err == nil
			return err
		})
		if err != nil {
			return fmt.Errorf("move the guest onto the new %s: %w", m.want.Path, err)
		}
	}
	return nil
}

// anyPivoting is true when the guest may be on one of the new disks.
func (s *mirrors) anyPivoting() bool {
	return slices.ContainsFunc(s.all, func(m *mirror) bool { return m.pivoting })
}

// anyPivoted is true when the guest is on one of the new disks.
func (s *mirrors) anyPivoted() bool {
	return slices.ContainsFunc(s.all, func(m *mirror) bool { return m.pivoted })
}

// isOn says whether the instance's QEMU has the mirror open for writing, and the lost inode. It has
// both open while a mirror is under way.
func (s *mirrors) isOn(ctx context.Context, m *mirror) (isOnNew, isOnOld bool) {
	open, err := procfs.HeldBy(ctx, s.t.Plan.Process.PID)
	if err != nil || !s.guest.SameProcess() {
		return false, false
	}
	for _, h := range open {
		if h.Writable() {
			isOnNew = isOnNew || h.Inode().Is(m.inode, true)
			isOnOld = isOnOld || h.Inode().Is(m.want.Identity(), true)
		}
	}
	return isOnNew, isOnOld
}

// own gives a disk that the guest is on the owner, mode and label that it should
// have: at the pivot libvirt takes those of the old source away from whatever
// stands at its path (qemuBlockJobEventProcessConcludedCopyPivot in libvirt's
// src/qemu/qemu_blockjob.c), and that is the new file.
func (s *mirrors) own(ctx context.Context, m *mirror) error {
	t, f := s.t, m.want
	rec := journal.Published{Source: f.Key(), Device: m.inode.Device, Inode: m.inode.Inode, Birth: m.inode.Birth}
	return t.StepData(ctx, journal.StepPublish, f.Path, rec, func() (any, error) {
		st, err := t.Run.Root.Lstat(f.Path)
		if err != nil {
			return nil, err
		}
		if st.Inode() != m.inode {
			return nil, fmt.Errorf("%w: %s is not the file that its guest was moved onto", recover.ErrConflict, f.Path)
		}
		staging.KeepAttributes(ctx, t, f, m.file)
		if err := beneath.SetOwner(m.file, t.Run.Owners.File(f, t.Plan.DACLabel)); err != nil {
			return nil, err
		}
		if label := t.Plan.ImageLabel; label != "" {
			if err := unix.Fsetxattr(int(m.file.Fd()), "security.selinux", append([]byte(label), 0), 0); err != nil {
				return nil, fmt.Errorf("set the SELinux label %s: %w", label, err)
			}
		}
		staging.RememberOne(ctx, t, f, m.file, true)
		if err := m.file.Sync(); err != nil {
			return nil, err
		}
		m.published = true
		s.files.NoteMoved(f, m.isProven())
		t.NotePlaced(f.Path, rec)
		return nil, nil
	})
}

// close closes the files of the mirrors and leaves them as they are.
func (s *mirrors) close() {
	for _, m := range s.all {
		m.close()
	}
}

// forget closes the mirrors, and is for what is begun anew.
func (s *mirrors) forget() {
	s.close()
	s.all = nil
}
