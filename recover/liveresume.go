package recover

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
		m.pivoting, m.pivoted = t.prior.pivoting[f.Path], t.prior.pivoted[f.Path]
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
	case m.pivoting || !held:
		t.notef("the mirror of %s, perhaps all that is left of it, stays at %s/%s", m.plan.Path, m.stage.dir.Path(), m.name)
		return nil
	}
	return t.removeMirror(m)
}

// settleLive ends a live rescue that was interrupted after its guest was on its
// new disks: they can't be compared with the old ones any more.
func (t *task) settleLive(ctx context.Context) error {
	for _, f := range t.written() {
		if !t.prior.differs[f.Path] {
			continue
		}
		t.notef("the comparison found that the new %s differs from the old one", f.Path)
		if _, err := t.s.root.Lstat(t.oldPath(f)); errors.Is(err, fs.ErrNotExist) {
			if err := t.keepOld(ctx, f); err != nil {
				return err
			}
		}
	}
	t.report.Mode, t.report.Verified = ModeLive, VerifyStructure
	t.notef("the new disks were checked as images; the run was interrupted before they were compared with the old ones")
	return nil
}
