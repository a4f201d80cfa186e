package hostroot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Options say where to look.
type Options struct {
	InstancesPath string // absolute, as libvirt sees it
	RunDir        string // where libvirt's QEMU driver keeps NAME.pid
	Proc          string // where the kernel shows processes; procfs.Dir when empty
	// Daemon returns the PID of the process behind libvirt's socket; 0 when it is not
	// known. It may be nil.
	Daemon func(context.Context) int
}

// Root is a "/" that stays found. Its methods are safe for concurrent use, except Close.
type Root struct {
	options Options
	own     procfs.Root // this process's "/"
	dir     int         // what Path leads to; its number never changes

	mu      sync.Mutex
	process *procfs.Process // whose tree counts; nil: nobody's is known
	other   bool            // its root is another tree than this process's own
	mounts  int             // its mount namespace, which lives as long as this is open; -1 for none
	name    string
	note    string
}

// Find looks for the root. Close frees it. The error says what could not be examined; the
// Root is then this process's own, and no nil.
func Find(ctx context.Context, o Options) (*Root, error) {
	if o.Proc == "" {
		o.Proc = procfs.Dir
	}
	own, err := procfs.OpenRoot("/")
	if err != nil {
		return nil, err
	}
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		own.Close()
		return nil, fmt.Errorf("open /: %w", err)
	}
	r := &Root{options: o, own: own, dir: dir, mounts: -1}
	return r, r.Refresh(ctx)
}

// Close frees the root: Path leads nowhere then.
func (r *Root) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	letGo(r.process, r.mounts)
	r.process, r.mounts = nil, -1
	r.own.Close()
	_ = unix.Close(r.dir)
}

// Path returns a path that leads to the root in this process and in every child that may
// trace it (proc_pid_fd(5)). It is the same for the life of the Root.
func (r *Root) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), r.dir) }

// Name says whose root it is, in words; empty while it is this process's own.
func (r *Root) Name() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name
}

// Note says what an operator should know about how the root was found; empty for nothing.
func (r *Root) Note() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.note
}

// Refresh finds the root anew if the process that it was found by has ended (libvirt's
// container was restarted) or sees another tree than before. The error says what could not be
// examined: then the root stays what it was.
func (r *Root) Refresh(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isCurrent() {
		return nil
	}
	c, note, found, err := r.find(ctx)
	if err != nil {
		return err
	}
	if !found {
		c = candidate{root: r.own}
	} else {
		defer c.root.Close()
	}
	r.note = note
	return r.point(c)
}

// isCurrent is true while nothing has to be found anew.
func (r *Root) isCurrent() bool {
	if r.process == nil || r.process.Alive() != nil || !slices.Contains(daemons(), r.process.Command) {
		return false
	}
	root, err := procfs.OpenRoot(r.process.Root())
	if err != nil {
		return false
	}
	defer root.Close()
	same, err := r.sameTree(r.own, root)
	return err == nil && same != r.other
}

// point makes Path lead to a candidate's root, if that is another tree, or else to this
// process's own, and takes over the candidate's process. Whoever uses the path meanwhile sees
// one or the other (dup2(2)).
func (r *Root) point(c candidate) (err error) {
	path, name, mounts := "/", "", -1
	defer func() {
		if err != nil {
			letGo(c.process, mounts)
		}
	}()
	if c.other {
		pid := c.process.Identity.PID
		path, name = c.process.Root(), fmt.Sprintf("%s's mount namespace (process %d)", c.process.Command, pid)
		// A namespace whose last process ends loses its mounts (mount_namespaces(7)).
		ns := filepath.Join(r.options.Proc, strconv.Itoa(pid), "ns/mnt")
		if mounts, err = unix.Open(ns, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: ns, Err: err}
		}
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if c.other {
		if err := c.process.Alive(); err != nil { // then the PID may be another process's by now
			return err
		}
	}
	if err := unix.Dup3(fd, r.dir, unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	letGo(r.process, r.mounts)
	r.process, r.mounts, r.other, r.name = c.process, mounts, c.other, name
	return nil
}

// letGo closes what a root was found by and lived on; process may be nil, and mounts -1.
func letGo(process *procfs.Process, mounts int) {
	if process != nil {
		process.Close()
	}
	if mounts >= 0 {
		_ = unix.Close(mounts)
	}
}
