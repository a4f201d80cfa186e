package procfs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// maxLinks is how many links one walk follows, as many as Linux does (MAXSYMLINKS,
// include/linux/namei.h).
const maxLinks = 40

// Canonical returns an absolute path without links and without "..", as the kernel would
// walk it below this root (path_resolution(7)). What does not exist is taken as it is
// written, so two names of one deleted file become the same name. Nothing is opened. The
// error wraps unix.ELOOP after 40 links.
func (r Root) Canonical(path string) (string, error) {
	return r.walk(path, func(string) error { return nil })
}

// OursAlong returns nil when nobody but root can write the file at a path, or put another in its
// place: every directory on the way, also behind links, is root's. The error wraps
// plainfile.ErrNotOurs or fs.ErrNotExist, or is Canonical's.
func (r Root) OursAlong(path string) error {
	end, err := r.walk(path, func(at string) error { return r.ours(at, true) })
	if err != nil {
		return err
	}
	return r.ours(end, false)
}

func (r Root) ours(at string, onTheWay bool) error {
	st, err := r.Lstat(cmp.Or(strings.TrimLeft(at, "/"), "."))
	mode := st.Mode & 0o022
	if st.Gid == 0 {
		mode &^= 0o020 // what root's group may, root may
	}
	switch {
	case err != nil:
		return &fs.PathError{Op: "look at", Path: at, Err: err}
	case st.Uid != 0:
		return fmt.Errorf("%w: %s belongs to the user %d", plainfile.ErrNotOurs, at, st.Uid)
	case mode != 0 && (!onTheWay || st.Mode&unix.S_ISVTX == 0): // nobody renames root's file in a sticky directory
		return fmt.Errorf("%w: %s has mode %04o", plainfile.ErrNotOurs, at, st.Mode&0o7777)
	}
	return nil
}

// walk is Canonical, and calls look for each directory in which it looks a name up.
func (r Root) walk(path string, look func(at string) error) (string, error) {
	done, links := "/", 0
	for rest := strings.Split(path, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		if err := look(done); err != nil {
			return "", err
		}
		at := filepath.Join(done, name)
		target, err := r.link(at)
		if err != nil {
			return "", err
		}
		if target == "" {
			done = at
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "follow the links of", Path: path, Err: unix.ELOOP}
		}
		if strings.HasPrefix(target, "/") {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done, nil
}

// link returns what the link at a path leads to; "" when none is there.
func (r Root) link(path string) (string, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(r.file.Fd()), strings.TrimLeft(path, "/"), &how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", &fs.PathError{Op: "look up", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var target [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", target[:])
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return "", nil // no link
	}
	if err != nil {
		return "", &fs.PathError{Op: "read the link", Path: path, Err: err}
	}
	return string(target[:n]), nil
}
