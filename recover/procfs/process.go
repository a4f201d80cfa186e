package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// ErrNotQEMU: the hypervisor's pid file does not lead to the QEMU of the domain.
var ErrNotQEMU = errors.New("the pid file is stale")

// Process is one process, held by a pidfd, which tells whether its PID still means it
// (pidfd_open(2)).
type Process struct {
	proc     string // /proc
	pidfd    int
	Identity recover.ProcessIdentity // which process it is
	Command  string                  // its command name, which the kernel cuts to 15 characters
}

// Open opens the process of that PID; the caller closes it. proc is Dir. The error wraps
// unix.ESRCH when there is none, or it ended meanwhile.
func Open(proc string, pid int) (*Process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &Process{proc: proc, pidfd: pidfd}
	if p.Identity, err = Identify(proc, pid); err == nil {
		p.Command, err = commandName(proc, pid)
	}
	// The texts belong to this process only if it has not ended: its PID may be another
	// process's by now.
	if err == nil {
		err = p.Alive()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the pidfd. The process lives on.
func (p *Process) Close() { unix.Close(p.pidfd) }

// Alive returns an error that wraps unix.ESRCH when the process has ended.
func (p *Process) Alive() error {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	if err == nil && n > 0 {
		err = unix.ESRCH
	}
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("process %d: %w", p.Identity.PID, err)
	}
	return nil
}

// path returns a path below the process's directory in /proc.
func (p *Process) path(elem ...string) string {
	return filepath.Join(append([]string{p.proc, strconv.Itoa(p.Identity.PID)}, elem...)...)
}

// Root returns the path, below Dir, of what the process sees as "/".
func (p *Process) Root() string { return p.path("root") }

// Args returns the process's command line. The process itself can change it.
func (p *Process) Args() ([]string, error) { return p.list("cmdline") }

// Environ returns the environment that the process was started with, as os.Environ does.
func (p *Process) Environ() ([]string, error) { return p.list("environ") }

// maxList bounds a process's command line and environment, in bytes.
const maxList = 1 << 20

// memory is the path of a file of /proc that is in a process's memory.
type memory string

func (m memory) name() string  { return string(m) }
func (memory) progress() int64 { return 0 }

// list reads a file of strings that each end in a zero byte. They are in the process's memory, which
// may be such that it never answers (userfaultfd(2), a file on a dead server).
func (p *Process) list(name string) ([]string, error) {
	path := p.path(name)
	if many, err := manyWait(); many || err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w, or may not: too many have not answered", path, ErrSilent), err)
	}
	data, err := answered(context.Background(), silence, memory(path), func(context.Context) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxList))
	})
	if err == nil {
		err = p.Alive()
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.Identity.PID, err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), nil
}

// isNoFile is true for the link of a descriptor that can be no regular file (d_dname of sockfs,
// pipefs and anon_inodefs in the kernel): anybody can have tens of thousands of them.
func isNoFile(link string) bool {
	kind, _, _ := strings.Cut(link, ":")
	return kind == "socket" || kind == "pipe" || kind == "anon_inode"
}

// CheckQEMU returns ErrNotQEMU unless the process runs the domain of that UUID: libvirt
// starts every QEMU with "-uuid UUID" (src/qemu/qemu_command.c).
func (p *Process) CheckQEMU(uuid string) error {
	if _, err := p.Args(); err != nil {
		return err
	}
	// libvirt gives its QEMUs no user namespace; whoever makes one can have any tree as "/".
	if !strings.EqualFold(p.UUID(), uuid) || !p.HasOwnUsers() {
		return fmt.Errorf("%w: process %d (%s) is not the QEMU of %s", ErrNotQEMU, p.Identity.PID, p.Command, uuid)
	}
	return nil
}

// UUID returns what the process's command line says after -uuid, as that of a QEMU has it;
// empty without one.
func (p *Process) UUID() string {
	args, err := p.Args()
	if i := slices.Index(args, "-uuid"); err == nil && i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// IsRoot is true for a process of root's. Everybody can run a set-user-ID program by another
// name, so its effective user ID alone says nothing.
func (p *Process) IsRoot() bool { return p.isOf("0") }

// IsUser is true for a process of that user's, in this process's user namespace: in one of
// its own everybody can have any tree as "/" (user_namespaces(7)).
func (p *Process) IsUser(uid uint32) bool {
	return p.HasOwnUsers() && p.isOf(strconv.FormatUint(uint64(uid), 10))
}

// HasOwnUsers is true for a process in this process's user namespace: the tree of any other may
// be one that never answers.
func (p *Process) HasOwnUsers() bool {
	own, err := os.Readlink(filepath.Join(Dir, "self/ns/user"))
	if err != nil {
		return false
	}
	its, err := os.Readlink(p.path("ns/user"))
	return err == nil && its == own
}

// isOf is true when the real, the effective and the saved user ID of the process are that one
// (the first three of "Uid:" in /proc/PID/status, proc_pid_status(5)).
func (p *Process) isOf(uid string) bool {
	status, err := readProc(p.path("status"))
	if err != nil || p.Alive() != nil {
		return false
	}
	ids := statusFields(string(status), "Uid")
	return len(ids) > 2 && ids[0] == uid && ids[1] == uid && ids[2] == uid
}

// Named returns the PIDs of all processes of that command name, which the kernel cuts to
// 15 characters. proc is Dir.
func Named(proc, name string) ([]int, error) {
	pids, err := All(proc)
	return slices.DeleteFunc(pids, func(pid int) bool {
		c, err := commandName(proc, pid)
		return err != nil || c != name
	}), err
}

// All returns the PIDs of all processes. proc is Dir.
func All(proc string) ([]int, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func commandName(proc string, pid int) (string, error) {
	name, err := readProc(proc + "/" + strconv.Itoa(pid) + "/comm")
	return string(bytes.TrimSuffix(name, []byte("\n"))), err
}

// readProc reads a short file of /proc, or the first 1024 bytes of a longer one. There
// may be thousands to read, and os.ReadFile makes nine system calls where three do.
func readProc(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var text [1024]byte
	n, err := unix.Read(fd, text[:]) // one read is enough: the kernel fills the buffer
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return bytes.Clone(text[:n]), nil
}

// Identify returns what tells the process of that PID from every other one, before and
// after it. proc is Dir. The error wraps fs.ErrNotExist when there is no such process.
func Identify(proc string, pid int) (recover.ProcessIdentity, error) {
	data, err := readProc(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return recover.ProcessIdentity{}, fmt.Errorf("process %d: %w", pid, err)
	}
	ticks, err := parseStartTicks(data)
	if err != nil {
		return recover.ProcessIdentity{}, fmt.Errorf("process %d: %w", pid, err)
	}
	boot, err := BootID(proc)
	return recover.ProcessIdentity{PID: pid, StartTicks: ticks, BootID: boot}, err
}

// IsStopped is true for a process that a signal has stopped, with all its threads: it does
// nothing until somebody continues it (state T in /proc/PID/stat, proc(5)). proc is Dir.
func IsStopped(proc string, pid int) bool {
	stat, err := readProc(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	_, rest, found := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return err == nil && found && bytes.HasPrefix(rest, []byte("T "))
}

// BootID returns the ID of the host's current boot, which is another one after each
// (/proc/sys/kernel/random/boot_id). proc is Dir.
func BootID(proc string) (string, error) {
	data, err := readProc(filepath.Join(proc, "sys/kernel/random/boot_id"))
	return strings.TrimSpace(string(data)), err
}

// parseStartTicks reads field 22 of /proc/PID/stat. The command name in field 2
// may contain anything, spaces and parentheses too: the fields are counted from
// its last parenthesis (proc(5)).
func parseStartTicks(stat []byte) (uint64, error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, errors.New("/proc/PID/stat: no command name")
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 20 {
		return 0, errors.New("/proc/PID/stat: too few fields")
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}
