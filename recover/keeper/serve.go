package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRunning: another keeper serves this directory.
var ErrRunning = errors.New("a keeper is already running")

// Options are a keeper's state directory and its start.
type Options struct {
	// Dir is the state directory. It is made 0700 if missing, and refused if users
	// other than root can write it. It has keeper.sock, keeper.log and keeper.lock,
	// which contains the keeper's pid and is locked with flock(2) while it lives.
	Dir string
	// Command starts a keeper: an absolute path and its arguments; it must call
	// Serve. For Start only.
	Command []string
	// Idle is the time that a keeper without clients, which never held anything,
	// waits before it ends; 10 s if zero. For Serve only.
	Idle time.Duration
}

const (
	socketName  = "keeper.sock"
	lockName    = "keeper.lock"
	logName     = "keeper.log"
	defaultIdle = 10 * time.Second
)

// Serve is the main function of the keeper process, and changes that process for
// good: its working directory, standard streams, signals, cgroup and limits. It
// returns nil when nothing is held any more and no client is connected (or, if it
// never held anything, after Options.Idle), on SIGTERM, and when the context ends;
// ErrRunning at once when another keeper serves the directory.
func Serve(ctx context.Context, o Options) error {
	dir, err := openStateDir(o.Dir)
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	defer dir.Close()
	lock, err := lockDir(dir, lockName)
	if err != nil {
		return fmt.Errorf("start the keeper in %s: %w", o.Dir, err)
	}
	defer lock.Close() // last: until then no other keeper touches the socket

	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM)
	defer stop()
	log, err := becomeKeeper(dir)
	if err != nil {
		return fmt.Errorf("start the keeper in %s: %w", o.Dir, err)
	}
	listener, err := listen(dir, socketName)
	if err != nil {
		log.Error().Err(err).Msg("can't listen")
		return fmt.Errorf("start the keeper in %s: %w", o.Dir, err)
	}
	holds := newHolds()
	k := &server{holdings: holds, log: log, join: holds.join, leave: holds.leave}
	log.Info().Int("pid", os.Getpid()).Msg("keeper started")

	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients.Go(func() { k.accept(ctx, listener, &clients) })
	idle := o.Idle
	if idle == 0 {
		idle = defaultIdle
	}
	holds.waitIdle(ctx, idle)
	// This cuts off clients that are not accepted yet: they get ErrNoKeeper.
	err = errors.Join(unix.Unlinkat(int(dir.Fd()), socketName, 0), listener.Close())
	if n := holds.count(); n > 0 {
		log.Warn().Int("files", n).Msg("keeper ends on request and releases all files")
	} else {
		log.Info().Msg("keeper ends: nothing to hold")
	}
	cancel()
	clients.Wait()
	return err
}

// openStateDir makes and opens the directory. With the descriptor its path can have
// any length: the path of a socket has to fit into 108 bytes (unix(7)).
func openStateDir(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not an absolute path")}
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	st, err := stat(dir)
	if err == nil && (int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0) {
		err = fmt.Errorf("%s belongs to uid %d with mode %04o: other users could put their own socket there",
			path, st.Uid, st.Mode&0o7777)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// within is a path to a name in an open directory.
func within(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

func openIn(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
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

// listen makes the socket. An existing file of that name is a dead keeper's, because
// only the holder of the lock makes or removes it.
func listen(dir *os.File, name string) (*net.UnixListener, error) {
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove the socket of a dead keeper: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: within(dir, name), Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := unix.Fchmodat(int(dir.Fd()), name, 0o600, 0); err != nil {
		l.Close()
		return nil, fmt.Errorf("restrict the socket to root: %w", err)
	}
	return l, nil
}
