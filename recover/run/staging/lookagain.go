package staging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// LookAgain looks once more at every held inode when QEMU has ended. What somebody's
// `virsh resume` let the guest write after the last look, and what QEMU itself writes when it
// closes an image (persistent bitmaps, lazy refcounts: bdrv_close in QEMU's block.c), is
// copied again and proven. Where neither size nor times have changed nothing is read.
//
// recover.ErrUnproven when a copy can't be brought up to its inode: nothing is to be
// published then. recover.ErrConflict when an identical file was kept at its path, and is not
// identical any more. And what CopyError makes.
func LookAgain(ctx context.Context, s *Set) error {
	return s.t.Step(ctx, journal.StepLookAgain, "", func() error {
		for _, staged := range s.staged {
			if err := bringUp(ctx, s, staged); err != nil {
				return err
			}
		}
		return lookAtReadOnly(ctx, s)
	})
}

// bringUp brings a copy up to what its inode has now, if that was written since the proof.
func bringUp(ctx context.Context, s *Set, staged *stagedFile) error {
	f := staged.want
	if f.Content != "" || f.Stored != "" || staged.published || staged.accepted {
		return nil // of a restore: FollowHeld
	}
	src, err := s.t.Run.Source(ctx, f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an interrupted run's copy, verified by its digest
	}
	if err != nil {
		return err
	}
	if f.Role == recover.RoleConsoleLog {
		return bringUpLog(ctx, s, staged, src)
	}
	if written, err := src.Written(staged.mark); err != nil || !written {
		return err
	}
	if staged.kept {
		err := s.sameContent(ctx, staged)
		if errors.Is(err, recover.ErrUnproven) {
			staged.proven = false
			err = fmt.Errorf("%w: %s stood there already with the same content, and its guest has written since: "+
				"move it away, then go on", recover.ErrConflict, f.Path)
		}
		return err
	}
	known := staged.mark.IsSure()
	if staged.mark, err = src.Mark(ctx); err != nil {
		return err
	}
	bytes, err := update(ctx, s, staged, src)
	if err != nil {
		return err
	}
	written, err := src.Written(staged.mark)
	if err == nil && written && staged.mark.IsSure() {
		staged.proven = false
		err = fmt.Errorf("%w: %s: its QEMU has ended, and somebody else writes to it", recover.ErrUnproven, f.Path)
	}
	if known && bytes > 0 {
		s.t.Notef("%s was written to after the last look at it, by its guest or by QEMU in closing it: %s were copied again",
			f.Path, humanize.IBytes(uint64(bytes)))
	}
	return err
}

// bringUpLog appends what the console said since the copy was made. It may say more yet.
func bringUpLog(ctx context.Context, s *Set, staged *stagedFile, src copier.Source) error {
	size, err := src.Size()
	if err != nil || size == staged.size || staged.kept {
		return err
	}
	_, err = update(ctx, s, staged, src)
	return err
}

// update brings a proven copy up to what its inode has now, and returns how many bytes that
// took. What has changed is on disk, in a file of its own, before the copy is touched: at no
// moment there is nothing but half a copy.
func update(ctx context.Context, s *Set, staged *stagedFile, src copier.Source) (bytes int64, err error) {
	if err := staged.stillProven(ctx); err != nil {
		return 0, err
	}
	f := staged.want
	rec := journal.Staged{Dir: staged.dir.Path(), Name: staged.name, Source: f.Key(), Patch: patchName(staged.name),
		Inode: staged.inode.Inode, Birth: staged.inode.Birth}
	if err := removePatch(staged.dir, staged.name); err != nil { // of a try that was killed
		return 0, err
	}
	patch, err := staged.dir.Create(rec.Patch)
	if err != nil {
		return 0, CopyError(f, err)
	}
	defer patch.Close()
	show := s.t.Run.Progress.File(s.t.Subject(), f.Path, journal.StepCompare, f.Size)
	change, err := copier.Diff(ctx, patch, staged.file, src, staged.sums, show.Add)
	show.Done()
	if err == nil {
		err = staged.dir.Sync()
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("%w; the copy that was proven before is as it was: %s", CopyError(f, err), staged.place()),
			removePatch(staged.dir, staged.name))
	}
	if change.Bytes == 0 && change.Size == staged.size {
		return 0, removePatch(staged.dir, staged.name) // its times were touched, or tell nothing
	}
	rec.Bytes, rec.Proof = change.Bytes, journal.Proof{Size: change.Size, Digest: change.Sums.Digest()}
	staged.proven = false
	err = s.t.StepData(ctx, journal.StepUpdate, f.Path, rec, func() (any, error) {
		zerolog.Ctx(ctx).Info().Str("path", f.Path).Msg("written to after the last look: copied again")
		err := copier.Apply(ctx, staged.file, patch)
		if err == nil {
			err = staged.measure()
		}
		if err != nil {
			return nil, CopyError(f, err)
		}
		staged.sums = change.Sums
		s.t.AddBytes(change.Bytes)
		rec.Updated, rec.Proven = true, true
		rec.Proof, err = staged.proof()
		return rec, err
	})
	if err != nil {
		return 0, err
	}
	return change.Bytes, errors.Join(removePatch(staged.dir, staged.name), staged.noteProven(ctx))
}

// patchName is the name of the file that has what is changed in a copy, beside it.
func patchName(name string) string { return name + ".patch" }

// RemoveCopy removes a staged copy, and the patch beside it if an interrupted run has left one.
// fs.ErrNotExist when there was no copy.
func RemoveCopy(dir *Directory, name string) error {
	err := dir.Remove(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a copy that stays may need its patch
	}
	if err := removePatch(dir, name); err != nil {
		return err
	}
	return err
}

func removePatch(dir *Directory, name string) error {
	err := dir.Remove(patchName(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lookAtReadOnly makes sure that the files that were put back while the guest ran are still
// what QEMU has, or had, open: a backing file is written to by a block job. Only where a size or
// a time has changed they are read. recover.ErrUnproven when one differs.
func lookAtReadOnly(ctx context.Context, s *Set) error {
	for _, f := range s.t.Plan.Files {
		mark, ok := s.once.mark(f.Key())
		if f.Writable || !ok {
			continue
		}
		src, err := s.t.Run.Source(ctx, f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if written, err := src.Written(mark); err != nil || !written {
			if err != nil {
				return err
			}
			continue
		}
		if err := stillEqual(ctx, s, f, src); err != nil {
			return err
		}
	}
	return nil
}

func stillEqual(ctx context.Context, s *Set, f recover.FilePlan, src copier.Source) error {
	dir, err := s.t.Run.Root.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	at, err := dir.Open(filepath.Base(f.Path), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer at.Close()
	mark, err := src.Mark(ctx)
	if err != nil {
		return err
	}
	err = compareStaged(ctx, s.t, &stagedFile{want: f, file: at, kept: true}, src)
	if errors.Is(err, recover.ErrUnproven) {
		err = fmt.Errorf("%w: it was written to after it was put back: what stands at %s is older than the inode that is held", err, f.Path)
	}
	if err == nil {
		s.once.noteMark(f.Key(), mark)
	}
	return err
}

// markLeft notes the state of what QEMU writes, before its copy is proven: LookAgain sees by
// that whether it was written since. What is written before shows in the guest's counters,
// which are looked at after this (guest.StillQuiet).
func markLeft(ctx context.Context, s *Set, staged *stagedFile) error {
	staged.mark = copier.Mark{}
	f := staged.want
	if f.Content != "" || f.Stored != "" || f.Role == recover.RoleConsoleLog {
		return nil
	}
	src, err := s.t.Run.Source(ctx, f)
	if err == nil {
		staged.mark, err = src.Mark(ctx)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}
