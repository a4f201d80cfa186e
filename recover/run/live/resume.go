package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// UndoEarlier notes, for the task's Rollback, how the live rescue of an interrupted run is
// undone: the guest is left as it was found, but for the disks that it was moved onto
// already. Call ForgetEarlier after the rollback. The error is of files that can't be
// looked at.
func (s *Switchover) UndoEarlier() error {
	t := s.t
	if err := s.findMirrors(); err != nil {
		return err
	}
	for _, rec := range t.History.Sealed {
		t.OnFailure(journal.StepUnseal, func(context.Context) error { return staging.Unseal(t, rec) })
	}
	for _, m := range s.mirrors.all {
		t.OnFailure(journal.StepCleanup, func(ctx context.Context) error { return s.mirrors.abandon(ctx, m) })
	}
	if t.History.Exported {
		t.OnFailure(journal.StepEndExport, func(ctx context.Context) error { return t.Run.Hypervisor.EndExport(ctx, t.Plan.UUID) })
	}
	return nil
}

// ForgetEarlier closes and forgets the mirrors of the interrupted run, which are undone.
func (s *Switchover) ForgetEarlier() { s.mirrors.forget() }

// findMirrors finds the files of the mirrors that an interrupted run had begun.
func (s *Switchover) findMirrors() error {
	h := s.t.History
	for _, f := range s.t.Plan.Files {
		rec, ok := h.Mirrors[f.Path]
		if !ok {
			continue
		}
		m, err := reopenMirror(s.t.Run.Root, s.mirrors.dirs, f, rec)
		if err != nil {
			return err
		}
		m.placing, m.pivoting, m.pivoted = h.Placing[f.Path], h.Pivoting[f.Path], h.Pivoted[f.Path]
		m.checked = !h.IsUnproven(f.Path)
		s.mirrors.all = append(s.mirrors.all, m)
	}
	return nil
}

// AbandonEnded sorts the files of a live rescue, this run's or an interrupted one's, whose
// guest has ended: what it had been moved onto is its disk, and the others are to be
// restored from what is held of them. The task's plan says so afterwards.
// recover.ErrConflict when somebody has started the guest on a new disk since.
func (s *Switchover) AbandonEnded(ctx context.Context) error {
	t := s.t
	if t.History != nil && len(s.mirrors.all) == 0 {
		if err := s.UndoEarlier(); err != nil {
			return err
		}
	}
	if err := t.Rollback(ctx); err != nil {
		return err
	}
	// Before any of them is taken out of the plan, with its old disk.
	if _, err := s.KeepOld(ctx); err != nil {
		return err
	}
	for _, m := range s.mirrors.all {
		if !m.pivoted {
			continue
		}
		t.Notef("it was running on the new %s already, which stays", m.want.Path)
		t.ForgetFile(m.want.Path)
	}
	s.mirrors.forget()
	t.Amend(func(plan *recover.InstancePlan) { plan.Action = recover.ActionReboot })
	for _, f := range slices.Clone(t.Plan.Files) {
		if f.Role != recover.RoleConsoleLog {
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
func (s *Switchover) renewLog(ctx context.Context, f recover.FilePlan) error {
	dir, err := s.t.Run.Root.OpenDir(filepath.Dir(f.Path))
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
	at, size, err := staging.Measured(log)
	if err != nil {
		return err
	}
	if !s.files.IsPutBackLog(at) && !s.t.PublishedBefore(f, at, false) {
		return nil
	}
	src, err := s.t.Run.Source(ctx, f)
	if err == nil {
		err = staging.SamePrefix(log, src.File, size)
	}
	switch {
	case err == nil:
		return dir.Remove(filepath.Base(f.Path))
	case errors.Is(err, recover.ErrUnproven), errors.Is(err, fs.ErrNotExist):
		s.t.ForgetFile(f.Path)
		return nil
	}
	return err
}

// KeepOld keeps what was lost in files beside the new ones, for each disk that an interrupted
// run has moved the guest onto without a proof: nothing can give one any more. It returns
// their paths. Once it is done the lost inodes are not all that there is of those disks.
func (s *Switchover) KeepOld(ctx context.Context) ([]string, error) {
	t, h := s.t, s.t.History
	if h == nil {
		return nil, nil
	}
	var kept []string
	for _, f := range t.Written() {
		if !h.IsUnproven(f.Path) || !h.Pivoted[f.Path] && !s.isMovedTo(f) {
			continue
		}
		kept = append(kept, f.Path)
		if !h.IsInDoubt(f.Path) || s.kept[f.Path] {
			continue
		}
		if _, err := t.Run.Source(ctx, f); errors.Is(err, fs.ErrNotExist) {
			t.Notef("the new %s could not be verified, and nobody holds the old one any more", f.Path)
			continue
		}
		why := "could not be verified"
		if h.Differs[f.Path] {
			why = "differs from what it was before: compare the two"
		}
		t.Notef("the new %s %s", f.Path, why)
		if err := s.verify.keepOld(ctx, f); err != nil {
			return kept, err
		}
		s.kept[f.Path] = true
	}
	return kept, nil
}

// isMovedTo is true when the undo of an interrupted run has found the guest on a mirror.
func (s *Switchover) isMovedTo(f recover.FilePlan) bool {
	at, err := s.t.Run.Root.Lstat(f.Path)
	return err == nil && s.t.History.Mirrors[f.Path].Is(at.Inode()) && s.t.PublishedBefore(f, at.Inode(), true)
}

// SettleEarlier ends a live rescue that was interrupted after its guest was on its new
// disks: they can't be compared with the old ones any more. recover.ErrUnproven when the
// interrupted run has found that they differ.
func (s *Switchover) SettleEarlier(ctx context.Context) error {
	t := s.t
	t.SetMode(recover.ModeLive)
	t.SetVerified(recover.VerifyStructure)
	unproven, err := s.KeepOld(ctx)
	if err != nil {
		return err
	}
	var differ error
	for _, f := range t.Written() {
		if t.History.Differs[f.Path] {
			differ = errors.Join(differ, fmt.Errorf("%w: by the comparison the new %s differs from the old one", recover.ErrUnproven, f.Path))
		}
	}
	if differ != nil {
		return errors.Join(differ, t.Enter(ctx, task.EventKeepOld))
	}
	how := recover.VerifyFull
	var rest []recover.FilePlan
	for _, f := range t.Written() {
		switch by := t.History.ComparedBy(f.Path); {
		case by == "" && !slices.Contains(unproven, f.Path):
			rest = append(rest, f)
		case by == recover.VerifyRunning:
			how = by
		}
	}
	if len(rest) > 0 {
		t.Notef("%s; the run was interrupted before they were compared", notCompared(rest))
	} else if len(unproven) == 0 {
		t.SetVerified(how)
	}
	return nil
}
