package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The names of a guard's files in the state directory.
const (
	guardSocket = "guard.sock"
	guardLock   = "guard.lock"
)

// Guard is the socket of a guard. It serves the keeper's protocol over the holdings
// of its caller, in a process that goes on when nothing is held.
type Guard struct {
	dir, lock *os.File
	listener  *net.UnixListener
	clients   sync.WaitGroup
}

// ListenGuard opens a guard's socket in the state directory, which is made 0700 if
// it is missing. ErrRunning when another guard serves it. The caller closes the
// Guard.
func ListenGuard(path string) (*Guard, error) {
	dir, err := openStateDir(path)
	if err != nil {
		return nil, fmt.Errorf("open a guard's socket: %w", err)
	}
	g := &Guard{dir: dir}
	if g.lock, err = lockDir(dir, guardLock); err == nil {
		g.listener, err = listen(dir, guardSocket)
	}
	if err != nil {
		if g.lock != nil {
			g.lock.Close()
		}
		dir.Close()
		return nil, fmt.Errorf("open a guard's socket in %s: %w", path, err)
	}
	return g, nil
}

// Serve answers clients until the context ends. status makes the parts of the
// answer to Client.Status, each at most 100 KiB.
func (g *Guard) Serve(ctx context.Context, holdings Holdings, status func() []json.RawMessage) {
	s := &server{
		holdings: holdings,
		log:      *zerolog.Ctx(ctx),
		join:     func() bool { return true },
		leave:    func() {},
		status:   status,
	}
	defer context.AfterFunc(ctx, func() { g.listener.Close() })()
	s.accept(ctx, g.listener, &g.clients)
	g.clients.Wait()
}

// Close removes the socket and unlocks the state directory for another guard.
func (g *Guard) Close() error {
	err := unix.Unlinkat(int(g.dir.Fd()), guardSocket, 0)
	if cerr := g.listener.Close(); !errors.Is(cerr, net.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return errors.Join(err, g.lock.Close(), g.dir.Close())
}

// ConnectGuard connects to the guard of a state directory. Its client can do all
// that a keeper's can. ErrNoKeeper when no guard runs.
func ConnectGuard(ctx context.Context, dir string) (*Client, error) {
	c, err := connect(ctx, dir, guardSocket)
	if err != nil {
		return nil, fmt.Errorf("connect to the guard in %s: %w", dir, err)
	}
	return c, nil
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
