package beneath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

// QEMU locks one byte of an image, from byte 100 on, for each permission that it
// uses, and one from byte 200 on for each that it does not share with others: one
// byte for each bit of a 64-bit mask (RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE and
// raw_apply_lock_bytes in QEMU's block/file-posix.c).
const (
	qemuPermBase   = 100
	qemuSharedBase = 200
	qemuLockBytes  = 64
)

// Holder is one process's use of a file.
type Holder struct {
	PID     int    // -1 when only the lock is known, not its holder
	Process string // the process's name (/proc/PID/comm)
	FD      int    // its descriptor; -1 for a lock
}

// String describes the holder for a message.
func (h Holder) String() string {
	if h.PID < 0 {
		return "a QEMU image lock"
	}
	if h.FD < 0 {
		return fmt.Sprintf("a QEMU image lock of %s[%d]", h.Process, h.PID)
	}
	return fmt.Sprintf("%s[%d] fd %d", h.Process, h.PID, h.FD)
}

// InUse returns everybody who has the file open for reading or writing: every process of this PID
// namespace except this one and those in ignore (the keeper), and the holders of
// QEMU's locks on it, which may be on another host of a shared file system. An
// empty slice means nobody. The caller must be root.
//
// Where even root can't look into a process (a security module forbids it), InUse
// asks the kernel for a write lease, which is granted only when nobody else has the
// file open (fcntl(2), F_SETLEASE). If the lease is refused, InUse returns an error,
// because the file may be in use. It also fails on a file system that can't report
// its locks.
//
// It can't see a mapping that outlived its descriptor, a loop device, or processes
// of other hosts that take no QEMU locks. It locks nothing: somebody may open the
// file right afterwards.
func InUse(f *os.File, ignore ...int) ([]Holder, error) {
	holders, err := openedBy(f, append([]int{os.Getpid()}, ignore...))
	if err == nil {
		for _, base := range []int64{qemuPermBase, qemuSharedBase} {
			var lock []Holder
			if lock, err = lockedBy(f, base); err != nil {
				break
			}
			holders = append(holders, lock...)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find who uses %s: %w", f.Name(), err)
	}
	return holders, nil
}

func openedBy(f *os.File, ignore []int) ([]Holder, error) {
	want, err := identify(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, err
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var holders []Holder
	var hidden error
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || slices.Contains(ignore, pid) {
			continue
		}
		fds, err := descriptorsOn(want, pid)
		if gone(err) {
			continue
		}
		if errors.Is(err, fs.ErrPermission) {
			hidden = err
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			holders = append(holders, Holder{PID: pid, Process: processName(pid), FD: fd})
		}
	}
	if hidden != nil && len(holders) == 0 {
		if err := leased(f); err != nil {
			return nil, fmt.Errorf("%w, and the file may be in use there: %w", hidden, err)
		}
	}
	return holders, nil
}

// leased returns nil when f is the only open description of its file.
func leased(f *os.File) error {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return fmt.Errorf("no lease: %w", err)
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return err
}

// descriptorsOn returns a process's descriptors that are open on the file.
func descriptorsOn(want fileID, pid int) ([]int, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, name := range names {
		// The cached answer is enough, and does not wait for a server that hangs.
		id, err := identify(int(dir.Fd()), name, unix.AT_STATX_DONT_SYNC)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "statx", Path: dir.Name() + "/" + name, Err: err}
		}
		fd, err := strconv.Atoi(name)
		if err != nil || id != want {
			continue
		}
		switch flags, err := flagsOf(pid, fd); {
		case gone(err), flags&unix.O_PATH != 0: // nobody can read or write through such a descriptor
		case err != nil:
			return nil, err
		default:
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds, nil
}

// flagsOf returns the flags of a process's descriptor (fdinfo in proc(5)).
func flagsOf(pid, fd int) (int, error) {
	path := fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd)
	info, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	flags, err := identity.OpenFlags(info)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return flags, nil
}

// fileID is enough of an identity here: this process has the file open, and nobody else's
// descriptor can be on another one of its number.
type fileID struct {
	major, minor uint32
	inode        uint64
}

func identify(dir int, name string, flags int) (fileID, error) {
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(dir, name, flags, unix.STATX_INO, &st) })
	return fileID{major: st.Dev_major, minor: st.Dev_minor, inode: st.Ino}, err
}

// gone reports whether the error means that a process or descriptor has ended.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

func processName(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(comm))
}

// lockedBy queries QEMU's locks from base on. It takes none, and works on a
// descriptor that is open for reading only.
func lockedBy(f *os.File, base int64) ([]Holder, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: base, Len: qemuLockBytes}
	if err := retry(func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) }); err != nil {
		return nil, fmt.Errorf("ask for QEMU's locks: %w", err)
	}
	if lock.Type == unix.F_UNLCK {
		return nil, nil
	}
	h := Holder{PID: -1, FD: -1}
	if lock.Pid > 0 { // -1 for open file description locks
		h.PID, h.Process = int(lock.Pid), processName(int(lock.Pid))
	}
	return []Holder{h}, nil
}
