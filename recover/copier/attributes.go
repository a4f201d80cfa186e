package copier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KeepAttributes gives dst what src has beyond its bytes, its owner and its mode: its
// access control list, its label, the attributes that somebody has set (user.*, and the
// properties of btrfs), and the project that its room is counted for. An access control list
// that dst inherited from its directory goes. Where the file system has none of these,
// nothing happens.
//
// An access control list changes the mode of a file, and the mode the list (acl(5)), so owner
// and mode are set afterwards. The error joins one for each that could not be kept; all
// others are.
func KeepAttributes(dst *os.File, src Source) error {
	return errors.Join(keepExtended(dst, src.File), keepProject(dst, src.File))
}

// isKept is true for the extended attributes that belong to a file whoever uses it. Those of
// trusted.* are their owners' bookkeeping, as libvirt's and an overlay's.
func isKept(name string) bool {
	return name == labelAttribute || name == aclAttribute ||
		strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "btrfs.")
}

const (
	labelAttribute = "security.selinux"
	aclAttribute   = "system.posix_acl_access"
)

func keepExtended(dst, src *os.File) error {
	want, err := attributesOf(src)
	if err != nil {
		return err
	}
	have, err := attributesOf(dst)
	if err != nil {
		return err
	}
	var errs error
	if _, inherited := have[aclAttribute]; inherited && want[aclAttribute] == nil {
		errs = attributeError(unix.Fremovexattr(int(dst.Fd()), aclAttribute), "remove", aclAttribute)
	}
	for name, value := range want {
		if now, ok := have[name]; !ok || !bytes.Equal(now, value) {
			errs = errors.Join(errs, attributeError(unix.Fsetxattr(int(dst.Fd()), name, value, 0), "set", name))
		}
	}
	return errs
}

func attributeError(err error, what, name string) error {
	if err != nil {
		err = fmt.Errorf("%s the attribute %s: %w", what, name, err)
	}
	return err
}

// attributesOf returns the attributes of a file that are kept, by name.
func attributesOf(f *os.File) (map[string][]byte, error) {
	fd := int(f.Fd())
	names, err := grown(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the attributes of %s: %w", f.Name(), err)
	}
	values := map[string][]byte{}
	for name := range strings.SplitSeq(string(names), "\x00") {
		if !isKept(name) {
			continue
		}
		value, err := grown(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		switch {
		case errors.Is(err, unix.ENODATA): // removed just now
		case err != nil:
			return nil, fmt.Errorf("read the attribute %s of %s: %w", name, f.Name(), err)
		default:
			values[name] = value
		}
	}
	return values, nil
}

// grown reads what may grow between the question for its size and the reading. The kernel
// has nothing longer than 64 KiB (XATTR_SIZE_MAX and XATTR_LIST_MAX in linux/limits.h).
func grown(read func([]byte) (int, error)) ([]byte, error) {
	buffer := make([]byte, 256)
	for {
		n, err := read(buffer)
		if !errors.Is(err, unix.ERANGE) || len(buffer) > 1<<16 {
			return slices.Clone(buffer[:max(n, 0)]), err
		}
		buffer = make([]byte, 4*len(buffer))
	}
}

// From the kernel's include/uapi/linux/fs.h.
const (
	ioctlGetAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	ioctlSetAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	attributesLength   = 28         // bytes of struct fsxattr
	projectOffset      = 12         // of its fsx_projid
)

// keepProject puts dst into the project of src. A file of another project than its
// directory's can't even be renamed into it (EXDEV, ext4_rename in the kernel's fs/ext4/namei.c).
func keepProject(dst, src *os.File) error {
	var want, have [attributesLength]byte
	if attributes(src, ioctlGetAttributes, &want) != nil || attributes(dst, ioctlGetAttributes, &have) != nil {
		return nil //nolint:nilerr // a file system without projects
	}
	ne := binary.NativeEndian
	project := ne.Uint32(want[projectOffset:])
	if project == ne.Uint32(have[projectOffset:]) {
		return nil
	}
	ne.PutUint32(have[projectOffset:], project)
	if err := attributes(dst, ioctlSetAttributes, &have); err != nil {
		return fmt.Errorf("put it into the project %d: %w", project, err)
	}
	return nil
}

func attributes(f *os.File, request uintptr, a *[attributesLength]byte) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
