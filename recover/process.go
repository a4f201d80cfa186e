package recover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errNotQEMU: the process is not the QEMU that the hypervisor's pid file claims.
var errNotQEMU = errors.New("the pid file is stale")

// deletedSuffix is what the kernel appends to the link of a descriptor whose
// name was unlinked (fs/d_path.c, d_path). A file may really be called that, so
// it proves nothing by itself.
const deletedSuffix = " (deleted)"

// inode identifies a file on this host for as long as somebody holds it.
type inode struct {
	Device, Inode uint64
}

// Key is the inode's name in journals and in the keeper.
func (i inode) Key() string { return inodeKey(i.Device, i.Inode) }

// descriptor is one open regular file of a process.
type descriptor struct {
	FD    int
	Link  string // as readlink shows it, the suffix included
	Stat  unix.Stat_t
	Flags int
}

func (d descriptor) inode() inode   { return inode{d.Stat.Dev, d.Stat.Ino} }
func (d descriptor) unlinked() bool { return d.Stat.Nlink == 0 }
func (d descriptor) direct() bool   { return d.Flags&unix.O_DIRECT != 0 }
func (d descriptor) writable() bool { return d.Flags&unix.O_ACCMODE != unix.O_RDONLY }

// sillyRenamed is true for the hidden name that an NFS client (fs/nfs/unlink.c,
// nfs_sillyrename) or libfuse (".fuse_hidden") gives an open file on deletion:
// its link count is not 0, and yet nobody can find it.
func (d descriptor) sillyRenamed() bool {
	base := filepath.Base(strings.TrimSuffix(d.Link, deletedSuffix))
	return strings.HasPrefix(base, ".nfs") || strings.HasPrefix(base, ".fuse_hidden")
}

// process is one process, held so that its pid can't be another's.
type process struct {
	proc     string // /proc
	pidfd    int
	Identity ProcessIdentity
	Command  string
}

// openProcess holds the process of that pid. The caller closes it.
func openProcess(proc string, pid int) (*process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{proc: proc, pidfd: pidfd}
	if p.Identity, err = identify(proc, pid); err == nil {
		p.Command, err = commandName(proc, pid)
	}
	// Whatever was read belongs to the held process only if that still lives.
	if err == nil {
		err = p.Alive()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close lets the process go.
func (p *process) Close() { unix.Close(p.pidfd) }

// Alive returns an error when the process has ended.
func (p *process) Alive() error {
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

// path is a path below the process's directory in /proc.
func (p *process) path(elem ...string) string {
	return filepath.Join(append([]string{p.proc, strconv.Itoa(p.Identity.PID)}, elem...)...)
}

// Root is the process's "/".
func (p *process) Root() string { return p.path("root") }

// FDPath is the link through which one of its descriptors can be opened afresh.
func (p *process) FDPath(fd int) string { return p.path("fd", strconv.Itoa(fd)) }

// Descriptors returns the process's open regular files.
func (p *process) Descriptors(ctx context.Context) ([]descriptor, error) {
	dir := p.path("fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("descriptors of process %d: %w", p.Identity.PID, err)
	}
	var list []descriptor
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		d := descriptor{FD: fd}
		path := filepath.Join(dir, e.Name())
		// A descriptor may be closed at any moment: that one is no loss.
		if unix.Stat(path, &d.Stat) != nil || d.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if d.Link, err = os.Readlink(path); err != nil {
			continue
		}
		info, err := readProc(p.path("fdinfo", e.Name()))
		if err != nil {
			continue
		}
		if d.Flags, err = parseFDInfo(info); err != nil {
			return nil, fmt.Errorf("descriptor %d of process %d: %w", fd, p.Identity.PID, err)
		}
		list = append(list, d)
	}
	return list, p.Alive()
}

// checkQEMU returns errNotQEMU unless the process runs the domain of that UUID.
// libvirt starts every QEMU with "-uuid UUID" (src/qemu/qemu_command.c).
func (p *process) checkQEMU(uuid string) error {
	data, err := os.ReadFile(p.path("cmdline"))
	if err != nil {
		return fmt.Errorf("process %d: %w", p.Identity.PID, err)
	}
	args := strings.Split(string(data), "\x00")
	i := slices.Index(args, "-uuid")
	if i < 0 || i+1 >= len(args) || !strings.EqualFold(args[i+1], uuid) {
		return fmt.Errorf("%w: process %d (%s) is not the QEMU of %s", errNotQEMU, p.Identity.PID, p.Command, uuid)
	}
	return nil
}

// processesNamed returns the pids of every process of that command name.
func processesNamed(proc, name string) ([]int, error) {
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
		pid, err := strconv.Atoi(e)
		if err != nil {
			continue
		}
		if c, err := commandName(proc, pid); err == nil && c == name {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func commandName(proc string, pid int) (string, error) {
	name, err := readProc(proc + "/" + strconv.Itoa(pid) + "/comm")
	return string(bytes.TrimSuffix(name, []byte("\n"))), err
}

// readProc reads a file of the kernel's that is short, or the beginning of it. There
// may be thousands to read, and os.ReadFile makes nine system calls where three do.
func readProc(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var text [1024]byte
	n, err := unix.Read(fd, text[:]) // which is whole: the kernel fills what there is room for
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return bytes.Clone(text[:n]), nil
}

func identify(proc string, pid int) (ProcessIdentity, error) {
	data, err := readProc(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return ProcessIdentity{}, fmt.Errorf("process %d: %w", pid, err)
	}
	ticks, err := parseStartTicks(data)
	if err != nil {
		return ProcessIdentity{}, fmt.Errorf("process %d: %w", pid, err)
	}
	boot, err := bootID(proc)
	return ProcessIdentity{PID: pid, StartTicks: ticks, BootID: boot}, err
}

func bootID(proc string) (string, error) {
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

// parseFDInfo reads the open flags, which the kernel prints in octal
// (fs/proc/fd.c, seq_show).
func parseFDInfo(info []byte) (int, error) {
	for line := range bytes.Lines(info) {
		if rest, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 31)
			return int(n), err
		}
	}
	return 0, errors.New("fdinfo has no flags")
}

// heldPaths returns the paths that a descriptor's file may have had: the link as
// it stands and, where the name is gone, first the link without the kernel's suffix.
func heldPaths(link string, unlinked bool) []string {
	stripped, cut := strings.CutSuffix(link, deletedSuffix)
	switch {
	case cut && unlinked:
		return []string{stripped, link}
	case cut:
		return []string{link, stripped}
	default:
		return []string{link}
	}
}

// root is a "/" below which paths are looked up.
type root struct{ file *os.File }

func openRoot(path string) (root, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return root{f}, err
}

func (r root) Close() { r.file.Close() }

// Stat looks a path up as the processes below this root would, following links
// inside it. It only looks: whatever is written goes through package beneath.
// fs.ErrNotExist when the path leads nowhere.
func (r root) Stat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.ENOENT
	}
	if err != nil {
		return st, &fs.PathError{Op: "look up", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return st, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st, nil
}

// Open opens a regular file for reading, links inside the root followed.
func (r root) Open(path string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Resolve returns path with every link above it followed, as the kernel would
// show it for a file there; path itself where that can't be found out.
func (r root) Resolve(path string) string {
	dir, _, err := r.Ancestor(path)
	if err != nil {
		return path
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(dir, "/"), &how)
	if err != nil {
		return path
	}
	defer unix.Close(fd)
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return path
	}
	return filepath.Join(real, strings.TrimPrefix(path, dir))
}

// Ancestor returns the nearest directory above path that exists.
func (r root) Ancestor(path string) (string, unix.Stat_t, error) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if dir == "/" {
			st, err := r.Stat(".")
			return dir, st, err
		}
		st, err := r.Stat(dir)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return dir, st, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", st, err
		}
	}
}
