package recover

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/rs/zerolog"
)

// logDaemon is the command name of the process that holds the console logs.
const logDaemon = "virtlogd"

// logDaemonPIDFile is the file, below the root, to which virtlogd writes its PID,
// however it was started (libvirt's src/logging/log_daemon.c, main; RUNSTATEDIR is
// /run).
const logDaemonPIDFile = "run/virtlogd.pid"

// logDaemons are the processes that hold console logs: virtlogd with any current
// libvirt. Where none runs, QEMU holds them itself (stdio_handler in qemu.conf).
type logDaemons struct {
	proc string
	held []heldFile // what they hold
	all  bool       // every process was examined
}

// findLogDaemons examines the virtlogd that the pid file names. Only if there is none
// does it examine every process: a host may have thousands.
func findLogDaemons(ctx context.Context, proc, root string) (*logDaemons, error) {
	l := &logDaemons{proc: proc}
	data, err := os.ReadFile(filepath.Join(root, logDaemonPIDFile))
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
func (l *logDaemons) widen(ctx context.Context) (more bool, err error) {
	if l.all {
		return false, nil
	}
	l.all = true
	pids, err := processesNamed(l.proc, logDaemon)
	if err != nil {
		return false, err
	}
	for _, pid := range pids {
		if !slices.ContainsFunc(l.held, func(h heldFile) bool { return h.PID == pid }) {
			l.add(ctx, pid)
		}
	}
	return true, nil
}

// add adds what a process holds, and returns true, if it is a virtlogd that can be
// examined.
func (l *logDaemons) add(ctx context.Context, pid int) bool {
	p, err := openProcess(l.proc, pid)
	if err != nil {
		return false
	}
	defer p.Close()
	if p.Command != logDaemon { // a stale pid file
		return false
	}
	held, err := heldByProcess(ctx, p)
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Int("pid", pid).Msg("can't examine virtlogd")
		return false
	}
	l.held = append(l.held, held...)
	return true
}
