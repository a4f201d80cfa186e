package staging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// Set is the copies of one instance's files, from their first byte to their name.
type Set struct {
	t    *task.Task
	dirs *Directories
	once *Once

	staged []*stagedFile // of what the guest writes, and of what is published with it
	begun  []*stagedFile // copied ahead of the suspend, and not proven yet
	// moved are the paths of the disks that the guest was moved onto: true while the new file
	// is a proven copy.
	moved map[string]bool
	// compared are what is held of files to restore, as it was when it was compared with the
	// backup, by path.
	compared map[string]copier.Mark
	// consoleLog is the console log that was put back.
	consoleLog recover.Inode
	proofs     *proofs // of an interrupted run
}

// NewSet returns the copies of a task's files, none of which is made yet. dirs and
// once are the run's.
func NewSet(t *task.Task, dirs *Directories, once *Once) *Set {
	return &Set{t: t, dirs: dirs, once: once, moved: map[string]bool{}, compared: map[string]copier.Mark{}, proofs: newProofs(t, dirs)}
}

// StageWritten copies and proves everything that the guest writes, and what is published
// with it. check is called with each copy that is proven and its size in bytes; its error
// ends the staging. recover.ErrUnproven, recover.ErrCorrupt, recover.ErrConflict, and what
// CopyError makes.
func (s *Set) StageWritten(ctx context.Context, check func(f recover.FilePlan, size int64) error) error {
	for _, f := range s.t.Plan.Files {
		if !f.Writable && f.Role != recover.RoleConsoleLog && f.Role != recover.RoleDiskInfo {
			continue
		}
		staged, err := s.stage(ctx, f)
		if err != nil && s.doesWithout(ctx, f) {
			if err = staged.discard(ctx); err != nil {
				return err
			}
			continue
		}
		if staged != nil {
			s.staged = append(s.staged, staged)
		}
		if err != nil {
			return err
		}
		if err := check(f, staged.size); err != nil {
			return err
		}
	}
	return nil
}

// doesWithout is true for a console log that nobody holds any more: a disk must not wait for
// it, and libvirt makes a new one. The task forgets it.
func (s *Set) doesWithout(ctx context.Context, f recover.FilePlan) bool {
	if f.Role != recover.RoleConsoleLog {
		return false
	}
	if _, err := s.t.Run.Source(ctx, f); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s.t.Notef("nobody holds %s any more: what the guest has printed until now is gone, and its next start begins a new one", f.Path)
	s.t.ForgetFile(f.Path)
	return true
}

// StageAgain proves every copy once more, and makes those anew that are not what the held
// inodes have now: somebody else has let the guest go on, or ended it. Its errors are those
// of StageWritten.
func (s *Set) StageAgain(ctx context.Context) error {
	for n, staged := range s.staged {
		if staged.accepted {
			continue
		}
		err := s.sameContent(ctx, staged)
		if errors.Is(err, recover.ErrUnproven) && !staged.kept {
			if err = staged.discard(ctx); err == nil {
				var again *stagedFile
				if again, err = s.stage(ctx, staged.want); again != nil {
					s.staged[n] = again
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// PutBack copies, proves and publishes the files that the guest does not write, each once
// per run. Of a guest that runs on, these are the console log and disk.info too. Its errors
// are those of StageWritten.
func (s *Set) PutBack(ctx context.Context) error {
	small := func(f recover.FilePlan) bool {
		return f.Role == recover.RoleConsoleLog || f.Role == recover.RoleDiskInfo
	}
	for _, f := range s.t.Plan.Files {
		if f.Writable || small(f) {
			continue
		}
		if err := s.putBackOne(ctx, f); err != nil {
			return err
		}
	}
	if !s.t.Plan.Action.RunsOn() && s.t.Plan.Action != recover.ActionLive {
		return nil
	}
	for _, f := range s.t.Plan.Files {
		if !small(f) {
			continue
		}
		if err := s.putBackOne(ctx, f); err != nil && !s.doesWithout(ctx, f) {
			return err
		}
	}
	return nil
}

// putBackOne restores one file; instances that share it share the work.
func (s *Set) putBackOne(ctx context.Context, f recover.FilePlan) error {
	return s.once.Do(onceKey(f), func() error {
		at, err := s.CopyOut(ctx, f)
		if err == nil && f.Role == recover.RoleConsoleLog {
			s.consoleLog = at
		}
		return err
	})
}

func onceKey(f recover.FilePlan) string { return f.Path + " " + f.Key() }

// WhatStays names, for an operator, what stays of an instance that is left as it was found: files that
// its QEMU only reads are whole by themselves, and other instances may have them by now. "" for none.
func (s *Set) WhatStays() string {
	var paths []string
	for _, f := range essentialFirst(s.t.Plan.Files) {
		if _, err := s.t.Run.Root.Lstat(f.Path); err == nil && s.once.isBack(onceKey(f)) {
			paths = append(paths, f.Path)
		}
	}
	if len(paths) == 0 {
		return ""
	}
	return "back at its path, and stays: " + listed(paths)
}

// CopyOut copies one file, proves it and publishes it at once. It returns the new inode.
// Its errors are those of StageWritten.
func (s *Set) CopyOut(ctx context.Context, f recover.FilePlan) (recover.Inode, error) {
	staged, err := s.stage(ctx, f)
	keep := false
	defer func() {
		if staged != nil && staged.file != nil && !keep {
			staged.file.Close()
		}
	}()
	if err == nil {
		mark := staged.mark
		if err = publish(ctx, s.t, staged); err == nil && mark.IsSure() {
			s.once.noteMark(f.Key(), mark)
		}
	}
	if err != nil {
		return recover.Inode{}, errors.Join(err, staged.discard(ctx))
	}
	if keep = !f.Writable && staged.file != nil; keep {
		// QEMU goes on with the old one: on a file system that tells no births nothing else
		// says at the run's end that this one is still there.
		s.t.Run.Pins.Keep(staged.inode, staged.file)
	}
	return staged.inode, nil
}

// NamesAreFree looks, right before the destroy, whether every copy can be given its name:
// what can be known then must not be found out after it. recover.ErrConflict, and those of
// beneath.Root.CanName.
func (s *Set) NamesAreFree() error {
	for _, staged := range s.staged {
		if staged.kept {
			continue
		}
		path := staged.want.Path
		st, err := s.t.Run.Root.Lstat(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			if err := s.t.Run.Root.CanName(path, beneath.ChangeNames); err != nil {
				return fmt.Errorf("%s can't be published: %w", path, err)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s can't be published safely: %w", path, err)
		}
		if !s.t.Run.Plan.Options.ReplaceExisting {
			return fmt.Errorf("%w: %s (inode %d) has appeared during the run: look at what it is, "+
				"then either move it away or use --replace-existing", recover.ErrConflict, path, st.Ino)
		}
		dir, err := s.t.Run.Root.OpenDir(filepath.Dir(path))
		if err != nil {
			return err
		}
		err = mayMoveAside(s.t, dir, filepath.Base(path))
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Publish gives every staged copy its owner, its mode and, last, its name.
func (s *Set) Publish(ctx context.Context) error {
	for _, staged := range s.staged {
		if err := publish(ctx, s.t, staged); err != nil {
			return err
		}
	}
	return nil
}

// NoteMoved notes that the guest runs on a new file of that disk, at its path, and whether
// that is a proven copy of the lost one.
func (s *Set) NoteMoved(f recover.FilePlan, proven bool) { s.moved[f.Path] = proven }

// IsPutBackLog is true for the console log that was put back while the guest ran.
func (s *Set) IsPutBackLog(at recover.Inode) bool { return s.consoleLog == at }

// AreAllBack is true when every file that the guest writes, and what is published
// with it, is at its path.
func (s *Set) AreAllBack() bool {
	if !s.t.State().IsCommitted() || len(s.staged)+len(s.moved) == 0 {
		return false
	}
	for _, f := range s.t.Written() {
		at := func(staged *stagedFile) bool { return staged.want.Path == f.Path }
		if _, moved := s.moved[f.Path]; !moved && !slices.ContainsFunc(s.staged, at) {
			return false
		}
	}
	return !slices.ContainsFunc(s.staged, func(staged *stagedFile) bool { return !staged.isBack() })
}

// Remove removes all copies that this try made and did not publish: their source still
// has every byte.
func (s *Set) Remove(ctx context.Context) error {
	var errs error
	for _, f := range slices.Concat(s.begun, s.staged) {
		errs = errors.Join(errs, f.discard(ctx))
	}
	return errs
}

// RemoveBegun removes what was copied ahead of files for which another one is kept.
func (s *Set) RemoveBegun(ctx context.Context) error {
	for _, f := range s.begun {
		if err := f.discard(ctx); err != nil {
			return err
		}
	}
	return nil
}

// RemoveInherited removes the copies that the interrupted run had staged: QEMU
// still has what they were copied from, or they are published.
func (s *Set) RemoveInherited(context.Context) error {
	var errs error
	for _, c := range s.t.History.Staged {
		dir, err := s.dirs.Reopen(c.Dir)
		if err == nil {
			err = RemoveCopy(dir, c.Name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// Close closes the copies and leaves them as they are.
func (s *Set) Close() {
	for _, f := range slices.Concat(s.begun, s.staged) {
		if f.file != nil {
			f.file.Close()
		}
	}
}

// WhatIsSafe says, for an operator, where the data of an instance is whose files are not
// all back, after a look at each place.
func (s *Set) WhatIsSafe(ctx context.Context) string {
	var copies, held, gone, kept, stored []string
	for _, f := range essentialFirst(s.t.Plan.Files) {
		if f.Content != "" {
			continue
		}
		if place := s.placeOf(ctx, f); place != "" {
			copies = append(copies, place)
		} else if _, err := s.t.Run.Source(context.WithoutCancel(ctx), f); err == nil {
			if f.Stored != "" {
				stored = append(stored, f.Path)
			} else {
				held = append(held, f.Path)
			}
		} else {
			gone = append(gone, f.Path)
			if left := s.leftOf(f); left != "" {
				kept = append(kept, left)
			}
		}
	}
	var parts []string
	if len(gone) > 0 {
		parts = append(parts, "Nobody holds "+listed(gone)+" any more, and there is no proven copy of it")
		parts = append(parts, kept[:min(len(kept), mostNamed)]...)
	} else {
		parts = append(parts, "No data is lost")
	}
	if len(copies) > 0 {
		parts = append(parts, "proven and on disk: "+listed(copies))
	}
	if len(stored) > 0 {
		parts = append(parts, "in the backup: "+listed(stored))
	}
	if len(held) > 0 {
		parts = append(parts, "held until this host goes down: "+listed(held))
	}
	return strings.Join(parts, "; ")
}

// Gone returns the paths of the files that nobody holds any more and of which no copy was
// proven. Files of a backup are never gone: its directory may come back.
func (s *Set) Gone(ctx context.Context) []string {
	var gone []string
	for _, f := range s.t.Plan.Files {
		if f.Content != "" || f.Stored != "" || s.placeOf(ctx, f) != "" {
			continue
		}
		if _, err := s.t.Run.Source(context.WithoutCancel(ctx), f); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, f.Path)
		}
	}
	return gone
}

// leftOf says what an interrupted run has left of a file that nobody holds and that has no
// proven copy any more.
func (s *Set) leftOf(f recover.FilePlan) string {
	rec, proven := s.t.History.Proven(f)
	if !proven {
		var begun bool
		if rec, begun = s.t.History.AheadOf(f); !begun {
			return ""
		}
	}
	place := rec.Dir + "/" + rec.Name
	_, err := s.t.Run.Root.Lstat(place)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "its copy " + place + " is not there"
	case !proven:
		return "a copy of " + f.Path + " that was not finished, and may be incomplete, is " + place
	case s.proofs.isDamaged(place):
		return place + " is kept, and is not what was proven"
	default:
		return ""
	}
}

// placeOf returns where a proven copy of a file is, after a look at it; "" when there is none.
// What an interrupted run had proven is read in full.
func (s *Set) placeOf(ctx context.Context, f recover.FilePlan) string {
	at, err := s.t.Run.Root.Lstat(f.Path)
	there := err == nil
	if s.moved[f.Path] && there {
		return f.Path
	}
	for _, staged := range s.staged {
		switch {
		case staged.want.Path != f.Path:
		case staged.isBack():
			if there && staged.proven && at.Inode().Is(staged.inode, true) {
				return f.Path
			}
		case staged.proven && isStaged(context.WithoutCancel(ctx), staged):
			return staged.place()
		}
	}
	if s.t.History.IsUnproven(f.Path) {
		// What the guest was moved onto is no copy; what it had before may be beside it.
		f.Path = recover.BeforeName(f.Path, s.t.Run.Plan.Run)
		at, err = s.t.Run.Root.Lstat(f.Path)
		there = err == nil
	}
	if there && s.t.PublishedBefore(f, at.Inode(), false) && s.t.IsUnwritten(f.Path, at) {
		return f.Path
	}
	if rec, ok := s.t.History.Proven(f); ok && s.proofs.lookAt(ctx, f, rec) == nil {
		return rec.Dir + "/" + rec.Name
	}
	return ""
}

// isStaged is true while a copy that this try has proven is in its directory, as long as it was
// and as it was. It is opened anew: when an operator is told, the set is closed.
func isStaged(ctx context.Context, staged *stagedFile) bool {
	file, err := staged.dir.Open(staged.name, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer file.Close()
	now := *staged
	now.file = file
	at, size, err := Measured(file)
	return err == nil && at.Is(staged.inode, true) && size == staged.size && now.stillProven(ctx) == nil
}

// InheritedPlaces returns the paths of the interrupted run's copies, for an operator.
func (s *Set) InheritedPlaces() string {
	var places []string
	for _, c := range s.t.History.Copies {
		places = append(places, c.Dir+"/"+c.Name)
	}
	slices.Sort(places)
	return listed(places)
}
