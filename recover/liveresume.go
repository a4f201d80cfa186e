package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// undoLive leaves a guest whose live rescue was interrupted as it was found, but
// for the disks that it was moved onto already: those stay.
func (t *task) undoLive() error {
	if err := t.findMoves(); err != nil {
		return err
	}
	for _, rec := range t.prior.sealed {
		t.onFailure(stepUnseal, func(context.Context) error { return t.open(rec) })
	}
	for _, m := range t.moves {
		t.onFailure(stepCleanup, func(ctx context.Context) error { return t.giveUp(ctx, m) })
	}
	if t.prior.exported {
		t.onFailure(stepEndExport, func(ctx context.Context) error { return t.s.e.Hypervisor.EndExport(ctx, t.ip.UUID) })
	}
	return nil
}

// findMoves finds the files of the mirrors that an interrupted run had begun.
func (t *task) findMoves() error {
	for _, f := range t.ip.Files {
		rec, ok := t.prior.mirrors[f.Path]
		if !ok {
			continue
		}
		m, err := t.reopened(f, rec)
		if err != nil {
			return err
		}
		m.placing, m.pivoting, m.pivoted = t.prior.placing[f.Path], t.prior.pivoting[f.Path], t.prior.pivoted[f.Path]
		t.moves = append(t.moves, m)
	}
	return nil
}

// forgetMoves is for what is begun anew.
func (t *task) forgetMoves() {
	t.closeMoves()
	t.moves = nil
}

// endLive sorts the files of an interrupted live rescue whose guest has ended:
// what it had been moved onto is its disk, the others come from the pins.
func (t *task) endLive(ctx context.Context) error {
	if t.prior != nil && len(t.moves) == 0 {
		if err := t.undoLive(); err != nil {
			return err
		}
	}
	if err := t.rollback(ctx); err != nil {
		return err
	}
	for _, m := range t.moves {
		if !m.pivoted {
			continue
		}
		t.notef("it was running on the new %s already, which stays", m.plan.Path)
		t.ip.Files = slices.DeleteFunc(t.ip.Files, func(f FilePlan) bool { return f.Path == m.plan.Path })
	}
	t.forgetMoves()
	t.staged = nil
	t.ip.Action = ActionReboot
	for _, f := range slices.Clone(t.ip.Files) {
		if f.Role != RoleConsoleLog {
			continue
		}
		if err := t.renewLog(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// renewLog removes the console log that was put back while the guest ran, so that
// its last words come too: they are in the old one only. One that was written to
// since is the log of a later start, and stays.
func (t *task) renewLog(ctx context.Context, f FilePlan) error {
	dir, err := t.s.root.OpenDir(filepath.Dir(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	log := &stagedFile{plan: f}
	if log.file, err = dir.Open(filepath.Base(f.Path), os.O_RDONLY); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer log.file.Close()
	if err := log.measure(); err != nil {
		return err
	}
	if log.inode != t.logged && !t.s.publishedBefore(f, log.inode) {
		return nil
	}
	src, err := t.s.source(ctx, f)
	if err == nil {
		err = samePrefix(log.file, src.File, log.size)
	}
	switch {
	case err == nil:
		return dir.Remove(filepath.Base(f.Path))
	case errors.Is(err, ErrUnproven), errors.Is(err, fs.ErrNotExist):
		t.ip.Files = slices.DeleteFunc(t.ip.Files, func(other FilePlan) bool { return other.Path == f.Path })
		return nil
	}
	return err
}

// giveUpEnded is giveUp for a guest whose QEMU is gone. A mirror's file is removed
// only while the inode that it was made of is held.
func (t *task) giveUpEnded(ctx context.Context, m *mirrored) error {
	if m.file == nil {
		return nil
	}
	st, err := t.s.root.Lstat(m.plan.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	placed := err == nil && st.Ino == m.inode.Inode
	_, err = t.s.source(ctx, m.plan)
	held := err == nil
	switch {
	case placed && (m.pivoted || m.pivoting && !held):
		m.pivoted = true
		return t.own(ctx, m)
	case !held || m.pivoting && !placed:
		at := m.plan.Path
		if !placed && m.stage != nil {
			at = m.stage.dir.Path() + "/" + m.name
		}
		t.notef("the mirror of %s, perhaps all that is left of it, stays at %s", m.plan.Path, at)
		return nil
	case placed && m.placing:
		if err := t.unused(ctx, m); err != nil {
			return err
		}
	}
	return t.removeMirror(m)
}

// unused makes sure that a mirror that had its disk's name when its QEMU ended is
// no more than the old inode: somebody may have started the guest on it since.
func (t *task) unused(ctx context.Context, m *mirrored) error {
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	if err != nil && !errors.Is(err, ErrNoDomain) {
		return err
	}
	if err == nil && d.State != StateShutOff {
		return fmt.Errorf("%w: somebody has started it on the new %s", ErrConflict, m.plan.Path)
	}
	// libvirt has taken the file of the domain that ended away from QEMU's user.
	if err := beneath.SetOwner(m.file, t.s.owners.File(m.plan, t.ip.DACLabel)); err != nil {
		return err
	}
	// However long it takes: an undo has little time.
	err = t.compareOne(context.WithoutCancel(ctx), m, "")
	if errors.Is(err, ErrUnproven) {
		return fmt.Errorf("%w: the new %s and the old inode, which the keeper holds, have changed apart since the run was interrupted: somebody has started the guest on the new one, or let it go on with the old one, and only they know which is later. Both are kept; if the new one is it, end the run by removing %s: %w",
			ErrConflict, m.plan.Path, t.s.state.run(t.s.plan.Run), err)
	}
	return err
}

// settleLive ends a live rescue that was interrupted after its guest was on its
// new disks: they can't be compared with the old ones any more.
func (t *task) settleLive(ctx context.Context) error {
	t.report.Mode, t.report.Verified = ModeLive, VerifyStructure
	var differ error
	for _, f := range t.written() {
		if !t.prior.differs[f.Path] {
			continue
		}
		differ = errors.Join(differ, fmt.Errorf("%w: the comparison found that the new %s differs from the old one", ErrUnproven, f.Path))
		if _, err := t.s.root.Lstat(t.oldPath(f)); errors.Is(err, fs.ErrNotExist) {
			if err := t.keepOld(ctx, f); err != nil {
				return err
			}
		}
	}
	if t.oldKept = differ != nil; t.oldKept {
		return differ
	}
	t.notef("the new disks were checked as images; the run was interrupted before they were compared with the old ones")
	return nil
}
