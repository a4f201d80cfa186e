package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoDuplicate: a duplicate of the descriptor can't be had, or must not be used.
var ErrNoDuplicate = errors.New("no duplicate of the process's own descriptor can be used")

// Duplicate returns a duplicate of a process's descriptor (pidfd_getfd(2)), for a file that
// can't be opened anew. It is the same open file description: whoever has it reads with
// pread(2) alone, and never moves the offset, changes flags, writes or syncs, which would
// take an error of writing from the process. As long as it is open, so are the locks of the
// process on the file, and QEMU's keep every other QEMU from starting on that inode. So a
// duplicate is given only of an inode that no name leads to, and none ever will.
//
// The caller closes it. The error wraps fs.ErrNotExist when the process or its descriptor is
// gone, unix.ESTALE when the file's server does not know the file any more, ErrNoDuplicate when
// the file has a name, when the descriptor can't be read by, or when the kernel refuses.
func Duplicate(pid, fd int) (*os.File, error) {
	f, err := duplicate(pid, fd)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor %d of process %d: %w", fd, pid, err)
	}
	return f, nil
}

func duplicate(pid, fd int) (*os.File, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, refused(err)
	}
	defer unix.Close(pidfd)
	got, err := unix.PidfdGetfd(pidfd, fd, 0) // sets FD_CLOEXEC
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, refused(err)
	}
	if err := readsOnly(got); err != nil {
		unix.Close(got)
		return nil, err
	}
	return os.NewFile(uintptr(got), fmt.Sprintf("%s/%d/fd/%d", Dir, pid, fd)), nil
}

// refused explains why the kernel gives no duplicate.
func refused(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: this kernel has no pidfd_getfd, which came with Linux 5.6 (%w)", ErrNoDuplicate, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the kernel lets nobody trace processes (kernel.yama.ptrace_scope=3?): %w", ErrNoDuplicate, err)
	}
	return fmt.Errorf("%w: %w", ErrNoDuplicate, err)
}

// readsOnly returns an error unless a duplicate may be read by, and keeps nobody from starting.
func readsOnly(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case flags&unix.O_ACCMODE == unix.O_WRONLY || flags&unix.O_PATH != 0:
		return fmt.Errorf("%w: the process has it open for writing only", ErrNoDuplicate)
	case flags&unix.O_NONBLOCK != 0:
		// Go's os.File would clear this flag, for the process too.
		return fmt.Errorf("%w: the process has it open without blocking", ErrNoDuplicate)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: it is no regular file", ErrNoDuplicate)
	case st.Nlink > 0:
		return fmt.Errorf("%w: the file has a name, and the process's locks would keep others from it", ErrNoDuplicate)
	}
	return nil
}
