package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// undoEarlier notes how the live rescue of an interrupted run is undone: the guest
// is left as it was found, but for the disks that it was moved onto already. Call
// forgetEarlier after the rollback.
func (s *switchover) undoEarlier() error {
	t := s.t
	if err := s.findMirrors(); err != nil {
		return err
	}
	for _, rec := range t.history.sealed {
		t.onFailure(stepUnseal, func(context.Context) error { return unseal(t, rec) })
	}
	for _, m := range s.mirrors.all {
		t.onFailure(stepCleanup, func(ctx context.Context) error { return s.mirrors.abandon(ctx, m) })
	}
	if t.history.exported {
		t.onFailure(stepEndExport, func(ctx context.Context) error { return t.run.hypervisor.EndExport(ctx, t.plan.UUID) })
	}
	return nil
}

// forgetEarlier forgets the mirrors of the interrupted run.
func (s *switchover) forgetEarlier() { s.mirrors.forget() }

// findMirrors finds the files of the mirrors that an interrupted run had begun.
func (s *switchover) findMirrors() error {
	h := s.t.history
	for _, f := range s.t.plan.Files {
		rec, ok := h.mirrors[f.Path]
		if !ok {
			continue
		}
		m, err := reopenMirror(s.t.run.root, s.mirrors.dirs, f, rec)
		if err != nil {
			return err
		}
		m.placing, m.pivoting, m.pivoted = h.placing[f.Path], h.pivoting[f.Path], h.pivoted[f.Path]
		s.mirrors.all = append(s.mirrors.all, m)
	}
	return nil
}

// abandonEnded sorts the files of a live rescue, this run's or an interrupted one's,
// whose guest has ended: what it had been moved onto is its disk, the others are to
// be restored from what is held of them. The plan says so afterwards.
func (s *switchover) abandonEnded(ctx context.Context) error {
	t := s.t
	if t.history != nil && len(s.mirrors.all) == 0 {
		if err := s.undoEarlier(); err != nil {
			return err
		}
	}
	if err := t.rollback(ctx); err != nil {
		return err
	}
	for _, m := range s.mirrors.all {
		if !m.pivoted {
			continue
		}
		t.notef("it was running on the new %s already, which stays", m.want.Path)
		t.forgetFile(m.want.Path)
	}
	s.mirrors.forget()
	t.amend(func(plan *InstancePlan) { plan.Action = ActionReboot })
	for _, f := range slices.Clone(t.plan.Files) {
		if f.Role != RoleConsoleLog {
			continue
		}
		if err := s.renewLog(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// renewLog removes the console log that was put back while the guest ran, so that
// its last words come too: they are in the old one only. One that was written to
// since is the log of a later start, and stays.
func (s *switchover) renewLog(ctx context.Context, f FilePlan) error {
	dir, err := s.t.run.root.OpenDir(filepath.Dir(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	log, err := dir.Open(filepath.Base(f.Path), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer log.Close()
	at, size, err := measured(log)
	if err != nil {
		return err
	}
	if !s.files.isPutBackLog(at) && !s.t.publishedBefore(f, at) {
		return nil
	}
	src, err := s.t.run.source(ctx, f)
	if err == nil {
		err = samePrefix(log, src.File, size)
	}
	switch {
	case err == nil:
		return dir.Remove(filepath.Base(f.Path))
	case errors.Is(err, ErrUnproven), errors.Is(err, fs.ErrNotExist):
		s.t.forgetFile(f.Path)
		return nil
	}
	return err
}

// settleEarlier ends a live rescue that was interrupted after its guest was on its
// new disks: they can't be compared with the old ones any more. ErrUnproven when the
// interrupted run has found that they differ.
func (s *switchover) settleEarlier(ctx context.Context) error {
	t := s.t
	t.setMode(ModeLive)
	t.setVerified(VerifyStructure)
	var differ error
	for _, f := range t.written() {
		if !t.history.differs[f.Path] {
			continue
		}
		differ = errors.Join(differ, fmt.Errorf("%w: the comparison found that the new %s differs from the old one", ErrUnproven, f.Path))
		if _, err := t.run.root.Lstat(s.verify.oldPath(f)); errors.Is(err, fs.ErrNotExist) {
			if err := s.verify.keepOld(ctx, f); err != nil {
				return err
			}
		}
	}
	if differ != nil {
		return errors.Join(differ, t.enter(eventKeepOld))
	}
	t.notef("the new disks were checked as images; the run was interrupted before they were compared with the old ones")
	return nil
}
