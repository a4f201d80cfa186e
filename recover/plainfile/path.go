package plainfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Along calls trust for the directory at path, an absolute one, and for each one above it, with
// who owns it and the permission bits that count: who can write one of them can put another in
// place of what is below. Behind a symlink on the way, both where it stands and what it leads to
// count. What does not exist yet is told by what is above. It returns the first error of trust,
// or an *fs.PathError.
func Along(path string, trust func(at string, uid, mode uint32) error) error {
	path = filepath.Clean(path)
	for at := path; ; at = filepath.Dir(at) {
		var st unix.Stat_t
		err := unix.Lstat(at, &st)
		switch {
		case errors.Is(err, unix.ENOENT) && at != "/":
			continue
		case err != nil:
			return &fs.PathError{Op: "look at", Path: at, Err: err}
		}
		mode := permissions(st)
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			mode = 0 // nobody writes to a symlink
			real, err := filepath.EvalSymlinks(at)
			if err == nil {
				err = Along(real, trust)
			}
			if err != nil {
				return err
			}
		}
		if at != path && mode&unix.S_ISVTX != 0 {
			mode &^= 0o022 // what is not theirs others can't rename in there
		}
		if err := trust(at, st.Uid, mode); err != nil {
			return err
		}
		if at == "/" {
			return nil
		}
	}
}

// permissions are the bits of a file's mode that count: what root's group may, root may.
func permissions(st unix.Stat_t) uint32 {
	if st.Gid == 0 {
		return st.Mode & 0o7777 &^ 0o020
	}
	return st.Mode & 0o7777
}

// OursAlong returns nil when nobody but root, and this process's user, can write the directory at
// path, or put another in its place. It need not exist: who makes it in a sticky directory
// looks again then. A symlink is none. The error wraps ErrNotOurs or ErrNoDirectory, or is that
// of Along.
func OursAlong(path string) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err := fmt.Errorf("%w but %s", ErrNoDirectory, kind(st.Mode))
		if real, lerr := filepath.EvalSymlinks(path); lerr == nil {
			err = fmt.Errorf("%w: name %s itself", err, real)
		}
		return &fs.PathError{Op: "look at", Path: path, Err: err}
	}
	return Along(path, func(at string, uid, mode uint32) error {
		switch {
		case uid != 0 && int(uid) != os.Geteuid():
			return fmt.Errorf("%w: %s belongs to the user %d", ErrNotOurs, at, uid)
		case mode&0o022 != 0:
			return fmt.Errorf("%w: %s has mode %04o: chmod go-w %s", ErrNotOurs, at, mode, at)
		}
		return nil
	})
}
