package scan

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// pidFile is the file, below the root, to which virtlogd writes its PID,
// however it was started (libvirt's src/logging/log_daemon.c, main; RUNSTATEDIR is
// /run).
const pidFile = "run/virtlogd.pid"

// virtlogds are the processes that hold console logs: virtlogd with any current
// libvirt. Where none runs, QEMU holds them itself (stdio_handler in qemu.conf).
type virtlogds struct {
	proc      string
	tree      procfs.Root       // libvirt's
	instances string            // the directory of instances in it
	held      []procfs.HeldFile // what they hold
	all       bool              // every process was examined
	passed    []string          // root's processes of that name that do not count, and why
}

// findVirtlogds examines the virtlogd that the pid file names. Only if there is none
// does it examine every process: a host may have thousands. tree is libvirt's root, which stays
// open, and pidFile a path in this process's own.
func findVirtlogds(ctx context.Context, l *virtlogds, pidFile string) (*virtlogds, error) {
	data, err := plainfile.Read(pidFile, plainfile.Rules{Most: 32, Symlinks: true})
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
	pids, err := procfs.Named(l.proc, procfs.Virtlogd)
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

// add adds what a process holds, and returns true, if it is libvirt's virtlogd and can be
// examined.
func (l *virtlogds) add(ctx context.Context, pid int) bool {
	p, err := procfs.Open(l.proc, pid)
	if err != nil {
		return false
	}
	defer p.Close()
	is, err := procfs.IsLogDaemon(p, l.tree, l.instances)
	var held []procfs.HeldFile
	if is {
		held, err = p.HeldBy(ctx)
	}
	if err != nil && p.Alive() == nil {
		zerolog.Ctx(ctx).Debug().Err(err).Int("pid", pid).Msg("a virtlogd does not count")
		if why := fmt.Sprintf("process %d is called %s and does not count: %v", pid, procfs.Virtlogd, err); !slices.Contains(l.passed, why) {
			l.passed = append(l.passed, why)
		}
	}
	l.held = append(l.held, held...)
	return is && err == nil // a stale pid file, or a process that only calls itself so
}

// mostPassed bounds how many of the processes that do not count are named.
const mostPassed = 3

// explain says of a log that no virtlogd has open whose word did not count; empty for nobody's.
func (l *virtlogds) explain() string {
	named := strings.Join(l.passed[:min(len(l.passed), mostPassed)], "; ")
	if more := len(l.passed) - mostPassed; more > 0 {
		named += fmt.Sprintf("; and %d more", more)
	}
	return named
}
