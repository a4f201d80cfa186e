package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
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
	logName     = "keeper.log"
	defaultIdle = 10 * time.Second
)

// Serve is the main function of the keeper process, and changes that process for
// good: its working directory, standard streams, signals, cgroup and limits. It
// returns nil when nothing is held any more and no client is connected (or, if it
// never held anything, after Options.Idle), on SIGTERM, and when the context ends;
// ErrRunning when another keeper serves the directory. One that does not answer loses its
// place there, and goes on holding what it holds: Find finds it.
func Serve(ctx context.Context, o Options) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM)
	defer stop()
	d, err := openKeeperDoor(ctx, o.Dir)
	if err != nil {
		return fmt.Errorf("start the keeper in %s: %w", o.Dir, err)
	}
	defer d.close() // last: until then no other keeper touches the socket
	log, err := becomeKeeper(d.dir)
	if err != nil {
		return fmt.Errorf("start the keeper in %s: %w", o.Dir, err)
	}
	holds := newHolds()
	k := &server{dir: o.Dir, holdings: holds, log: log, join: holds.join, leave: holds.leave}
	log.Info().Int("pid", os.Getpid()).Msg("keeper started")

	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients.Go(func() { k.accept(ctx, d.listener, &clients) })
	idle := o.Idle
	if idle == 0 {
		idle = defaultIdle
	}
	holds.waitIdle(ctx, idle)
	// This cuts off clients that are not accepted yet: they get ErrNoKeeper.
	err = d.shut()
	if n := holds.count(); n > 0 {
		log.Warn().Int("files", n).Msg("keeper ends on request and releases all files")
	} else {
		log.Info().Msg("keeper ends: nothing to hold")
	}
	cancel()
	clients.Wait()
	return err
}
