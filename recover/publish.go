package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// publish gives a staged copy its owner, its mode and, last, its name. What
// stands there already is never replaced.
func (t *task) publish(ctx context.Context, staged *stagedFile) error {
	f := staged.plan
	rec := published{Source: f.Key(), Device: staged.inode.Device, Inode: staged.inode.Inode, Size: staged.size, Kept: staged.kept}
	if !staged.kept {
		rec.Staged = staged.stage.dir.Path() + "/" + staged.name
	}
	return t.stepData(ctx, stepPublish, f.Path, rec, func() (any, error) {
		if err := t.give(ctx, staged); err != nil {
			return nil, fmt.Errorf("publish %s: %w", f.Path, err)
		}
		staged.published = true
		return nil, nil
	})
}

func (t *task) give(ctx context.Context, staged *stagedFile) error {
	f := staged.plan
	dir, _, err := t.s.root.MkdirAll(filepath.Dir(f.Path), t.s.owners.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	owner := t.s.owners.File(f, t.ip.DACLabel)
	name := filepath.Base(f.Path)
	if f.Role == RoleBacking && isBelow(f.Path, filepath.Join(t.s.e.Settings.InstancesPath, "_base")) {
		unlock, err := t.lockBase(ctx, name)
		if err != nil {
			return err
		}
		defer func() { _ = unlock() }() // only closes it, which frees the lock in any case
		// Nova's image cache removes unused images by age (nova/virt/libvirt/imagecache.py).
		now := unix.NsecToTimespec(time.Now().UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", staged.file.Fd()), []unix.Timespec{now, now}, 0); err != nil {
			return err
		}
	}
	if err := beneath.SetOwner(staged.file, owner); err != nil {
		return err
	}
	if err := staged.file.Sync(); err != nil {
		return err
	}
	if staged.kept {
		return nil
	}
	if t.s.plan.Options.ReplaceExisting {
		if err := t.moveAside(dir, name); err != nil {
			return err
		}
	}
	return beneath.Publish(staged.stage.dir, staged.name, dir, name)
}

// lockBase takes the lock under which Nova makes and removes cached images.
func (t *task) lockBase(ctx context.Context, name string) (func() error, error) {
	locks, _, err := t.s.root.MkdirAll(filepath.Join(t.s.e.Settings.InstancesPath, "locks"), t.s.owners.Dir)
	if err != nil {
		return nil, err
	}
	defer locks.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return beneath.Lock(ctx, locks, name, t.s.owners.LockFile())
}

// moveAside makes room for a file. What stood there is never deleted, and stays
// where it is while anybody uses it.
func (t *task) moveAside(dir *beneath.Dir, name string) error {
	err := t.mayMoveAside(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	aside := name + ".replaced-" + t.s.plan.Run
	if err := beneath.MoveAside(dir, name, aside); err != nil {
		return err
	}
	t.notef("what stood at %s/%s is now %s", dir.Path(), name, aside)
	return nil
}

// mayMoveAside returns ErrConflict when somebody uses the file, fs.ErrNotExist
// when there is none.
func (t *task) mayMoveAside(dir *beneath.Dir, name string) error {
	at, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer at.Close()
	users, err := beneath.InUse(at, t.s.guardPIDs()...)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("%w: %s/%s is in use by %v, and is not moved aside", ErrConflict, dir.Path(), name, users)
	}
	return nil
}
