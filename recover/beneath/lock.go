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

// lockPoll is how often a busy lock is tried. fasteners, on Nova's side, waits
// 10 ms more after each try, up to 100 ms (DELAY_INCREMENT and MAX_DELAY in
// fasteners/process_lock.py).
const lockPoll = 20 * time.Millisecond

// Lock takes the lock under which Nova downloads, makes and removes the cached
// image called name, waiting for it until the context ends (whose error is then
// wrapped). dir is <instances_path>/locks; the lock file there is "nova-" + name.
// unlock releases it; it may be called twice. The file stays, as Nova's does.
//
// Where this is from: Image.cache in nova/virt/libvirt/imagebackend.py and
// _remove_old_enough_file in imagecache.py take utils.synchronized(name,
// external=True, lock_path=<instances_path>/locks); nova/utils.py adds the
// prefix "nova-", oslo_concurrency/lockutils.py makes the file name of the two,
// and fasteners/process_lock.py opens that file for appending and takes
// fcntl.lockf(LOCK_EX|LOCK_NB): a POSIX write lock on the whole file. Ours is an
// open file description lock, which conflicts with POSIX locks of every process
// but, unlike them, not only between processes (fcntl(2), "Open file description
// locks").
//
// A file that is missing appears with its owner and mode in place (Nova makes it
// nova:nova 0644): one of root's, even for a moment, would make Nova's own open
// fail. A file that is there is left as it is. Errors: ErrSymlink,
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
		// Nova removes lock files of images it removes (remove_external_lock_file):
		// what we hold is no longer what others lock.
		f.Close()
	}
}

// openLock opens the lock file, or makes it under another name and puts it in
// place finished.
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

// release lets the lock go by itself: closing does that only once no child being
// forked right now has the descriptor any more.
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
