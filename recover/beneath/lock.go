package beneath

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is the interval at which a busy lock is tried. fasteners, on Nova's
// side, waits 10 ms more after each try, up to 100 ms (DELAY_INCREMENT and
// MAX_DELAY in fasteners/process_lock.py).
const lockPoll = 20 * time.Millisecond

// Lock takes the lock under which Nova downloads, makes and removes the cached
// image called name. It waits until the context ends and then wraps the context's
// error. dir is <instances_path>/locks; the lock file there is "nova-" + name.
// unlock releases the lock and may be called twice. The file stays, as Nova's does.
//
// Source: Image.cache in nova/virt/libvirt/imagebackend.py and
// _remove_old_enough_file in imagecache.py take utils.synchronized(name,
// external=True, lock_path=<instances_path>/locks); nova/utils.py adds the
// prefix "nova-", oslo_concurrency/lockutils.py makes the file name of the two,
// and fasteners/process_lock.py opens that file for appending and takes
// fcntl.lockf(LOCK_EX|LOCK_NB): a POSIX write lock on the whole file. Ours is an
// open file description lock, which conflicts with the POSIX locks of every process
// and, unlike those, also excludes other users in one process (fcntl(2), "Open file
// description locks").
//
// A missing lock file appears with its owner and mode already set (Nova makes it
// nova:nova 0644), because Nova could not open a file of root's, even if it were
// root's for a moment only. An existing file is left as it is. Errors: ErrSymlink,
// ErrNotRegular, and ENOLCK or EOPNOTSUPP where the file system has no locks.
func Lock(ctx context.Context, dir *Dir, name string, owner Owner) (unlock func() error, err error) {
	if err := dir.check("lock", name); err != nil {
		return nil, err
	}
	file := "nova-" + name
	fail := func(err error) (func() error, error) {
		return nil, fmt.Errorf("take Nova's lock %s: %w", dir.join(file), err)
	}
	for {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		f, err := openLock(dir, file, owner)
		if err != nil {
			return fail(err)
		}
		if err := waitLock(ctx, f); err != nil {
			f.Close()
			return fail(err)
		}
		current, err := isNamed(f, dir, file)
		if err != nil {
			f.Close()
			return fail(err)
		}
		if current {
			return sync.OnceValue(func() error { return errors.Join(release(f), f.Close()) }), nil
		}
		// Nova removes the lock file with its image (remove_external_lock_file): others
		// now lock another file than the one that we hold.
		f.Close()
	}
}

// openLock opens the lock file. If it is missing, it is made under another name and
// moved into place when it has its owner.
func openLock(dir *Dir, file string, owner Owner) (*os.File, error) {
	f, err := dir.Open(file, os.O_RDWR)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	staged := ".os-rescue-lock-" + rand.Text()
	if f, err = dir.Create(staged); err != nil {
		return nil, err
	}
	err = SetOwner(f, owner)
	f.Close()
	if err == nil {
		err = moveNoReplace(dir, staged, dir, file)
	}
	if err != nil {
		rerr := dir.Remove(staged)
		if errors.Is(rerr, fs.ErrNotExist) {
			rerr = nil
		}
		if !errors.Is(err, fs.ErrExist) || rerr != nil { // fs.ErrExist: Nova was faster
			return nil, errors.Join(err, rerr)
		}
	}
	return dir.Open(file, os.O_RDWR)
}

func waitLock(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		err := retry(func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock) })
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("somebody else holds it: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// release unlocks explicitly: a close alone keeps the lock as long as a child that
// is being forked right now has the descriptor.
func release(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_UNLCK, Whence: io.SeekStart}
	return retry(func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock) })
}

func isNamed(f *os.File, dir *Dir, name string) (bool, error) {
	st, err := dir.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mine, err := fstat(int(f.Fd()), f.Name())
	return err == nil && st.Dev == mine.Dev && st.Ino == mine.Ino, err
}
