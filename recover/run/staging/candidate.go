package staging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// candidate is a file that may be a copy of a planned one already.
type candidate struct {
	*stagedFile
	// unheld: it counts also when nobody holds any more what it was copied from, if it is
	// still what was proven.
	unheld bool
	// rec is what the interrupted run noted of it.
	rec journal.Staged
	// What is noted when it counts: after the comparison, and without one.
	noteSame, noteUnheld string
	// differs is the error when it is no copy; nil when the next way is tried then.
	differs error
}

// stage finds or makes a proven copy of one file. When that fails, what it returns
// besides the error is to be discarded by the caller.
func (s *Set) stage(ctx context.Context, f recover.FilePlan) (*stagedFile, error) {
	staged, err := s.findOrMake(ctx, f)
	if err == nil {
		err = staged.noteProven(ctx)
	}
	return staged, err
}

func (s *Set) findOrMake(ctx context.Context, f recover.FilePlan) (*stagedFile, error) {
	type finder func(context.Context, recover.FilePlan) (*candidate, error)
	for _, find := range []finder{s.atItsPath, s.ofInterruptedRun, s.ofInterruptedUpdate} {
		c, err := find(ctx, f)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		if staged, err := s.prove(ctx, c); staged != nil || err != nil {
			return staged, err
		}
	}
	staged, err := s.begunAhead(f)
	if err != nil {
		return nil, err
	}
	if staged == nil {
		if staged, err = s.newStaged(f); err != nil {
			return nil, err
		}
	}
	if err = markLeft(ctx, s, staged); err == nil {
		err = copyAndProve(ctx, s.t, staged)
	}
	return staged, err
}

func (s *Set) newStaged(f recover.FilePlan) (*stagedFile, error) {
	dir, err := s.dirs.ForFile(s.t.Run.Plan.Run, f, s.t.Run.Owners)
	if err != nil {
		return nil, err
	}
	name, err := StageName(s.t.Plan.UUID, f)
	return &stagedFile{want: f, dir: dir, name: name}, err
}

// prove compares a candidate with what the held inode has now. nil and no error
// when it is no copy, and the file is to be had in another way.
func (s *Set) prove(ctx context.Context, c *candidate) (*stagedFile, error) {
	if c.accepted {
		return c.stagedFile, nil
	}
	err := s.sameContent(ctx, c.stagedFile)
	note := c.noteSame
	if c.unheld && errors.Is(err, fs.ErrNotExist) {
		if err, note = s.proofs.asProven(ctx, c.stagedFile, c.rec), c.noteUnheld; errors.Is(err, ErrDamaged) {
			c.file.Close()
			return nil, err
		}
	}
	if err == nil {
		if note != "" {
			s.t.Notef("%s", note)
		}
		return c.stagedFile, nil
	}
	c.file.Close()
	if errors.Is(err, recover.ErrUnproven) {
		err = c.differs
	}
	return nil, err
}

// sameContent returns ErrUnproven when a file is not what it should be, and
// fs.ErrNotExist when nobody holds what it should be.
func (s *Set) sameContent(ctx context.Context, staged *stagedFile) error {
	f := staged.want
	if f.Content != "" {
		data, err := io.ReadAll(io.NewSectionReader(staged.file, 0, int64(len(f.Content))+1))
		if err == nil && string(data) != f.Content {
			err = recover.ErrUnproven
		}
		return err
	}
	src, err := s.t.Run.Source(ctx, f)
	if err == nil {
		err = markLeft(ctx, s, staged)
	}
	if err != nil {
		return err
	}
	if size, err := src.Size(); err != nil || size != staged.size {
		return errors.Join(recover.ErrUnproven, err)
	}
	return compareStaged(ctx, s.t, staged, src)
}

// atItsPath is what stands at a file's path: with the very content that it should
// have it is kept. nil when nothing stands there.
func (s *Set) atItsPath(_ context.Context, f recover.FilePlan) (*candidate, error) {
	dir, err := s.t.Run.Root.OpenDir(filepath.Dir(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	at, err := dir.Open(filepath.Base(f.Path), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", recover.ErrConflict, err)
	}
	staged := &stagedFile{want: f, file: at, kept: true, proven: true}
	if err := staged.measure(); err != nil {
		at.Close()
		return nil, err
	}
	ours := s.t.PublishedBefore(f, staged.inode, false)
	if f.ClosingWrites && !ours && s.t.Plan.Action == recover.ActionReboot && s.t.Run.Plan.Options.ReplaceExisting {
		at.Close() // what is equal now is not when QEMU has ended
		return nil, nil
	}
	// By now its guest may have written to it.
	staged.accepted = ours && s.t.History != nil && s.t.History.DestroyDone && isWritten(f)
	c := &candidate{stagedFile: staged, unheld: ours,
		noteSame: f.Path + " stood there already with the same content, and is kept"}
	if rec, ok := s.t.History.Proven(f); ok && !isWritten(f) && rec.Is(staged.inode) {
		c.rec = rec
	}
	if !s.t.Run.Plan.Options.ReplaceExisting {
		c.differs = fmt.Errorf("%w: %s (inode %d) has other content than the deleted inode %d that QEMU holds: "+
			"look at both, then either move it away or use --replace-existing", recover.ErrConflict, f.Path, staged.inode.Inode, f.Inode)
	}
	return c, nil
}

// isWritten is true for a file that a guest, or its log daemon, writes, and for disk.info.
func isWritten(f recover.FilePlan) bool {
	return f.Writable || f.Role == recover.RoleConsoleLog || f.Role == recover.RoleDiskInfo
}

// ofInterruptedRun is the proven copy of an interrupted run. Where its source is
// still held it is proven again: somebody may have let the guest go on in between, and QEMU
// writes when it ends. Where it is not, the copy must be what was proven. nil when there is
// none.
func (s *Set) ofInterruptedRun(ctx context.Context, f recover.FilePlan) (*candidate, error) {
	rec, ok := s.t.History.Proven(f)
	if !ok {
		return nil, nil
	}
	staged, err := s.reopen(ctx, f, rec)
	if staged == nil || err != nil {
		return nil, err
	}
	note := "nobody holds the old " + f.Path + " any more: the interrupted run's copy, proven before the domain ended, is used"
	if rec.Size == 0 {
		note += "; that release noted no digest of it, so it could not be verified"
	}
	return &candidate{stagedFile: staged, unheld: true, rec: rec, noteUnheld: note}, nil
}

// ofInterruptedUpdate is the copy that an interrupted run was just bringing up to date, when
// nobody holds its source any more: its patch makes it what it was to become. nil when there
// is none, or a source, of which it is made then.
func (s *Set) ofInterruptedUpdate(ctx context.Context, f recover.FilePlan) (*candidate, error) {
	rec, ok := s.t.History.UpdateOf(f)
	if !ok {
		return nil, nil
	}
	if _, err := s.t.Run.Source(ctx, copiedFrom(f, rec)); !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	staged, err := s.reopen(ctx, f, rec)
	if staged == nil || err != nil {
		return nil, err
	}
	patch, err := staged.dir.Open(rec.Patch, os.O_RDONLY)
	if err == nil {
		err = copier.Apply(ctx, staged.file, patch)
		patch.Close()
	}
	if err == nil {
		err = staged.measure()
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, copier.ErrNoPatch) || errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %s can't be brought up to date any more: %w", ErrDamaged, staged.place(), err)
	}
	if err != nil {
		staged.file.Close()
		return nil, err
	}
	return &candidate{stagedFile: staged, unheld: true, rec: rec, noteUnheld: "nobody holds the old " + f.Path +
		" any more: what it had when its QEMU ended was in the interrupted run's copy and its patch"}, nil
}

// copiedFrom is the plan of a file as the interrupted run copied it: in a restore that may be
// what was held, which is newer than the backup.
func copiedFrom(f recover.FilePlan, rec journal.Staged) recover.FilePlan {
	if f.Held != "" && rec.Source == f.Held {
		return f.OfHeld()
	}
	return f
}

// reopen opens an interrupted run's copy; nil when it is gone. Where its whole directory is, and
// nobody holds what it was copied from, its file system may not be mounted yet: that is an error,
// and nothing is settled by it.
func (s *Set) reopen(ctx context.Context, f recover.FilePlan, rec journal.Staged) (*stagedFile, error) {
	f = copiedFrom(f, rec)
	dir, err := s.dirs.Reopen(rec.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := s.t.Run.Source(ctx, f); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("nobody holds the old %s any more, and the proven copy of it was in %s, which is not there: "+
				"is its file system mounted? If the copy is gone for good: os-rescue resume --abandon %s", f.Path, rec.Dir, s.t.Run.Plan.Run)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	file, err := dir.Open(rec.Name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	staged := &stagedFile{want: f, dir: dir, name: rec.Name, file: file, inherited: true, proven: true}
	if err = staged.measure(); err == nil && !rec.Is(staged.inode) {
		err = fmt.Errorf("%w: %s/%s is not the file that the interrupted run made", recover.ErrConflict, rec.Dir, rec.Name)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return staged, nil
}

// begunAhead returns what was copied of a file ahead, by this run or by an
// interrupted one, to be finished; nil when nothing was. It may be half a copy.
func (s *Set) begunAhead(f recover.FilePlan) (*stagedFile, error) {
	if n := slices.IndexFunc(s.begun, func(b *stagedFile) bool { return b.want.Path == f.Path }); n >= 0 {
		staged := s.begun[n]
		s.begun = slices.Delete(s.begun, n, n+1)
		return staged, nil
	}
	rec, ok := s.t.History.AheadOf(f)
	if !ok {
		return nil, nil
	}
	dir, err := s.dirs.Reopen(rec.Dir)
	if err == nil {
		var file *os.File
		if file, err = dir.Open(rec.Name, os.O_RDWR); err == nil {
			return &stagedFile{want: f, dir: dir, name: rec.Name, file: file, inherited: true}, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return nil, err
}
