package treewatch

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher watches directories. It is safe for concurrent use.
type Watcher struct {
	file    *os.File // the inotify descriptor
	changed chan struct{}
	ended   chan struct{} // closed when the reader has ended

	setting sync.Mutex       // held by Set
	watches map[int]struct{} // watch descriptors; used by Set only

	mu        sync.Mutex
	overflows int
	failed    error // of the last Set
	broken    error // of the reader
}

// New returns a watcher without directories. It fails with unix.EMFILE when the user
// already has fs.inotify.max_user_instances of them (128 by default). The caller
// closes it.
func New() (*Watcher, error) {
	// Nonblocking, so that os.File waits in the runtime's poller and Close ends that.
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch directories: %w", os.NewSyscallError("inotify_init1", err))
	}
	w := &Watcher{
		file:    os.NewFile(uintptr(fd), "inotify"),
		changed: make(chan struct{}, 1),
		ended:   make(chan struct{}),
		watches: map[int]struct{}{},
	}
	go w.read()
	return w, nil
}

// C receives a value when something has changed since the last one was received. It
// is never closed. It also receives one when a Set has added a directory, because
// that directory may have changed before.
func (w *Watcher) C() <-chan struct{} { return w.changed }

// Set sets the directories to watch, by path, without their subdirectories. A
// missing directory is skipped: watch its parent to see it appear. If another
// directory can't be watched, Problem says so and the others are still watched.
//
// Every call looks up all paths again (1,000 take some milliseconds): a path may
// name another directory by now, and there is no event for that if a parent was
// moved.
func (w *Watcher) Set(dirs []string) {
	w.setting.Lock()
	defer w.setting.Unlock()
	conn, err := w.file.SyscallConn()
	if err == nil {
		cerr := conn.Control(func(fd uintptr) { err = w.set(int(fd), dirs) })
		err = errors.Join(err, cerr)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
}

func (w *Watcher) set(fd int, dirs []string) error {
	wanted := make(map[int]struct{}, len(dirs))
	failed, added := 0, false
	var first error
	for _, dir := range dirs {
		// The same directory has the same watch descriptor, by whatever path.
		wd, err := unix.InotifyAddWatch(fd, dir, events|flags)
		switch {
		case err == nil:
			wanted[wd] = struct{}{}
			if _, ok := w.watches[wd]; !ok {
				added = true
			}
		case vanished(err):
		default:
			if failed++; first == nil {
				first = &os.PathError{Op: "watch", Path: dir, Err: err}
			}
		}
	}
	for wd := range w.watches {
		if _, ok := wanted[wd]; !ok {
			// It fails where the kernel ended the watch first.
			_, _ = unix.InotifyRmWatch(fd, uint32(wd))
		}
	}
	w.watches = wanted
	if added {
		w.signal()
	}
	switch {
	case errors.Is(first, unix.ENOSPC):
		return fmt.Errorf("%d of %d directories are not watched, raise the sysctl fs.inotify.max_user_watches: %w",
			failed, len(dirs), first)
	case first != nil:
		return fmt.Errorf("%d of %d directories are not watched: %w", failed, len(dirs), first)
	}
	return nil
}

// vanished reports whether the error means that the directory no longer exists or
// that something else has its name.
func vanished(err error) bool {
	for _, gone := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ESTALE} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// Problem is why a change may go unnoticed now: the last Set could not watch a
// directory (unix.ENOSPC: the user's limit of watches is reached), or nothing is
// watched at all (os.ErrClosed after Close). nil when there is no problem.
func (w *Watcher) Problem() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.broken, w.failed)
}

// Overflows counts how often events were lost because they came faster than they
// were read (fs.inotify.max_queued_events). C was signalled each time, so a receiver
// that looks again has missed nothing.
func (w *Watcher) Overflows() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.overflows
}

// Close ends the watcher. It may be called twice.
func (w *Watcher) Close() error {
	err := w.file.Close()
	<-w.ended
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// read receives events until Close.
func (w *Watcher) read() {
	defer close(w.ended)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			w.mu.Lock()
			w.broken = fmt.Errorf("nothing is watched any more: %w", err)
			w.mu.Unlock()
			w.signal()
			return
		}
		happened := masks(buf[:n])
		if happened&unix.IN_Q_OVERFLOW != 0 {
			w.mu.Lock()
			w.overflows++
			w.mu.Unlock()
		}
		if happened != 0 {
			w.signal()
		}
	}
}

// signal never waits: if a signal has not been received yet, that one is enough.
func (w *Watcher) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
