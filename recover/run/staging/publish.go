package staging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// publish gives a staged copy its owner, its mode and, last, its name. What
// stands there already is never replaced: ErrConflict, or with ReplaceExisting it is
// moved aside.
func publish(ctx context.Context, t *task.Task, staged *stagedFile) error {
	f := staged.want
	rec := journal.Published{
		Source: f.Key(),
		Device: staged.inode.Device,
		Inode:  staged.inode.Inode,
		Birth:  staged.inode.Birth,
		Size:   staged.size,
		Kept:   staged.kept,
	}
	if !staged.kept {
		rec.Staged = staged.place()
	}
	return t.StepData(ctx, journal.StepPublish, f.Path, rec, func() (any, error) {
		if err := give(ctx, t, staged); err != nil {
			return nil, fmt.Errorf("publish %s: %w", f.Path, err)
		}
		staged.published = true
		// Another host may have been faster: then its file is the one that is kept.
		rec.Device, rec.Inode, rec.Birth = staged.inode.Device, staged.inode.Inode, staged.inode.Birth
		rec.Size, rec.Kept = staged.size, staged.kept
		if !f.Writable && f.Role != recover.RoleConsoleLog {
			st, err := identity.OfFile(staged.file)
			if err != nil {
				return nil, fmt.Errorf("look at %s once more: %w", f.Path, err)
			}
			rec.Written = st.Mtim.Nano()
		}
		return rec, nil
	})
}

func give(ctx context.Context, t *task.Task, staged *stagedFile) error {
	f := staged.want
	dir, _, err := t.Run.Root.MkdirAll(filepath.Dir(f.Path), t.Run.Owners.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(f.Path)
	if isCached(t, f) {
		unlock, err := lockBase(ctx, t, name)
		if err != nil {
			return err
		}
		defer func() { _ = unlock() }() // only closes it, which frees the lock in any case
	}
	if err := staged.stillProven(ctx); err != nil {
		return err
	}
	if !staged.kept {
		KeepAttributes(ctx, t, f, staged.file)
	}
	if err := own(t, staged); err != nil || staged.kept {
		return err
	}
	if kept, err := keepTwin(ctx, t, staged, dir); kept || err != nil {
		return err
	}
	if t.Run.Plan.Options.ReplaceExisting {
		if err := moveAside(t, dir, name); err != nil {
			return err
		}
	}
	err = staged.dir.Publish(staged.name, dir, name)
	if errors.Is(err, fs.ErrExist) { // it has got there in between: no lock is taken outside of _base
		if kept, kerr := keepTwin(ctx, t, staged, dir); kept || kerr != nil {
			return kerr
		}
	}
	return err
}

// KeepAttributes gives a copy what its source has beyond bytes, owner and mode, before it gets
// these. What can't be kept is noted with the task: nobody is helped by a disk that
// is not published.
func KeepAttributes(ctx context.Context, t *task.Task, f recover.FilePlan, file *os.File) {
	if f.Content != "" || f.Stored != "" {
		return // what a backup's file has is its directory's
	}
	src, err := t.Run.Source(ctx, f)
	if err == nil {
		err = copier.KeepAttributes(file, src)
	}
	if err != nil {
		t.Notef("%s is not in everything as it was: %v", f.Path, err)
	}
}

// own gives a copy its owner and mode, and a cached image the present as its time: Nova's
// image cache removes unused images by age (nova/virt/libvirt/imagecache.py).
func own(t *task.Task, staged *stagedFile) error {
	f := staged.want
	if isCached(t, f) && !staged.kept { // another host's journal may have the times of one that was there
		now := unix.NsecToTimespec(time.Now().UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", staged.file.Fd()), []unix.Timespec{now, now}, 0); err != nil {
			return err
		}
	}
	if err := beneath.SetOwner(staged.file, t.Run.Owners.File(f, t.Plan.DACLabel)); err != nil {
		return err
	}
	return staged.file.Sync()
}

// isCached is true for a file in Nova's image cache.
func isCached(t *task.Task, f recover.FilePlan) bool {
	return f.Role == recover.RoleBacking && recover.IsBelow(f.Path, filepath.Join(t.Run.Settings.InstancesPath, "_base"))
}

// lockBase takes the lock under which Nova makes and removes cached images: beneath.Lock
// tells where Nova does.
func lockBase(ctx context.Context, t *task.Task, name string) (func() error, error) {
	locks, _, err := t.Run.Root.MkdirAll(filepath.Join(t.Run.Settings.InstancesPath, "locks"), t.Run.Owners.Dir)
	if err != nil {
		return nil, err
	}
	defer locks.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return beneath.Lock(ctx, locks, name, t.Run.Owners.LockFile())
}

// moveAside makes room for a file. The file that stood there is never deleted, and
// stays where it is while anybody uses it.
func moveAside(t *task.Task, dir *beneath.Dir, name string) error {
	err := mayMoveAside(t, dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	aside := recover.AsideName(name, t.Run.Plan.Run)
	if err := beneath.MoveAside(dir, name, aside); err != nil {
		return err
	}
	t.Notef("what stood at %s/%s is now %s", dir.Path(), name, aside)
	return nil
}

// mayMoveAside returns ErrConflict when somebody uses the file, fs.ErrNotExist
// when there is none.
func mayMoveAside(t *task.Task, dir *beneath.Dir, name string) error {
	at, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer at.Close()
	users, err := beneath.InUse(at, guardPIDs(t.Run.Settings.StateDir)...)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("%w: %s/%s is in use by %v, and is not moved aside", recover.ErrConflict, dir.Path(), name, users)
	}
	return nil
}

// ClearPath moves aside what stands at a file's path, if anything does.
// recover.ErrConflict when somebody uses it.
func ClearPath(t *task.Task, f recover.FilePlan) error {
	dir, err := t.Run.Root.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return moveAside(t, dir, filepath.Base(f.Path))
}

// guardPIDs is the process of the guard, if one runs: that it has a file open is no
// use of it.
func guardPIDs(stateDir string) []int {
	if pid := keeper.GuardPID(context.Background(), stateDir); pid != 0 {
		return []int{pid}
	}
	return nil
}
