package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Found is a keeper that was found by its process.
type Found struct {
	PID int
	// Dir is the state directory that it was started for, in its own words; of one that does
	// not answer, that of its socket's last name.
	Dir string
	// Apart is true when no path leads to its socket: its state directory was removed, or
	// another keeper has its place there.
	Apart bool
	// Client is nil when it does not answer (ErrSilent).
	Client *Client
}

// find finds the keepers of this host, whatever became of their state directories: those
// processes of root's in this PID namespace that have their own keeper's socket open (door.at) and
// answer there as the keeper that they are, or do not answer at all. The caller closes their
// clients (CloseAll). Keepers of releases without that descriptor are not found.
func find(ctx context.Context) ([]Found, error) {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var sockets []socketOf
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && space == own && isRoots(pid) {
			sockets = append(sockets, socketsOf(pid)...)
		}
	}
	found := make([]*Found, len(sockets))
	var asking sync.WaitGroup
	for n, s := range sockets {
		asking.Go(func() { found[n] = s.ask(ctx) })
	}
	asking.Wait()
	var list []Found
	for _, f := range found {
		if f != nil {
			list = append(list, *f)
		}
	}
	return list, ctx.Err()
}

// isRoots is true for a process of root's: nobody else's descriptors are looked at. Everybody
// can run a set-user-ID program, so all of its user IDs are looked at ("Uid:" in
// /proc/PID/status, proc_pid_status(5)).
func isRoots(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			return strings.Join(strings.Fields(ids), " ") == "0 0 0 0"
		}
	}
	return false
}

// CloseAll closes the clients of keepers that were found.
func CloseAll(list []Found) {
	for _, f := range list {
		if f.Client != nil {
			f.Client.Close()
		}
	}
}

// Of returns the keepers of one state directory: the one that its socket leads to, and those
// that were started for it and are Apart: another one has that place, or none has. The caller closes
// their clients. ErrSilent when one does not answer of which nothing else is known: of an earlier
// release.
func Of(ctx context.Context, dir string) ([]Found, error) {
	own, others, err := Around(ctx, dir)
	CloseAll(others)
	return own, err
}

// Around returns the keepers of one state directory as Of does, and the host's others. The
// caller closes the clients of both.
func Around(ctx context.Context, dir string) (own, others []Found, err error) {
	var all []Found
	var failed error
	var finding sync.WaitGroup // at the same time: each waits for one that does not answer
	finding.Go(func() { all, failed = find(ctx) })
	main, err := Connect(ctx, dir)
	finding.Wait()
	isListed := slices.ContainsFunc(all, func(f Found) bool { return f.isOf(dir) })
	if errors.Is(err, ErrNoKeeper) || errors.Is(err, ErrSilent) && isListed {
		err = nil
	}
	if err = errors.Join(err, failed); err != nil {
		CloseAll(all)
		if main != nil {
			main.Close()
		}
		return nil, nil, err
	}
	if main != nil {
		own = append(own, Found{PID: main.PID(), Dir: dir, Client: main})
	}
	for _, f := range all {
		switch {
		case main != nil && f.PID == main.PID():
			CloseAll([]Found{f})
		case f.isOf(dir):
			f.Apart = f.Apart || f.Client != nil
			own = append(own, f)
		default:
			others = append(others, f)
		}
	}
	return own, others, nil
}

// isOf is true when the keeper was started for that state directory.
func (f Found) isOf(dir string) bool {
	if filepath.Clean(f.Dir) == filepath.Clean(dir) {
		return true
	}
	real, err := filepath.EvalSymlinks(dir)
	return err == nil && filepath.Clean(f.Dir) == real
}

// socketOf is a socket's file that a process has open.
type socketOf struct {
	pid int
	at  string // the descriptor's path below /proc
	dir string // the directory of its last name
	ino unix.Stat_t
}

// firstOpen bounds how many descriptors of a process are looked at. A keeper opens its socket
// before all that it holds, and the kernel gives the lowest free number (open(2)). Others can make
// a daemon of root's have hundreds of thousands: a connection is one.
const firstOpen = 4096

// socketsOf returns the files of keepers' sockets that a process has open. Their names tell
// where to ask: what is true, the answer tells.
func socketsOf(pid int) []socketOf {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil // it has ended
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(firstOpen) // the lowest numbers (fs/proc/fd.c, proc_readfd_common)
	var list []socketOf
	for _, name := range names {
		s := socketOf{pid: pid, at: filepath.Join(dir.Name(), name)}
		link, err := os.Readlink(s.at)
		link = strings.TrimSuffix(link, " (deleted)")
		if err != nil || filepath.Base(link) != socketName || unix.Stat(s.at, &s.ino) != nil || s.ino.Mode&unix.S_IFMT != unix.S_IFSOCK {
			continue
		}
		s.dir = filepath.Dir(link)
		if !slices.ContainsFunc(list, func(other socketOf) bool { return other.ino.Dev == s.ino.Dev && other.ino.Ino == s.ino.Ino }) {
			list = append(list, s)
		}
	}
	return list
}

// ask asks the process at the other end of a socket who it is; nil when that is no keeper, or
// another process than the one that has the file open.
func (s socketOf) ask(ctx context.Context) *Found {
	f := &Found{PID: s.pid, Dir: s.dir, Apart: s.isApart()}
	c, err := dial(ctx, s.at)
	if errors.Is(err, ErrSilent) {
		return f // it takes no more connections: too many wait
	}
	if err != nil {
		return nil
	}
	if c.pid != s.pid {
		c.Close()
		return nil
	}
	c.limit = answerTime
	switch err := c.greet(ctx); {
	case errors.Is(err, ErrSilent):
		return f
	case err != nil:
		return nil
	}
	f.Client, f.Dir = c, c.dir
	return f
}

// isApart is true when the socket's last name does not lead to it any more.
func (s socketOf) isApart() bool {
	var named unix.Stat_t
	if s.ino.Nlink == 0 {
		return true
	}
	err := unix.Lstat(filepath.Join(s.dir, socketName), &named)
	return err != nil || named.Dev != s.ino.Dev || named.Ino != s.ino.Ino
}
