package beneath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

// ErrNotRegular: a name is not that of a regular file but of a device, a FIFO, a
// socket or a directory, which is not opened.
var ErrNotRegular = errors.New("not a regular file")

// Dir is an open directory. Names given to its methods are single components;
// anything else is fs.ErrInvalid. Its methods act in this very directory, even if
// its path has come to name another one. They are safe for concurrent use, except
// Close, which must not run beside another.
type Dir struct {
	fd   int
	path string
}

// Path is the directory's path within its Root when it was opened, with symlinks
// resolved: for messages, not for opening anything.
func (d *Dir) Path() string { return d.path }

// Close closes the directory.
func (d *Dir) Close() error {
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// Info is the status of the directory itself.
func (d *Dir) Info() (identity.Status, error) { return fstat(d.fd, d.path) }

// SetOwner gives the directory itself an owner and a mode, with SetOwner's errors.
func (d *Dir) SetOwner(o Owner) error { return setOwner(d.fd, d.path, o) }

// Stat returns the status of what a name leads to, which is not followed.
// fs.ErrNotExist when the name does not exist.
func (d *Dir) Stat(name string) (identity.Status, error) {
	if err := d.check("stat", name); err != nil {
		return identity.Status{}, err
	}
	return fstatat(d.fd, name, d.join(name))
}

// Open opens a regular file with an access mode and status flags (os.O_RDWR,
// unix.O_DIRECT, ...). Flags that create or truncate are fs.ErrInvalid: use Create.
// Errors: fs.ErrNotExist, ErrSymlink (*SymlinkError), ErrNotRegular.
func (d *Dir) Open(name string, flags int) (*os.File, error) {
	if err := d.check("open", name); err != nil {
		return nil, err
	}
	path := d.join(name)
	if flags&(unix.O_CREAT|unix.O_EXCL|unix.O_TRUNC|unix.O_TMPFILE) != 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrInvalid}
	}
	// It is looked at before it is opened: the open of a device can do something.
	at, err := openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(at)
	st, err := fstat(at, path)
	if err != nil {
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFLNK:
		return nil, d.symlink(name)
	default:
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	// O_NONBLOCK: a lease on the file is not waited for.
	fd, err := openat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", at), flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		if err = unix.SetNonblock(fd, false); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Create makes a new file with mode 0600 and opens it for reading and writing.
// fs.ErrExist when the name exists, even as a dangling symlink.
func (d *Dir) Create(name string) (*os.File, error) {
	if err := d.check("create", name); err != nil {
		return nil, err
	}
	path := d.join(name)
	fd, err := openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Mkdir makes a directory, sets its owner and mode before anyone but root can
// enter it, fsyncs it and this directory, and opens it. fs.ErrExist when the name
// exists; any other error may leave an empty directory of root's with mode 0700.
func (d *Dir) Mkdir(name string, o Owner) (*Dir, error) {
	if err := d.check("mkdir", name); err != nil {
		return nil, err
	}
	path := d.join(name)
	fd, _, err := mkdirOwned(d.fd, name, path, o)
	if err != nil {
		return nil, err
	}
	return &Dir{fd: fd, path: path}, nil
}

// Subdir opens a directory in this one. Errors: fs.ErrNotExist, ErrSymlink
// (*SymlinkError; no symlink is trusted here), unix.ENOTDIR.
func (d *Dir) Subdir(name string) (*Dir, error) {
	if err := d.check("open directory", name); err != nil {
		return nil, err
	}
	fd, err := openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		if st, serr := d.Stat(name); serr == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil, d.symlink(name)
		}
		return nil, &fs.PathError{Op: "open directory", Path: d.join(name), Err: err}
	}
	return &Dir{fd: fd, path: d.join(name)}, nil
}

// Remove removes a name that is not a directory's. A symlink is removed itself.
// fs.ErrNotExist when the name does not exist.
func (d *Dir) Remove(name string) error { return d.unlink(name, 0) }

// RemoveDir removes an empty directory. fs.ErrNotExist when the name does not
// exist, unix.ENOTEMPTY when the directory is not empty.
func (d *Dir) RemoveDir(name string) error { return d.unlink(name, unix.AT_REMOVEDIR) }

func (d *Dir) unlink(name string, flags int) error {
	if err := d.check("remove", name); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Unlinkat(d.fd, name, flags) }); err != nil {
		return &fs.PathError{Op: "remove", Path: d.join(name), Err: err}
	}
	return nil
}

// Names returns the names in the directory, without "." and "..", in no order.
func (d *Dir) Names() ([]string, error) { return d.NamesUpTo(-1) }

// NamesUpTo is Names for a directory in which others make names, also while it is read: most
// bounds how many are returned. There may be more if as many came.
func (d *Dir) NamesUpTo(most int) ([]string, error) {
	// A file description of its own, because all readers of d share its offset.
	fd, err := openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open directory", Path: d.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	names, err := f.Readdirnames(most)
	if errors.Is(err, io.EOF) { // of an empty one
		err = nil
	}
	return names, err
}

// Sync makes the names in the directory durable.
func (d *Dir) Sync() error {
	if err := retry(func() error { return unix.Fsync(d.fd) }); err != nil {
		return &fs.PathError{Op: "fsync", Path: d.path, Err: err}
	}
	return nil
}

// FileSystem describes the file system that a directory is on (statfs(2)).
type FileSystem struct {
	Free  uint64 // bytes that users other than root can still write (f_bavail)
	Total uint64 // bytes
	Magic int64  // its type: unix.XFS_SUPER_MAGIC, ...

	NameMax int // the longest name that it takes, in bytes: 255, or 143 on eCryptfs
	// NoInodes is true when it has a fixed number of inodes, and none is left.
	NoInodes bool
}

// Statfs describes the file system that the directory is on.
func (d *Dir) Statfs() (FileSystem, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return FileSystem{}, &fs.PathError{Op: "statfs", Path: d.path, Err: err}
	}
	unit := uint64(st.Frsize)
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	return FileSystem{
		Free:  st.Bavail * unit,
		Total: st.Blocks * unit,
		Magic: int64(st.Type), //nolint:unconvert // narrower on other architectures

		NameMax:  int(st.Namelen),
		NoInodes: st.Files > 0 && st.Ffree == 0,
	}, nil
}

func (d *Dir) join(name string) string { return strings.TrimSuffix(d.path, "/") + "/" + name }

func (d *Dir) check(op, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return &fs.PathError{Op: op, Path: d.path, Err: fmt.Errorf("%w: %q is not the name of a file", fs.ErrInvalid, name)}
	}
	return nil
}

func (d *Dir) symlink(name string) error {
	e := &SymlinkError{Path: d.join(name)}
	if st, err := d.Stat(name); err == nil {
		e.UID = st.Uid
	}
	e.Target, _ = readlinkat(d.fd, name)
	return e
}

// mkdirOwned makes a directory, sets its owner, and opens it for reading. made is
// true once the directory exists, also beside an error.
func mkdirOwned(parent int, name, path string, o Owner) (fd int, made bool, err error) {
	if err := retry(func() error { return unix.Mkdirat(parent, name, 0o700) }); err != nil {
		return -1, false, &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	fd, err = openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, true, &fs.PathError{Op: "open directory", Path: path, Err: err}
	}
	fresh, err := isFresh(fd, path)
	if err == nil && !fresh {
		// It is not ours any more. Another run, perhaps on a host that shares the tree, has
		// finished it before we could; or a user who can write the parent has put another
		// directory there. Either way it is one that was there before us.
		unix.Close(fd)
		return -1, false, &fs.PathError{Op: "mkdir", Path: path, Err: unix.EEXIST}
	}
	if err == nil {
		err = ownDir(fd, parent, path, o)
	}
	if err != nil {
		unix.Close(fd)
		return -1, true, err
	}
	return fd, true, nil
}

// isFresh reports whether a directory is as mkdirOwned's mkdir leaves it: ours,
// closed to everybody else, and empty.
func isFresh(fd int, path string) (bool, error) {
	st, err := fstat(fd, path)
	if err != nil {
		return false, err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o777 != 0o700 {
		return false, nil
	}
	names, err := (&Dir{fd: fd, path: path}).Names()
	return err == nil && len(names) == 0, err
}

func ownDir(fd, parent int, path string, o Owner) error {
	if err := setOwner(fd, path, o); err != nil {
		return err
	}
	if err := (&Dir{fd: fd, path: path}).Sync(); err != nil {
		return err
	}
	// The parent may be an O_PATH descriptor, which fsync refuses.
	up, err := openat(parent, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return &fs.PathError{Op: "open the parent of", Path: path, Err: err}
	}
	defer unix.Close(up)
	if err := retry(func() error { return unix.Fsync(up) }); err != nil {
		return &fs.PathError{Op: "fsync the parent of", Path: path, Err: err}
	}
	return nil
}
