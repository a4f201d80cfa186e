package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// mirrored is one disk on its way to a new file. The embedded file is staged but
// for two moments: when QEMU opens it, by the disk's own path, and from the guest's
// suspend on.
type mirrored struct {
	stagedFile
	disk    Disk // with its chain, as libvirt has it
	copied  int64
	show    FileProgress
	placing bool // it may have its disk's name, and is complete
	// The pivot was begun, and is known to have happened.
	pivoting, pivoted bool
}

// mirrorPoll is how often a mirror is looked at.
const mirrorPoll = 100 * time.Millisecond

// mirror begins one disk's mirror.
func (t *task) mirror(ctx context.Context, f FilePlan, disk Disk, support MirrorSupport) error {
	st, err := t.s.stages.forFile(t.s.plan.Run, f, t.s.owners)
	if err != nil {
		return err
	}
	name, err := stageName(t.ip, f)
	if err != nil {
		return err
	}
	m := &mirrored{stagedFile: stagedFile{plan: f, stage: st, name: name}, disk: disk}
	if m.file, err = st.dir.Create(name); err != nil {
		return t.copyError(f, err)
	}
	t.moves = append(t.moves, m)
	t.onFailure(stepCleanup, func(ctx context.Context) error { return t.giveUp(ctx, m) })
	if err := errors.Join(m.measure(), st.dir.Sync()); err != nil {
		return err
	}
	rec := mirrorRecord{Target: f.Target, Dir: st.dir.Path(), Name: name, Inode: m.inode.Inode, Source: f.Key(), Disk: disk}
	return t.stepData(ctx, stepMirror, f.Path, rec, func() (any, error) {
		if t.s.plan.Options.ReplaceExisting {
			if err := t.clear(f); err != nil {
				return nil, err
			}
		}
		if err := t.name(m); err != nil {
			return nil, err
		}
		err := t.s.e.Hypervisor.Mirror(ctx, t.ip.UUID, MirrorRequest{Target: f.Target, Path: f.Path, Format: f.Format,
			BytesPerSecond: t.s.plan.Options.Live.BytesPerSecond, Synchronous: support.Synchronous})
		if err == nil {
			// Whoever powers the instance on from here on finds no half disk.
			err = t.unname(m)
		}
		if err != nil {
			return nil, t.copyError(f, err)
		}
		return nil, nil
	})
}

// clear moves aside what stands at a file's path.
func (t *task) clear(f FilePlan) error {
	dir, err := t.s.root.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return t.moveAside(dir, filepath.Base(f.Path))
}

// name gives a mirror its disk's own path, unname its staging place again.
func (t *task) name(m *mirrored) error {
	return t.inPlace(m, func(dir *beneath.Dir, name string) error {
		return beneath.Publish(m.stage.dir, m.name, dir, name)
	})
}

func (t *task) unname(m *mirrored) error {
	return t.inPlace(m, func(dir *beneath.Dir, name string) error {
		return beneath.Publish(dir, name, m.stage.dir, m.name)
	})
}

func (t *task) inPlace(m *mirrored, do func(dir *beneath.Dir, name string) error) error {
	dir, err := t.s.root.OpenDir(filepath.Dir(m.plan.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir, filepath.Base(m.plan.Path))
}

// awaitReady waits until every mirror has all of its disk.
func (t *task) awaitReady(ctx context.Context) error {
	if limit := t.s.plan.Options.Live.Timeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("its mirrors are not ready after %s (--timeout): the guest may write faster than they follow, or --bandwidth is too low", limit))
		defer cancel()
	}
	defer t.hideMirrors()
	return t.step(ctx, stepReady, "", func() error {
		for {
			ready := true
			for _, m := range t.moves {
				state, err := t.lookAt(ctx, m)
				if err != nil {
					return err
				}
				ready = ready && state.Ready
			}
			if ready {
				return nil
			}
			if err := t.roomLeft(); err != nil {
				return err
			}
			pause(ctx, mirrorPoll)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	})
}

func (t *task) hideMirrors() {
	for _, m := range t.moves {
		if m.show != nil {
			m.show.Done()
			m.show = nil
		}
		t.addBytes(m.copied)
	}
}

// lookAt reads how far a mirror is, and shows it.
func (t *task) lookAt(ctx context.Context, m *mirrored) (MirrorState, error) {
	state, err := t.s.e.Hypervisor.MirrorState(ctx, t.ip.UUID, m.plan.Target)
	if errors.Is(err, ErrNoMirror) {
		return state, t.mirrorEnded(m, err)
	}
	if err != nil {
		return state, err
	}
	if m.show == nil {
		m.show = t.s.e.Progress.File(t.subject(), m.plan.Path, stepMirror, state.Total)
	}
	if state.Copied > m.copied {
		m.show.Add(state.Copied - m.copied)
		m.copied = state.Copied
	}
	return state, nil
}

// mirrorEnded says why a mirror may have ended by itself: QEMU ends it at the
// first error of its target, and the guest goes on with its source.
func (t *task) mirrorEnded(m *mirrored, err error) error {
	err = fmt.Errorf("the mirror of %s has ended before it was complete, by an error of QEMU's or by somebody's hand: %w", m.plan.Path, err)
	space, serr := m.stage.dir.Statfs()
	if serr == nil && int64(space.Free) < 16<<20 {
		return fmt.Errorf("%w: %s are free on the file system of %s: %w", ErrNoSpace, humanize.IBytes(space.Free), m.plan.Path, err)
	}
	return err
}

// roomLeft gives up before a file system is full on which healthy guests live:
// mirrors grow with what the guests write.
func (t *task) roomLeft() error {
	for _, m := range t.moves {
		if err := t.roomOn(m.stage, m.plan.Path); err != nil {
			return err
		}
	}
	return nil
}

func (t *task) roomOn(st *stage, path string) error {
	space, err := st.dir.Statfs()
	if err != nil {
		return err
	}
	if floor := t.s.e.Settings.Headroom / 2 * float64(space.Total); float64(space.Free) < floor {
		return fmt.Errorf("%w: only %s are left on the file system of %s, and a full one pauses its healthy guests", ErrNoSpace, humanize.IBytes(space.Free), path)
	}
	return nil
}

// mirrorsSettled waits, with the guest suspended, until all it wrote is in the mirrors.
func (t *task) mirrorsSettled(ctx context.Context) error {
	for end := time.Now().Add(10 * time.Second); ; pause(ctx, 5*time.Millisecond) {
		quiet := true
		for _, m := range t.moves {
			state, err := t.s.e.Hypervisor.MirrorState(ctx, t.ip.UUID, m.plan.Target)
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
			return errors.New("the guest is suspended, and its mirrors do not come to rest")
		}
	}
}

// place gives the mirrors their disks' names; pivotAll moves the guest onto them.
func (t *task) place(ctx context.Context) error {
	for _, m := range t.moves {
		m.placing = true
		if err := t.step(ctx, stepPlace, m.plan.Path, func() error { return t.name(m) }); err != nil {
			return err
		}
	}
	return nil
}

func (t *task) pivotAll(ctx context.Context) error {
	for _, m := range t.moves {
		m.pivoting = true
		err := t.step(ctx, stepPivot, m.plan.Path, func() error {
			err := t.s.e.Hypervisor.Pivot(ctx, t.ip.UUID, m.plan.Target)
			if err != nil && t.isOn(ctx, m.inode) && !t.isOnOld(ctx, m.plan) {
				err = nil // its answer was lost
			}
			m.pivoted = err == nil
			return err
		})
		if err != nil {
			return fmt.Errorf("move the guest onto the new %s: %w", m.plan.Path, err)
		}
	}
	return nil
}

// isOn is true when the instance's QEMU has that inode open for writing; a mirror
// that is under way has it too.
func (t *task) isOn(ctx context.Context, file inode) bool {
	held, err := heldBy(ctx, t.ip.Process.PID)
	if err != nil || !t.sameProcess() {
		return false
	}
	for _, h := range held {
		if h.inode() == file && h.writable() {
			return true
		}
	}
	return false
}

// isOnOld is true when QEMU has the lost inode open still.
func (t *task) isOnOld(ctx context.Context, f FilePlan) bool {
	return t.isOn(ctx, inode{f.Device, f.Inode})
}

// own gives a disk that the guest is on the owner, mode and label that it should
// have: at the pivot libvirt takes those of the old source away from whatever
// stands at its path (qemuBlockJobEventProcessConcludedCopyPivot in libvirt's
// src/qemu/qemu_blockjob.c), and that is the new file.
func (t *task) own(ctx context.Context, m *mirrored) error {
	f := m.plan
	rec := published{Source: f.Key(), Device: m.inode.Device, Inode: m.inode.Inode}
	return t.stepData(ctx, stepPublish, f.Path, rec, func() (any, error) {
		st, err := t.s.root.Lstat(f.Path)
		if err != nil {
			return nil, err
		}
		if st.Ino != m.inode.Inode {
			return nil, fmt.Errorf("%w: %s is not the file that its guest was moved onto", ErrConflict, f.Path)
		}
		if err := beneath.SetOwner(m.file, t.s.owners.File(f, t.ip.DACLabel)); err != nil {
			return nil, err
		}
		if label := t.ip.ImageLabel; label != "" {
			if err := unix.Fsetxattr(int(m.file.Fd()), "security.selinux", append([]byte(label), 0), 0); err != nil {
				return nil, fmt.Errorf("set the SELinux label %s: %w", label, err)
			}
		}
		if err := m.file.Sync(); err != nil {
			return nil, err
		}
		m.published = true
		if t.prior != nil {
			t.prior.published[f.Path] = rec
		}
		return nil, nil
	})
}

// giveUp ends one disk's mirror and removes its file, unless the guest is on it:
// then it is there to stay.
func (t *task) giveUp(ctx context.Context, m *mirrored) error {
	if m.published {
		return nil
	}
	if err := t.s.e.Hypervisor.EndMirror(ctx, t.ip.UUID, m.plan.Target); err != nil {
		return fmt.Errorf("end the mirror of %s: %w", m.plan.Path, err)
	}
	switch {
	case !t.sameProcess():
		return t.giveUpEnded(ctx, m)
	case m.file != nil && t.isOn(ctx, m.inode):
		m.pivoted = true
		if _, err := t.s.root.Lstat(m.plan.Path); errors.Is(err, fs.ErrNotExist) {
			if err := t.name(m); err != nil {
				return err
			}
		}
		return t.own(ctx, m)
	case m.file == nil:
		return nil
	case !t.isOnOld(ctx, m.plan):
		return fmt.Errorf("%w: QEMU has neither the old %s open nor its mirror, which stays where it is", ErrUnproven, m.plan.Path)
	}
	zerolog.Ctx(ctx).Debug().Str("path", m.plan.Path).Msg("the mirror is given up")
	return t.removeMirror(m)
}

// removeMirror removes a mirror's file, wherever it stands.
func (t *task) removeMirror(m *mirrored) error {
	var err error
	if m.stage != nil {
		err = m.stage.dir.Remove(m.name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, t.removeIfIts(m))
}

// removeIfIts removes what stands at a disk's path if it is its mirror's file.
func (t *task) removeIfIts(m *mirrored) error {
	err := t.inPlace(m, func(dir *beneath.Dir, name string) error {
		st, err := dir.Stat(name)
		if err != nil || st.Ino != m.inode.Inode {
			return err
		}
		return dir.Remove(name)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// reopened is the mirror that an interrupted run had begun, with no file when that
// is gone.
func (t *task) reopened(f FilePlan, rec mirrorRecord) (*mirrored, error) {
	st, err := t.s.stages.reopen(rec.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m := &mirrored{stagedFile: stagedFile{plan: f, stage: st, name: rec.Name, inherited: true}, disk: rec.Disk}
	if st != nil {
		m.file, err = st.dir.Open(rec.Name, os.O_RDWR)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = t.inPlace(m, func(dir *beneath.Dir, name string) error {
			m.file, err = dir.Open(name, os.O_RDWR)
			return err
		})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = m.measure()
	}
	if err == nil && m.inode.Inode != rec.Inode {
		m.file.Close()
		m.file = nil
	}
	return m, err
}
