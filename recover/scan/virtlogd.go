package scan

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Virtlogd is the command name of the process that holds the console logs.
const Virtlogd = "virtlogd"

// pidFile is the file, below the root, to which virtlogd writes its PID,
// however it was started (libvirt's src/logging/log_daemon.c, main; RUNSTATEDIR is
// /run).
const pidFile = "run/virtlogd.pid"

// virtlogds are the processes that hold console logs: virtlogd with any current
// libvirt. Where none runs, QEMU holds them itself (stdio_handler in qemu.conf).
type virtlogds struct {
	proc string
	held []procfs.HeldFile // what they hold
	all  bool              // every process was examined
}

// findVirtlogds examines the virtlogd that the pid file names. Only if there is none
// does it examine every process: a host may have thousands.
func findVirtlogds(ctx context.Context, proc, root string) (*virtlogds, error) {
	l := &virtlogds{proc: proc}
	data, err := plainfile.Read(filepath.Join(root, pidFile), plainfile.Rules{Most: 32, Symlinks: true})
	if err == nil {
		pid, perr := strconv.Atoi(string(bytes.TrimSpace(data)))
		if perr == nil && pid > 0 && l.add(ctx, pid) {
			return l, nil
		}
	}
	_, err = l.widen(ctx)
	return l, err
}

// widen examines every process of the host, once. more is true for that first call.
func (l *virtlogds) widen(ctx context.Context) (more bool, err error) {
	if l.all {
		return false, nil
	}
	l.all = true
	pids, err := procfs.Named(l.proc, Virtlogd)
	if err != nil {
		return false, err
	}
	for _, pid := range pids {
		if !slices.ContainsFunc(l.held, func(h procfs.HeldFile) bool { return h.PID == pid }) {
			l.add(ctx, pid)
		}
	}
	return true, nil
}

// add adds what a process holds, and returns true, if it is root's virtlogd and can be
// examined.
func (l *virtlogds) add(ctx context.Context, pid int) bool {
	p, err := procfs.Open(l.proc, pid)
	if err != nil {
		return false
	}
	defer p.Close()
	if p.Command != Virtlogd || !p.IsUser(0) { // a stale pid file, or a process that only calls itself so
		return false
	}
	held, err := p.HeldBy(ctx)
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Int("pid", pid).Msg("can't examine virtlogd")
		return false
	}
	l.held = append(l.held, held...)
	return true
}
