package procfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// Root is a directory that serves as "/" for looking up paths.
type Root struct{ file *os.File }

// OpenRoot opens the directory at path; the caller closes it. The error wraps
// fs.ErrNotExist when there is none.
func OpenRoot(path string) (Root, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return Root{f}, err
}

// Close closes the directory.
func (r Root) Close() { r.file.Close() }

// Stat looks up a path as a process with this root would: links are followed inside the
// root (RESOLVE_IN_ROOT, openat2(2)). The error wraps fs.ErrNotExist when nothing is
// there. To write, use package beneath, which follows no links.
func (r Root) Stat(path string) (identity.Status, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.ENOENT
	}
	if err != nil {
		return identity.Status{}, &fs.PathError{Op: "look up", Path: path, Err: err}
	}
	defer unix.Close(fd)
	st, err := identity.Of(fd)
	if err != nil {
		return st, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st, nil
}

// IsSymlink is true when the last component of path is a symlink.
func (r Root) IsSymlink(path string) bool {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// IsOverlay is true for a path on an overlay file system, whose files need not have the
// device of their directories, nor a link count of 0 when they are deleted.
func (r Root) IsOverlay(path string) bool {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// Renames is true when the name of the file at a path could be moved into a directory: both
// are reached through one mount. The error wraps fs.ErrNotExist when one of them is not there.
func (r Root) Renames(path, dir string) (bool, error) {
	from, err := r.mount(path)
	if err != nil {
		return false, err
	}
	to, err := r.mount(dir)
	return from == to, err
}

func (r Root) mount(path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if err != nil {
		return 0, &fs.PathError{Op: "look up", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return identity.Mount(fd)
}

// Lstat is Stat for the very file that has the path's last name: a link there is not
// followed.
func (r Root) Lstat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.ENOENT
	}
	if err != nil {
		return st, &fs.PathError{Op: "look up", Path: path, Err: err}
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	return st, err
}

// Open opens a regular file for reading, and follows links inside the root. It looks before it
// opens, and waits for nobody (plainfile). The error wraps fs.ErrNotExist when nothing is there.
func (r Root) Open(path string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	at, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(at)
	return plainfile.Beneath(at, path, plainfile.Rules{})
}

// Names returns the names in a directory, sorted, at most that many; more of them are an
// error. The error wraps fs.ErrNotExist when there is no such directory.
func (r Root) Names(dir string, most int) ([]string, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(dir, "/"), &how)
	if err != nil {
		return nil, &fs.PathError{Op: "open directory", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, err := f.Readdirnames(most + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > most {
		return nil, fmt.Errorf("%s has more than %d names", dir, most)
	}
	slices.Sort(names)
	return names, nil
}

// SamePlace is true when a path leads to the same place in both roots, whether its last
// component exists or not: the nearest directory above it that exists has the same path,
// device and inode in both. Mount namespaces that differ elsewhere count for nothing.
func (r Root) SamePlace(other Root, path string) (bool, error) {
	dir, at, err := r.Ancestor(path)
	if err != nil {
		return false, err
	}
	theirDir, theirs, err := other.Ancestor(path)
	return dir == theirDir && at.Dev == theirs.Dev && at.Ino == theirs.Ino, err
}

// Resolve returns path with every link above it followed, as the kernel shows it in the
// link of a descriptor. It returns path itself if it can't be resolved.
func (r Root) Resolve(path string) string {
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

// Dangling returns the first symlink above path that leads nowhere, and what it names; empty
// without one.
func (r Root) Dangling(path string) (link, target string) {
	for at, c := range path {
		if c != '/' || at == 0 {
			continue
		}
		if _, err := r.Stat(path[:at]); err == nil {
			continue
		}
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
		fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path[:at], "/"), &how)
		if err != nil {
			return "", ""
		}
		defer unix.Close(fd)
		text := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", text)
		if err != nil {
			return "", "" // it is no symlink
		}
		return path[:at], string(text[:n])
	}
	return "", ""
}

// Ancestor returns the nearest existing directory above path, and its status.
func (r Root) Ancestor(path string) (string, identity.Status, error) {
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
