package recover

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// stagedFile is a proven copy that waits for its name, or an identical file that
// stands at its path already.
type stagedFile struct {
	plan      FilePlan
	stage     *stage // nil for a kept file
	name      string // in stage's directory
	file      *os.File
	inode     inode
	size      int64
	kept      bool
	draft     *copier.Draft // of a copy that was made ahead
	inherited bool          // an interrupted run's: perhaps the only copy, never removed
	proven    bool
	published bool
}

// stage copies one file to its staging place and proves the copy. When it fails,
// what it returns besides the error is to be removed by the caller.
func (t *task) stage(ctx context.Context, f FilePlan) (*stagedFile, error) {
	if staged, err := t.identical(ctx, f); staged != nil || err != nil {
		return staged, err
	}
	if staged, err := t.takeOver(ctx, f); staged != nil || err != nil {
		return staged, err
	}
	staged, err := t.aheadOf(f)
	if err != nil {
		return nil, err
	}
	if staged == nil {
		if staged, err = t.newStaged(f); err != nil {
			return nil, err
		}
	}
	err = t.copyStaged(ctx, staged)
	staged.proven = err == nil
	return staged, err
}

func (t *task) newStaged(f FilePlan) (*stagedFile, error) {
	st, err := t.s.stages.forFile(t.s.plan.Run, f, t.s.owners)
	if err != nil {
		return nil, err
	}
	name, err := stageName(t.ip, f)
	return &stagedFile{plan: f, stage: st, name: name}, err
}

// stageName is a name that no other copy has, not even of another try: a copy
// that was proven once is never written over.
func stageName(ip InstancePlan, f FilePlan) (string, error) {
	unique := make([]byte, 4)
	if _, err := rand.Read(unique); err != nil {
		return "", err
	}
	return ip.UUID + "." + filepath.Base(f.Path) + "." + hex.EncodeToString(unique), nil
}

func (t *task) copyStaged(ctx context.Context, staged *stagedFile) error {
	f := staged.plan
	rec := stagedRecord{Dir: staged.stage.dir.Path(), Name: staged.name, Source: f.Key()}
	var src copier.Source
	err := t.stepData(ctx, stepCopy, f.Path, rec, func() (any, error) {
		var err error
		if f.Content == "" {
			if src, err = t.s.source(ctx, f); err != nil {
				return nil, t.copyError(f, err)
			}
		}
		switch {
		case staged.file != nil:
			err = t.finishCopy(ctx, staged, src, &rec)
		default:
			if staged.file, err = staged.stage.dir.Create(staged.name); err != nil {
				break
			}
			if f.Content != "" {
				err = writeContent(staged.file, f.Content)
			} else {
				err = t.copyFile(ctx, staged, src, &rec)
			}
		}
		if err == nil {
			err = staged.measure()
			rec.Inode = staged.inode.Inode
		}
		if err != nil {
			return nil, t.copyError(f, err)
		}
		return rec, staged.stage.dir.Sync()
	})
	if err != nil {
		return err
	}
	if src.File != nil && (!rec.Proven || f.SHA256 != "") {
		if err := t.compare(ctx, staged, src); err != nil {
			return err
		}
	}
	return t.check(ctx, staged)
}

func (t *task) copyFile(ctx context.Context, staged *stagedFile, src copier.Source, rec *stagedRecord) error {
	f := staged.plan
	show := t.s.e.Progress.File(t.subject(), f.Path, stepCopy, f.Allocated)
	defer show.Done()
	if f.Role == RoleConsoleLog {
		// It may grow meanwhile: what it was at the beginning is copied.
		n, err := copyPrefix(staged.file, src.File)
		rec.Bytes = n
		t.addBytes(n)
		return err
	}
	// What has a digest to be held against, or needs one, is compared anyway.
	prove := f.SHA256 == "" && staged.stage != nil
	result, err := copier.Copy(ctx, staged.file, src, copier.CopyOptions{Prove: prove, Progress: show.Add})
	if errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	rec.Method, rec.Bytes, rec.Proven = result.Method, result.DataBytes, result.Proven
	t.addBytes(result.DataBytes)
	return err
}

func (t *task) addBytes(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Bytes += n
}

// copyError adds what an operator can do to the errors that have an answer.
func (t *task) copyError(f FilePlan, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("copy %s: %w: %w", f.Path, ErrNoSpace, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("copy %s: nobody holds its inode any more: %w", f.Path, err)
	}
	return fmt.Errorf("copy %s: %w", f.Path, err)
}

// compare proves a copy: both sides are read in full, the source as QEMU sees it.
func (t *task) compare(ctx context.Context, staged *stagedFile, src copier.Source) error {
	f := staged.plan
	return t.step(ctx, stepCompare, f.Path, func() error {
		if f.Role == RoleConsoleLog {
			return samePrefix(staged.file, src.File, staged.size)
		}
		show := t.s.e.Progress.File(t.subject(), f.Path, stepCompare, f.Size)
		defer show.Done()
		digest, err := copier.Compare(ctx, src, staged.file, copier.CompareOptions{Progress: show.Add, Digest: f.SHA256 != ""})
		if errors.Is(err, copier.ErrDiffers) {
			return fmt.Errorf("%w: %w", ErrUnproven, err)
		}
		if err == nil && digest != f.SHA256 {
			return fmt.Errorf("%w: %s in the backup has the SHA-256 %s, its manifest says %s", ErrUnproven, f.Stored, digest, f.SHA256)
		}
		return err
	})
}

// check has qemu-img look through a copied qcow2: a guest whose image is corrupt
// is not destroyed, leaked clusters are no harm.
func (t *task) check(ctx context.Context, staged *stagedFile) error {
	f := staged.plan
	if f.Format != "qcow2" || staged.size == 0 {
		return nil
	}
	return t.step(ctx, stepCheck, f.Path, func() error {
		owner, err := t.s.root.Owner(t.s.e.Settings.CheckUser, t.s.e.Settings.CheckGroup, 0o600)
		if err != nil {
			return err
		}
		result, err := qcow2.Check(ctx, staged.file, qcow2.CheckOptions{UID: owner.UID, GID: owner.GID, Direct: f.Direct})
		if err != nil {
			return fmt.Errorf("check the copy of %s: %w", f.Path, err)
		}
		if result.Skipped != "" {
			t.notef("%s was compared, but not checked as an image: %s", f.Path, result.Skipped)
		}
		if result.Corrupt() {
			return fmt.Errorf("%w: qemu-img check finds %d corruptions in %s (%d places could not be checked), and its copy equals it to the byte: the image itself is damaged", ErrCorrupt, result.Corruptions, f.Path, result.CheckErrors)
		}
		zerolog.Ctx(ctx).Debug().Str("path", f.Path).Int64("leaks", result.Leaks).Msg("image checked")
		return nil
	})
}

// identical finds out whether what stands at a file's path has the very content
// that it should have: then it is kept. nil and no error when nothing stands
// there, or when it is to be moved aside.
func (t *task) identical(ctx context.Context, f FilePlan) (*stagedFile, error) {
	dir, err := t.s.root.OpenDir(filepath.Dir(f.Path))
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
		return nil, fmt.Errorf("%w: %w", ErrConflict, err)
	}
	staged := &stagedFile{plan: f, file: at, kept: true}
	if err := staged.measure(); err != nil {
		at.Close()
		return nil, err
	}
	ours := t.s.publishedBefore(f, staged.inode)
	if ours && t.prior != nil && t.prior.destroyDone {
		return staged, nil // by now its guest may have written to it
	}
	err = t.sameContent(ctx, staged)
	if ours && errors.Is(err, fs.ErrNotExist) {
		return staged, nil
	}
	if err == nil {
		t.notef("%s stood there already with the same content, and is kept", f.Path)
		return staged, nil
	}
	at.Close()
	if !errors.Is(err, ErrUnproven) {
		return nil, err
	}
	if t.s.plan.Options.ReplaceExisting {
		return nil, nil
	}
	return nil, fmt.Errorf("%w: %s (inode %d) has other content than the deleted inode %d that QEMU holds: look at both, then either move it away or use --replace-existing", ErrConflict, f.Path, staged.inode.Inode, f.Inode)
}

// sameContent returns ErrUnproven when a file is not what it should be.
func (t *task) sameContent(ctx context.Context, staged *stagedFile) error {
	f := staged.plan
	if f.Content != "" {
		data, err := io.ReadAll(io.NewSectionReader(staged.file, 0, int64(len(f.Content))+1))
		if err == nil && string(data) != f.Content {
			err = ErrUnproven
		}
		return err
	}
	src, err := t.s.source(ctx, f)
	if err != nil {
		return err
	}
	if size, err := src.Size(); err != nil || size != staged.size {
		return errors.Join(ErrUnproven, err)
	}
	return t.compare(ctx, staged, src)
}

// takeOver uses the proven copy of an interrupted run. Where its source is still
// held and the domain was not destroyed for sure after the proof, it is proven
// again: somebody may have let the guest go on in between. nil and no error when
// the file has to be copied (again).
func (t *task) takeOver(ctx context.Context, f FilePlan) (*stagedFile, error) {
	rec, ok := t.prior.proven(f)
	if !ok {
		return nil, nil
	}
	st, err := t.s.stages.reopen(rec.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	file, err := st.dir.Open(rec.Name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	staged := &stagedFile{plan: f, stage: st, name: rec.Name, file: file, inherited: true, proven: true}
	if err = staged.measure(); err == nil && staged.inode.Inode != rec.Inode {
		err = fmt.Errorf("%w: %s/%s is not the file that the interrupted run made", ErrConflict, rec.Dir, rec.Name)
	}
	if err == nil && !t.prior.destroyDone && f.Content == "" {
		switch err = t.sameContent(ctx, staged); {
		case errors.Is(err, fs.ErrNotExist):
			t.notef("nobody holds the old %s any more: the interrupted run's copy, proven before the domain ended, is used", f.Path)
			err = nil
		case errors.Is(err, ErrUnproven):
			file.Close()
			return nil, nil
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return staged, nil
}

func (f *stagedFile) measure() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return err
	}
	f.inode, f.size = inode{st.Dev, st.Ino}, st.Size
	return nil
}

// unstage removes a staged copy that this try made and did not publish. The
// source still has every byte wherever this is called.
func (t *task) unstage(ctx context.Context, f *stagedFile) error {
	if f == nil || f.kept || f.inherited || f.published || f.file == nil {
		return nil
	}
	f.file.Close()
	zerolog.Ctx(ctx).Debug().Str("name", f.name).Msg("remove the staged copy")
	err := f.stage.dir.Remove(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeStaged removes all staged copies of the instance.
func (t *task) removeStaged(ctx context.Context) error {
	var errs error
	for _, f := range slices.Concat(t.begun, t.staged) {
		errs = errors.Join(errs, t.unstage(ctx, f))
	}
	return errs
}

func (t *task) closeStaged() {
	for _, f := range slices.Concat(t.begun, t.staged) {
		if f.file != nil {
			f.file.Close()
		}
	}
}

func writeContent(f *os.File, content string) error {
	if _, err := io.Copy(f, strings.NewReader(content)); err != nil {
		return err
	}
	return f.Sync()
}

// copyPrefix copies a growing file as long as it is now.
func copyPrefix(dst, src *os.File) (int64, error) {
	st, err := src.Stat()
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(dst, io.NewSectionReader(src, 0, st.Size()))
	if err == nil && n != st.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = dst.Sync()
	}
	return n, err
}

// samePrefix compares the first n bytes of two files.
func samePrefix(a, b *os.File, n int64) error {
	x, y := io.NewSectionReader(a, 0, n), io.NewSectionReader(b, 0, n)
	bufX, bufY := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		i, errX := io.ReadFull(x, bufX)
		j, errY := io.ReadFull(y, bufY)
		if !bytes.Equal(bufX[:i], bufY[:j]) {
			return fmt.Errorf("%w: the copy of the console log differs", ErrUnproven)
		}
		if errX != nil || errY != nil {
			if errors.Is(errX, io.EOF) || errors.Is(errX, io.ErrUnexpectedEOF) {
				return nil
			}
			return errors.Join(errX, errY)
		}
	}
}
