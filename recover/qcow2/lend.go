package qcow2

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// accessList is the attribute that has a file's access control list (acl(5)).
const accessList = "system.posix_acl_access"

// lend lets a group that nobody is in read a file, and its owner write it as before: a process
// that has read it can't keep a descriptor that writes. giveBack makes the file as it was;
// it is called also when lend fails. An access control list would let others read with the
// group, and is put back afterwards.
func lend(f *os.File, gid uint32) (giveBack func() error, err error) {
	fd := int(f.Fd())
	var was unix.Stat_t
	if err := unix.Fstat(fd, &was); err != nil {
		return func() error { return nil }, err
	}
	list := make([]byte, 64<<10) // XATTR_SIZE_MAX in the kernel's linux/limits.h
	n, err := unix.Fgetxattr(fd, accessList, list)
	if err != nil {
		n = 0
	}
	alone := was.Mode & 0o7707 // of whoever it is lent to nothing is left
	giveBack = func() error {
		errs := errors.Join(unix.Fchmod(fd, alone), unix.Fchown(fd, -1, int(was.Gid)), unix.Fchmod(fd, was.Mode&0o7777))
		if n > 0 {
			errs = errors.Join(errs, unix.Fsetxattr(fd, accessList, list[:n], 0))
		}
		return errs
	}
	if n > 0 {
		if err := unix.Fremovexattr(fd, accessList); err != nil {
			return giveBack, err
		}
	}
	for _, step := range []func() error{
		func() error { return unix.Fchmod(fd, alone) },
		func() error { return unix.Fchown(fd, -1, int(gid)) },
		func() error { return unix.Fchmod(fd, alone|0o040) },
	} {
		if err := step(); err != nil {
			return giveBack, err
		}
	}
	return giveBack, nil
}

// cantBeLent is true for an error of lend that speaks of the file system and not of the file:
// it is read-only, or of a server that lets root change no group.
func cantBeLent(err error) bool {
	for _, no := range []error{unix.EPERM, unix.EROFS, unix.EINVAL, unix.ENOTSUP, unix.EOVERFLOW, unix.ENOSYS} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// state is what changes whenever a file is written to.
type state struct{ size, mtime, ctime int64 }

func stateOf(f *os.File) (state, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return state{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return state{size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, nil
}
