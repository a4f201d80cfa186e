package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrProtected: a directory or file can't be changed as it is now, not even by root. The
// error is a *ProtectedError, which says why.
var ErrProtected = errors.New("it can't be changed")

// ProtectedError says what keeps root from changing a directory or a file. errors.Is finds
// ErrProtected in it, and the kernel's error where one was asked for.
type ProtectedError struct {
	Path string // of the directory or file
	Why  string // what it is, as the end of a sentence about it
	Cure string // what lifts it, as a sentence without its full stop
	Err  error  // of the kernel; nil for an attribute
}

func (e *ProtectedError) Error() string { return fmt.Sprintf("%s %s: %s", e.Path, e.Why, e.Cure) }

// Unwrap makes errors.Is find ErrProtected and the kernel's error.
func (e *ProtectedError) Unwrap() []error { return []error{ErrProtected, e.Err} }

// Change is what is to be done in a directory or to a file.
type Change int

// The changes. Of an append-only directory (chattr +a) names can be made, but none can be
// renamed or removed, and its owner can't be changed; of an immutable one (chattr +i)
// nothing can (may_create and may_delete in fs/namei.c, setattr_prepare in fs/attr.c).
const (
	ChangeAddNames Change = iota // names are made in the directory
	ChangeNames                  // names are made, renamed and removed
	ChangeItself                 // the directory or file gets another name, one more, or another owner
)

// Permits reports whether the directory can be changed so: by its attributes, its mount, and what
// its file system says to root (an NFS server may squash it). It changes nothing. An error
// is a *ProtectedError, or that of the look.
func (d *Dir) Permits(change Change) error {
	if err := permits(d.fd, d.path, change); err != nil {
		return err
	}
	err := retry(func() error { return unix.Faccessat(d.fd, ".", unix.W_OK|unix.X_OK, 0) })
	p := &ProtectedError{Path: d.path, Err: err}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		p.Why, p.Cure = "is mounted read-only", "find out why (an error of its file system? dmesg), then mount it writable"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		p.Why, p.Cure = "is closed to root", "its file system refuses root to write there (an NFS export with root_squash?)"
	default:
		return &os.PathError{Op: "access", Path: d.path, Err: err}
	}
	return p
}

// CanName reports whether a file can get the name path, and what change does to names in
// its directory; directories above it that do not exist would be made. It changes nothing.
// Errors: ErrProtected (*ProtectedError), unix.ENAMETOOLONG, unix.ENOSPC (no inode is
// left), and those of OpenDir.
func (r *Root) CanName(path string, change Change) error {
	path = filepath.Clean(path)
	for names := []string{filepath.Base(path)}; ; {
		dir, err := r.OpenDir(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) && path != "/" {
			path, change = filepath.Dir(path), ChangeAddNames
			names = append(names, filepath.Base(path))
			continue
		}
		if err != nil {
			return err
		}
		defer dir.Close()
		return dir.takes(names, change)
	}
}

// takes reports whether names can be made in the directory, and in new ones below it.
func (d *Dir) takes(names []string, change Change) error {
	if err := d.Permits(change); err != nil {
		return err
	}
	room, err := d.Statfs()
	if err != nil {
		return err
	}
	for _, name := range names {
		if room.NameMax > 0 && len(name) > room.NameMax {
			return fmt.Errorf("%w: %q has %d bytes, and names in %s have at most %d", unix.ENAMETOOLONG, name, len(name), d.path, room.NameMax)
		}
	}
	if room.NoInodes {
		return fmt.Errorf("%w: the file system of %s has no inode left: remove files there that nobody needs", unix.ENOSPC, d.path)
	}
	return nil
}

// Permits reports whether a file, which its errors call path, can be changed so; see
// Dir.Permits.
func Permits(f *os.File, path string, change Change) error { return permits(int(f.Fd()), path, change) }

// permits looks at the attributes.
func permits(fd int, path string, change Change) error {
	immutable, appendOnly, err := attributes(fd)
	if err != nil {
		return fmt.Errorf("the attributes of %s: %w", path, err)
	}
	switch {
	case immutable:
		return &ProtectedError{Path: path, Why: "is immutable (chattr +i)", Cure: "if nobody needs it to be, chattr -i " + path}
	case appendOnly && change != ChangeAddNames:
		return &ProtectedError{Path: path, Why: "is append-only (chattr +a)", Cure: "if nobody needs it to be, chattr -a " + path}
	}
	return nil
}

// attributes returns the attributes that bind root too. A file system that has none, or
// does not tell, has neither.
func attributes(fd int) (immutable, appendOnly bool, err error) {
	var x unix.Statx_t
	err = retry(func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &x) })
	if err != nil && !errors.Is(err, unix.ENOSYS) {
		return false, false, err
	}
	if err == nil && x.Attributes_mask&unix.STATX_ATTR_IMMUTABLE != 0 {
		return x.Attributes&unix.STATX_ATTR_IMMUTABLE != 0, x.Attributes&unix.STATX_ATTR_APPEND != 0, nil
	}
	// The file system does not put them into statx (FUSE), but may have them.
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return false, false, nil //nolint:nilerr // it has no such attributes
	}
	return flags&flagImmutable != 0, flags&flagAppend != 0, nil
}

// Flags of FS_IOC_GETFLAGS (include/uapi/linux/fs.h).
const (
	flagImmutable = 0x10 // FS_IMMUTABLE_FL
	flagAppend    = 0x20 // FS_APPEND_FL
)
