package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// The names of a keeper's and of a guard's files in the state directory.
const (
	socketName  = "keeper.sock"
	lockName    = "keeper.lock"
	guardSocket = "guard.sock"
	guardLock   = "guard.lock"
)

// door is a server's place in a state directory: its lock, and its socket.
type door struct {
	dir, lock *os.File
	socket    string
	listener  *net.UnixListener
	// at is the socket's file, open (O_PATH): through it, as /proc/PID/fd/N, a client gets in
	// also when no name leads there any more.
	at *os.File
}

// openDoor makes a state directory, if it is missing, and takes the server's place there.
// ErrRunning when another one has it.
func openDoor(path, socket, lock string) (*door, error) {
	d, err := enter(path, socket)
	if err != nil {
		return nil, err
	}
	if d.lock, err = lockDir(d.dir, lock); err == nil {
		err = d.listen()
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// openKeeperDoor is openDoor for a keeper, which takes the place of one that does not answer.
func openKeeperDoor(ctx context.Context, path string) (*door, error) {
	d, err := enter(path, socketName)
	if err != nil {
		return nil, err
	}
	// One at a time: of two that find the same silent keeper, the second finds the first.
	turn, err := takeTurn(ctx, path)
	if err == nil {
		defer turn.Close()
		d.lock, err = lockDir(d.dir, lockName)
	}
	if errors.Is(err, ErrRunning) && isSilent(ctx, path) && isFound(ctx, path) {
		if err = d.remove(lockName); err == nil {
			d.lock, err = lockDir(d.dir, lockName)
		}
	}
	if err == nil {
		err = d.listen()
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// isSilent is true when the keeper of a state directory takes connections, and answers none.
func isSilent(ctx context.Context, path string) bool {
	c, err := connect(ctx, path, socketName, answerTime)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, ErrSilent)
}

// isFound is true when the silent keeper of a state directory stays to be found without its
// place there.
func isFound(ctx context.Context, path string) bool {
	all, err := find(ctx)
	defer CloseAll(all)
	return err == nil && slices.ContainsFunc(all, func(f Found) bool { return f.Client == nil && f.isOf(path) })
}

// takeTurn locks the directory itself, until the file is closed.
func takeTurn(ctx context.Context, path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		err = Control(dir, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return dir, nil // locked, or on a file system that locks no directory: then two may start at once
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, ctx.Err()
		case <-time.After(startPoll):
		}
	}
}

func enter(path, socket string) (*door, error) {
	dir, err := openStateDir(path)
	if err != nil {
		return nil, err
	}
	return &door{dir: dir, socket: socket}, nil
}

// listen makes the socket. An existing file of that name is a dead server's, or that of one
// whose place this is now, because only the holder of the lock makes or removes it.
func (d *door) listen() error {
	if err := d.remove(d.socket); err != nil {
		return fmt.Errorf("remove the socket of a dead keeper: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: within(d.dir, d.socket), Net: "unixpacket"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	d.listener = l
	if err := unix.Fchmodat(int(d.dir.Fd()), d.socket, 0o600, 0); err != nil {
		return fmt.Errorf("restrict the socket to root: %w", err)
	}
	fd, err := unix.Openat(int(d.dir.Fd()), d.socket, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the socket's file: %w", err)
	}
	d.at = os.NewFile(uintptr(fd), d.socket)
	return nil
}

// shut removes the socket, unless another server has its place by now, and takes no more
// clients: those that are not accepted yet get ErrNoKeeper.
func (d *door) shut() error {
	var err error
	if d.isHere() {
		err = d.remove(d.socket)
	}
	if cerr := d.listener.Close(); !errors.Is(cerr, net.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return err
}

// isHere is true while the socket's name leads to this server's.
func (d *door) isHere() bool {
	var own, named unix.Stat_t
	return unix.Fstat(int(d.at.Fd()), &own) == nil &&
		unix.Fstatat(int(d.dir.Fd()), d.socket, &named, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		own.Dev == named.Dev && own.Ino == named.Ino
}

func (d *door) remove(name string) error {
	if err := unix.Unlinkat(int(d.dir.Fd()), name, 0); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// close gives the place to another server. The socket is shut.
func (d *door) close() {
	if d.listener != nil {
		d.listener.Close()
	}
	for _, f := range []*os.File{d.at, d.lock, d.dir} {
		if f != nil {
			f.Close()
		}
	}
}

// openStateDir makes and opens the directory. With the descriptor its path can have
// any length: the path of a socket has to fit into 108 bytes (unix(7)).
func openStateDir(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not an absolute path")}
	}
	err := plainfile.OursAlong(path)
	if err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err == nil {
		err = plainfile.OursAlong(path) // somebody else may have made it first
	}
	if err != nil {
		return nil, fmt.Errorf("no other user may be able to put a socket there: %w", err)
	}
	return os.OpenFile(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_NOFOLLOW, 0)
}

// within is a path to a name in an open directory.
func within(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// openIn opens or makes a regular file; anything else in its place is an error at once.
func openIn(dir *os.File, name string, flags int) (*os.File, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: plainfile.ErrNotRegular}
	}
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
}

// canServe says what would end a keeper in this directory at its start, where nobody sees why.
func canServe(dir *os.File) error {
	for _, name := range []string{logName, lockName} {
		f, err := openIn(dir, name, unix.O_WRONLY)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

func lockDir(dir *os.File, name string) (*os.File, error) {
	lock, err := openIn(dir, name, unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	err = Control(lock, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrRunning
	}
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}
