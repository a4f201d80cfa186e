package guard

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// writers are the files that processes have open for writing. They are looked for once, when
// they are first asked for.
type writers struct {
	looked bool
	files  map[recover.Inode]bool // by their numbers
	err    error
}

// has is true for a file that a process other than this one has open for writing.
func (w *writers) has(ctx context.Context, file recover.Inode) (bool, error) {
	if !w.looked {
		w.looked = true
		w.files, w.err = procfs.Writers(ctx, procfs.Dir, os.Getpid())
	}
	return w.files[file.Unborn()], w.err
}

// errWritten: a file that a process writes is not let go, whoever asks for it.
var errWritten = errors.New("a process has it open for writing, so that letting it go frees no room: end its guest first")

// mayRelease says whether a client's word lets a file go. A run that has put the content back
// knows what it does; of an operator's word nothing is lost that a QEMU still writes.
func (w *writers) mayRelease(hold guardHold, reason keeper.ReleaseReason) error {
	if reason == keeper.ReleasedProven || hold.Role == recover.RoleConsoleLog {
		return nil
	}
	written, err := w.has(context.Background(), hold.inode())
	if err == nil && written {
		err = errWritten
	}
	if err != nil {
		return fmt.Errorf("%s stays held: %w", hold.Path, err)
	}
	return nil
}
