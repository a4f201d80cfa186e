package staging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// keepTwin looks, right before a copy gets its name, for a file that has got there since it
// was staged: hosts that share a tree bring the same backing file back at the same time, and
// Nova downloads it again. A file with the very bytes of the proven copy is kept in its place,
// and staged is that file from then on. Nova's lock on a cached image is held meanwhile. It
// is false when nothing is there, or another file. A file that a guest writes is never
// kept: somebody may be writing to the one at its path.
func keepTwin(ctx context.Context, t *task.Task, staged *stagedFile, dir *beneath.Dir) (bool, error) {
	f := staged.want
	if f.Writable || f.Role == recover.RoleConsoleLog || f.Content != "" {
		return false, nil
	}
	at, err := dir.Open(filepath.Base(f.Path), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", recover.ErrConflict, err)
	}
	twin := &stagedFile{want: f, file: at, kept: true, proven: true}
	err = twin.measure()
	if err == nil {
		err = isTwin(ctx, t, twin, staged)
	}
	if errors.Is(err, recover.ErrUnproven) {
		at.Close()
		if t.Run.Plan.Options.ReplaceExisting {
			return false, nil
		}
		return false, fmt.Errorf("%w: %s (inode %d) has appeared during the run, and its content differs from that of the deleted file: "+
			"look at what it is, then either move it away or use --replace-existing", recover.ErrConflict, f.Path, twin.inode.Inode)
	}
	if err == nil {
		err = own(t, twin)
	}
	if err == nil {
		err = staged.discard(ctx)
	}
	if err != nil {
		at.Close()
		return false, err
	}
	t.Notef("%s has appeared during the run with the same content, and is kept", f.Path)
	*staged = *twin
	return true, nil
}

// isTwin returns ErrUnproven unless a file has the bytes of what staged is a copy of: of the
// inode that QEMU has open, or of the proven copy where nobody has that any more.
func isTwin(ctx context.Context, t *task.Task, twin, staged *stagedFile) error {
	if twin.size != staged.size {
		return recover.ErrUnproven
	}
	src, err := t.Run.Source(ctx, staged.want)
	if errors.Is(err, fs.ErrNotExist) {
		src, err = copier.Source{File: staged.file}, nil
	}
	if err != nil {
		return err
	}
	return compareStaged(ctx, t, twin, src)
}
