package staging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// copyAndProve makes a staged copy: from nothing, or from what was copied ahead.
// recover.ErrUnproven, recover.ErrCorrupt, and what CopyError makes.
func copyAndProve(ctx context.Context, t *task.Task, staged *stagedFile) error {
	f := staged.want
	rec := journal.Staged{Dir: staged.dir.Path(), Name: staged.name, Source: f.Key()}
	var src copier.Source
	err := t.StepData(ctx, journal.StepCopy, f.Path, rec, func() (any, error) {
		var err error
		if f.Content == "" {
			if src, err = t.Run.Source(ctx, f); err != nil {
				return nil, CopyError(f, err)
			}
		}
		switch {
		case staged.file != nil:
			err = finishCopy(ctx, t, staged, src, &rec)
		default:
			if staged.file, err = staged.dir.Create(staged.name); err != nil {
				break
			}
			if f.Content != "" {
				err = WriteContent(staged.file, f.Content)
			} else {
				staged.sums = &copier.Sums{}
				sums := staged.sums
				if f.SHA256 != "" {
					sums = nil // a file of a backup, which has a digest, is compared in any case
				}
				err = CopyFile(ctx, t, f, staged.file, src, sums, &rec)
			}
		}
		if err == nil {
			err = staged.measure()
			rec.Inode, rec.Birth = staged.inode.Inode, staged.inode.Birth
		}
		if err == nil {
			rec.Proof, err = staged.proof()
		}
		if err != nil {
			return nil, CopyError(f, err)
		}
		return rec, staged.dir.Sync()
	})
	if err != nil {
		return err
	}
	if src.File != nil && (!rec.Proven || f.SHA256 != "") {
		if err := compareStaged(ctx, t, staged, src); err != nil {
			return err
		}
	}
	var known func(string)
	if f.Corrupt != "" {
		known = func(found string) {
			t.Notef("%s is put back as it was backed up, and it is corrupt: %s", f.Path, found)
		}
	}
	return CheckImage(ctx, t, f, staged.file, staged.size, known)
}

// CopyFile copies a planned file from src to dst, which is empty. Unless sums is nil it proves
// the copy on the way, if the method of copying can, and sums becomes its digests. It fills rec
// in: how much was copied, how, and whether that is proven. recover.ErrUnproven when the copy differs, and the errors of
// package copier.
func CopyFile(
	ctx context.Context,
	t *task.Task,
	f recover.FilePlan,
	dst *os.File,
	src copier.Source,
	sums *copier.Sums,
	rec *journal.Staged,
) error {
	show := t.Run.Progress.File(t.Subject(), f.Path, journal.StepCopy, f.Allocated)
	defer show.Done()
	if f.Role == recover.RoleConsoleLog {
		// It may grow meanwhile: what it was at the beginning is copied.
		n, err := copyPrefix(dst, src.File)
		rec.Bytes = n
		t.AddBytes(n)
		return err
	}
	result, err := copier.Copy(ctx, dst, src, copier.CopyOptions{Prove: sums != nil, Sums: sums, Progress: show.Add})
	return noteResult(t, rec, result, err)
}

// finishCopy brings what was copied ahead up to what the source has now, and
// proves it.
func finishCopy(ctx context.Context, t *task.Task, staged *stagedFile, src copier.Source, rec *journal.Staged) error {
	show := t.Run.Progress.File(t.Subject(), staged.want.Path, journal.StepCompare, staged.want.Size)
	defer show.Done()
	if staged.sums == nil {
		staged.sums = &copier.Sums{}
	}
	result, err := copier.Finish(ctx, staged.file, src, staged.sums, show.Add)
	return noteResult(t, rec, result, err)
}

// noteResult notes how a copy went, and makes ErrUnproven of a difference.
func noteResult(t *task.Task, rec *journal.Staged, result copier.Result, err error) error {
	if errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %w", recover.ErrUnproven, err)
	}
	rec.Method, rec.Bytes, rec.Proven = result.Method, result.DataBytes, result.Proven
	t.AddBytes(result.DataBytes)
	return err
}

// CopyError names the file that a copy failed for, and says what an operator has to know:
// a full file system is recover.ErrNoSpace, and fs.ErrNotExist is a source that nobody
// holds.
func CopyError(f recover.FilePlan, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("copy %s: %w: %w", f.Path, recover.ErrNoSpace, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("copy %s: nobody holds its inode any more: %w", f.Path, err)
	}
	return fmt.Errorf("copy %s: %w", f.Path, err)
}

// compareStaged proves a copy: both sides are read in full, the source as QEMU sees
// it. recover.ErrUnproven when they differ.
func compareStaged(ctx context.Context, t *task.Task, staged *stagedFile, src copier.Source) error {
	return t.StepData(ctx, journal.StepCompare, staged.want.Path, nil, func() (any, error) {
		if err := compareWith(ctx, t, staged, src); err != nil {
			return nil, err
		}
		return staged.proof()
	})
}

func compareWith(ctx context.Context, t *task.Task, staged *stagedFile, src copier.Source) error {
	f := staged.want
	var err error
	if f.Role == recover.RoleConsoleLog {
		if err := SamePrefix(staged.file, src.File, staged.size); err != nil || staged.kept {
			return err
		}
		staged.sums, err = copier.SumsOf(ctx, staged.file, nil)
		return err
	}
	sums := &copier.Sums{}
	if staged.kept {
		sums = nil // nobody asks for those of a file that is not staged
	}
	show := t.Run.Progress.File(t.Subject(), f.Path, journal.StepCompare, f.Size)
	defer show.Done()
	digest, err := copier.Compare(ctx, src, staged.file, copier.CompareOptions{Progress: show.Add, Digest: f.SHA256 != "", Sums: sums})
	if errors.Is(err, copier.ErrDiffers) {
		return fmt.Errorf("%w: %w", recover.ErrUnproven, err)
	}
	if err == nil && digest != f.SHA256 {
		return damaged(f, digest)
	}
	if sums != nil {
		staged.sums = sums
	}
	return err
}

// damaged is ErrUnproven for a file of a backup that is not what its manifest says.
func damaged(f recover.FilePlan, digest string) error {
	return fmt.Errorf("%w: %s in the backup has the SHA-256 %s, its manifest says %s", recover.ErrUnproven, f.Stored, digest, f.SHA256)
}

// CheckImage has qemu-img look through the copy of a qcow2 of size bytes; of another
// format, or an empty one, there is nothing to check. recover.ErrCorrupt when the image is
// damaged: its guest is not destroyed. Unless known is nil, it is told what was found, and that is
// no error. Leaked clusters are no harm; a check that can't be made
// is noted, and no corruption.
func CheckImage(ctx context.Context, t *task.Task, f recover.FilePlan, copied *os.File, size int64, known func(string)) error {
	if f.Format != "qcow2" || size == 0 {
		return nil
	}
	return t.Step(ctx, journal.StepCheck, f.Path, func() error {
		result, err := qcow2.Check(ctx, copied, qcow2.CheckOptions{Direct: f.Direct})
		if errors.Is(err, qcow2.ErrStopped) {
			// The copy equals the image to the byte: that is the proof, and this is no finding.
			result, err = qcow2.CheckResult{Skipped: "qemu-img was stopped by a limit or a fault of its own"}, nil
		}
		if err != nil {
			return fmt.Errorf("check the copy of %s: %w", f.Path, err)
		}
		if result.Skipped != "" {
			t.Notef("%s was compared, but not checked as an image: %s", f.Path, result.Skipped)
		}
		if result.StaleRefcounts > 0 {
			t.Notef("%s has lazy refcounts: QEMU counts its clusters anew when it opens the image", f.Path)
		}
		if result.Corrupt() {
			found := fmt.Sprintf("qemu-img check finds %d corruptions (%d places could not be checked)", result.Corruptions, result.CheckErrors)
			if known == nil {
				return fmt.Errorf("%w: %s: %s, and its copy equals it to the byte: the image itself is damaged", recover.ErrCorrupt, f.Path, found)
			}
			known(found)
		}
		zerolog.Ctx(ctx).Debug().Str("path", f.Path).Int64("leaks", result.Leaks).Msg("image checked")
		return nil
	})
}
