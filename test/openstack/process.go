package openstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// process names a process for good: a pid alone may be another's tomorrow. Each
// process of the bed leads a session, so that what it starts is found by it too.
type process struct {
	PID int
	// Start is when it started, in the kernel's clock ticks since boot
	// (proc_pid_stat(5), field 22).
	Start uint64
}

// stat is what the kernel says of a process.
type stat struct {
	process
	state   byte // R, S, Z, ...
	session int
}

// lookAt returns what the kernel says of a process; fs.ErrNotExist when there is
// none of that pid.
func lookAt(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist // it ended while it was being read
	}
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(text))
}

// parseStat reads the text of /proc/PID/stat. The name in it may hold spaces and
// parentheses.
func parseStat(text string) (stat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("openstack: not a /proc/PID/stat: %q", text)
	}
	fields := strings.Fields(text[end+1:]) // from field 3 on
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("openstack: not a /proc/PID/stat: %q", text)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	session, err2 := strconv.Atoi(fields[3])
	start, err3 := strconv.ParseUint(fields[19], 10, 64)
	if err := errors.Join(err, err2, err3); err != nil {
		return stat{}, fmt.Errorf("openstack: not a /proc/PID/stat: %w", err)
	}
	return stat{process: process{PID: pid, Start: start}, state: fields[0][0], session: session}, nil
}

// alive is true while the very process runs. One that ended and that its parent
// has not asked about is not alive: process 1 of a namespace may never ask.
func (p process) alive() bool {
	s, err := lookAt(p.PID)
	return err == nil && s.process == p && s.state != 'Z' && s.state != 'X'
}

// members returns the living processes of the session that p leads or led, p
// among them. A pid is not given away while a session has its number.
func (p process) members() []process {
	if s, err := lookAt(p.PID); err == nil && s.process != p {
		return nil // the number is another's by now: nothing of p's is left
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		s, err := lookAt(pid)
		if err == nil && s.session == p.PID && s.state != 'Z' && s.state != 'X' {
			found = append(found, s.process)
		}
	}
	return found
}

// stop ends the session: SIGTERM to its leader, and SIGKILL to all that is left
// after the limit.
func (p process) stop(limit time.Duration) error {
	if p.alive() {
		if err := syscall.Kill(p.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("openstack: stop process %d: %w", p.PID, err)
		}
		for end := time.Now().Add(limit); p.alive() && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	for end := time.Now().Add(patience.Of(10 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		left := p.members()
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("openstack: processes %v do not end, not even when killed", left)
		}
		for _, member := range left {
			if member.alive() {
				_ = syscall.Kill(member.PID, syscall.SIGKILL) // it may have ended just now
			}
		}
	}
}

// readPID reads a pid file; fs.ErrNotExist when there is none.
func readPID(path string) (process, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return process{}, err
	}
	var p process
	if _, err := fmt.Sscanf(string(text), "%d %d\n", &p.PID, &p.Start); err != nil || p.PID <= 1 {
		return process{}, fmt.Errorf("openstack: %s is no pid file of the bed: %q", path, text)
	}
	return p, nil
}

// writePID writes a pid file: the pid and when the process started.
func writePID(path string, p process) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(temporary, fmt.Appendf(nil, "%d %d\n", p.PID, p.Start), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
