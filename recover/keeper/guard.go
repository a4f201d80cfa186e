package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// Guard is the socket of a guard. It serves the keeper's protocol over the holdings
// of its caller, in a process that goes on when nothing is held.
type Guard struct {
	path    string
	door    *door
	clients sync.WaitGroup
}

// ListenGuard opens a guard's socket in the state directory, which is made 0700 if
// it is missing. ErrRunning when another guard serves it. The caller closes the
// Guard.
func ListenGuard(path string) (*Guard, error) {
	d, err := openDoor(path, guardSocket, guardLock)
	if err != nil {
		return nil, fmt.Errorf("open a guard's socket in %s: %w", path, err)
	}
	return &Guard{path: path, door: d}, nil
}

// Serve answers clients until the context ends. status makes the parts of the
// answer to Client.Status, each at most 100 KiB.
func (g *Guard) Serve(ctx context.Context, holdings Holdings, status func() []json.RawMessage) {
	s := &server{
		dir:      g.path,
		holdings: holdings,
		log:      *zerolog.Ctx(ctx),
		join:     func() bool { return true },
		leave:    func() {},
		status:   status,
	}
	defer context.AfterFunc(ctx, func() { g.door.listener.Close() })()
	s.accept(ctx, g.door.listener, &g.clients)
	g.clients.Wait()
}

// Close removes the socket and unlocks the state directory for another guard.
func (g *Guard) Close() error {
	defer g.door.close()
	return g.door.shut()
}

// ConnectGuard connects to the guard of a state directory. Its client can do all
// that a keeper's can. ErrNoKeeper when no guard runs.
func ConnectGuard(ctx context.Context, dir string) (*Client, error) {
	c, err := connect(ctx, dir, guardSocket, guardTime)
	if err != nil {
		return nil, fmt.Errorf("connect to the guard in %s: %w", dir, err)
	}
	return c, nil
}

// errHungUp: a guard lives, and ends its connections before it has answered.
var errHungUp = errors.New("it hangs up")

// endingTime is after how long a guard that hung up is asked once more: it may be ending.
const endingTime = 200 * time.Millisecond

// AskGuard connects to the guard of a state directory, as ConnectGuard does, and has ask ask it.
// One that hangs up, whether or not it has said who it is, is asked once more. ErrNoKeeper only
// when no guard runs by then: one that lives has what it holds, also while it is ending and takes
// no more clients.
func AskGuard(ctx context.Context, dir string, ask func(*Client) error) error {
	hungUp := func(err error) bool {
		if !errors.Is(err, ErrNoKeeper) {
			return false
		}
		_, lives := serverOf(ctx, dir, guardSocket, guardLock)
		return lives
	}
	err := askGuard(ctx, dir, ask)
	if !hungUp(err) {
		return err
	}
	recover.Pause(ctx, endingTime)
	if err = askGuard(ctx, dir, ask); !hungUp(err) {
		return err
	}
	return fmt.Errorf("%w, or is only just beginning or ending: %v", errHungUp, err) //nolint:errorlint // it is no ErrNoKeeper
}

func askGuard(ctx context.Context, dir string, ask func(*Client) error) error {
	c, err := ConnectGuard(ctx, dir)
	if err != nil {
		return err
	}
	defer c.Close()
	return ask(c)
}

// GuardPID is the process of the guard of a state directory, also of one that does not answer;
// 0 when none runs.
func GuardPID(ctx context.Context, dir string) int {
	pid, _ := serverOf(ctx, dir, guardSocket, guardLock)
	return pid
}

// serverOf is the process of root's that listens at a server's socket or, when it takes no
// connections (no more, or none yet), has its lock; false when there is none. The process is 0
// for one of another PID namespace.
func serverOf(ctx context.Context, path, socket, lock string) (pid int, lives bool) {
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	c, err := dial(ctx, within(dir, socket))
	if err == nil {
		defer c.Close()
		return c.PID(), true
	}
	silent := errors.Is(err, ErrSilent)
	if !silent && !errors.Is(err, ErrNoKeeper) {
		return 0, false
	}
	pid = lockedBy(dir, lock)
	return pid, silent || pid != 0
}

// lockedBy is the process that a server's lock file names, if that has the file open: the file
// stays when the server ends. 0 when there is none.
func lockedBy(dir *os.File, lock string) int {
	fd, err := unix.Openat(int(dir.Fd()), lock, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	f := os.NewFile(uintptr(fd), lock)
	defer f.Close()
	st, err := stat(f)
	if err != nil || st.Uid != 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	text := make([]byte, 32)
	n, _ := f.ReadAt(text, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		return 0
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	for _, e := range open {
		var other unix.Stat_t
		at := fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())
		// Only what is called so is looked at: the server of another file may not answer.
		link, err := os.Readlink(at)
		if err != nil || filepath.Base(strings.TrimSuffix(link, " (deleted)")) != lock {
			continue
		}
		own := pid == os.Getpid() && e.Name() == strconv.Itoa(fd)
		if !own && unix.Stat(at, &other) == nil && other.Dev == st.Dev && other.Ino == st.Ino {
			return pid
		}
	}
	return 0
}

// Status returns the parts of a guard's status. ErrRefused from a keeper.
func (c *Client) Status(ctx context.Context) ([]json.RawMessage, error) {
	var parts []json.RawMessage
	err := c.stream(ctx, opStatus, func(r reply) { parts = append(parts, r.Status) })
	if err != nil {
		return nil, fmt.Errorf("ask the guard for its status: %w", err)
	}
	return parts, nil
}
