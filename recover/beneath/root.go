package beneath

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

// ErrSymlink: a component of a path is a symlink that is not followed. The error
// is a *SymlinkError, which names the symlink.
var ErrSymlink = errors.New("untrusted symlink")

// maxLinks is how many symlinks one walk follows, as many as Linux does
// (MAXSYMLINKS, include/linux/namei.h).
const maxLinks = 40

// SymlinkError is a symlink that was met and not followed. errors.Is finds
// ErrSymlink in it.
type SymlinkError struct {
	Path   string // the symlink, as seen within its Root
	Target string // the text of the link
	UID    uint32 // its owner
	// Mount is the command that makes a bind mount of it; empty where that may be wrong.
	Mount string
}

func (e *SymlinkError) Error() string {
	text := fmt.Sprintf("%s is a symlink to %q, owned by uid %d; users other than root could have put it there, so it is not followed: "+
		"find out who made it; if it belongs there, it is followed when it and all directories above it are root's, "+
		"and nobody else can write them",
		e.Path, e.Target, e.UID)
	if e.Mount != "" {
		text += ", or make a mount of it, which needs no trust (also in /etc/fstab): `" + e.Mount + "`"
	}
	return text
}

// Unwrap makes errors.Is(err, ErrSymlink) true.
func (e *SymlinkError) Unwrap() error { return ErrSymlink }

// Root is a "/" as some process sees it. Its methods are safe for concurrent use,
// except Close, which must not run beside another.
type Root struct {
	fd   int
	path string
}

// OpenRoot opens a root directory: "/", "/proc/PID/root" for the mount namespace
// of another process (proc_pid_root(5)), or any other directory. No walk leaves
// it upwards. The path itself is trusted and must be absolute. The Root stays
// usable when the process ends.
func OpenRoot(path string) (*Root, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, &fs.PathError{Op: "open root", Path: path, Err: fs.ErrInvalid}
	}
	fd, err := openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: path, Err: err}
	}
	return &Root{fd: fd, path: path}, nil
}

// Close closes the root. Directories opened through it stay open.
func (r *Root) Close() error {
	fd := r.fd
	r.fd = -1
	return unix.Close(fd)
}

// Reopen opens the root's path again, which may lead to another directory by now. Walks that
// are under way go on where they are.
func (r *Root) Reopen() error {
	again, err := OpenRoot(r.path)
	if err != nil {
		return err
	}
	defer again.Close()
	return retry(func() error { return unix.Dup3(again.fd, r.fd, unix.O_CLOEXEC) })
}

// String is the path that the root was opened with.
func (r *Root) String() string { return r.path }

// OpenDir walks an absolute path and opens the directory at its end. A path with
// ".." in it is fs.ErrInvalid. errors.Is finds fs.ErrNotExist when a component is
// missing, unix.ENOTDIR when one is not a directory, ErrSymlink (a *SymlinkError)
// when one is a symlink that others could have made (see the package comment),
// and unix.ELOOP after 40 symlinks.
func (r *Root) OpenDir(path string) (*Dir, error) {
	w, err := r.walk(path, nil)
	if err != nil {
		return nil, err
	}
	defer w.close()
	return w.dir()
}

// Nearest opens the nearest directory above path that exists, with OpenDir's errors.
func (r *Root) Nearest(path string) (*Dir, error) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		d, err := r.OpenDir(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != "/" {
			continue
		}
		return d, err
	}
}

// MkdirAll walks as OpenDir does and makes every missing directory. It calls owner
// with the path of each. A directory is made with mode 0700 and then given that
// owner and mode by descriptor, so nobody but root can enter it before; one in a
// directory with the set-group-ID bit gets that too. Each new directory and its
// parent are fsynced.
//
// created has the paths of the new directories, symlinks resolved, outermost
// first, also when an error is returned. If MkdirAll is killed before it has set
// the owner, an empty directory of root's with mode 0700 is left; the next
// MkdirAll finishes it.
func (r *Root) MkdirAll(path string, owner func(path string) Owner) (dir *Dir, created []string, err error) {
	w, err := r.walk(path, owner)
	if err != nil {
		if w != nil {
			created = w.created
		}
		return nil, created, err
	}
	defer w.close()
	dir, err = w.dir()
	return dir, w.created, err
}

// Lstat walks to the parent directory of path, as OpenDir does and with its
// errors, and returns the status of the last component, which is never
// followed.
func (r *Root) Lstat(path string) (identity.Status, error) {
	var st identity.Status
	steps, err := split(path)
	if err != nil {
		return st, err
	}
	if len(steps) == 0 {
		return fstat(r.fd, path)
	}
	last := steps[len(steps)-1]
	w, err := r.walkSteps(steps[:len(steps)-1], nil)
	if err != nil {
		return st, err
	}
	defer w.close()
	return fstatat(w.top().fd, last.name, w.join(last.name))
}

// step is one component still to be walked. path is the caller's path of the
// directory that it leads to; empty for the inner components of a symlink's target.
type step struct{ name, path string }

func split(path string) ([]step, error) {
	bad := func(why string) error {
		return &fs.PathError{Op: "walk", Path: path, Err: fmt.Errorf("%w: %s", fs.ErrInvalid, why)}
	}
	if !strings.HasPrefix(path, "/") {
		return nil, bad("not an absolute path")
	}
	if strings.ContainsRune(path, 0) {
		return nil, bad("a zero byte in the path")
	}
	var steps []step
	sofar := ""
	for name := range strings.SplitSeq(path, "/") {
		switch name {
		case "", ".":
			continue
		case "..":
			return nil, bad(`".." in the path`)
		}
		sofar += "/" + name
		steps = append(steps, step{name: name, path: sofar})
	}
	return steps, nil
}

// walker is the state of a walk: the open directories from the root down, with
// every symlink resolved. A ".." in a trusted link's target is therefore the entry
// before, and can never lead above the root.
type walker struct {
	stack   []node
	links   int
	owner   func(string) Owner
	created []string
}

type node struct {
	fd      int
	name    string
	trusted bool // it and all above it belong to root, and only root can write them
}

func (r *Root) walk(path string, owner func(string) Owner) (*walker, error) {
	steps, err := split(path)
	if err != nil {
		return nil, err
	}
	return r.walkSteps(steps, owner)
}

// walkSteps returns a walker beside an error too: without descriptors, for its
// created.
func (r *Root) walkSteps(steps []step, owner func(string) Owner) (*walker, error) {
	fd, err := openat(r.fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: r.path, Err: err}
	}
	w := &walker{owner: owner}
	if err := w.push(fd, "", true); err != nil {
		return nil, err
	}
	for len(steps) > 0 {
		s := steps[0]
		steps = steps[1:]
		if s.name == ".." {
			w.pop()
			continue
		}
		target, err := w.enter(s)
		if err != nil {
			w.close()
			return w, err
		}
		steps = append(target, steps...)
	}
	return w, nil
}

func (w *walker) top() node { return w.stack[len(w.stack)-1] }

// push takes ownership of fd, also when it fails.
func (w *walker) push(fd int, name string, parentTrusted bool) error {
	st, err := fstat(fd, w.join(name))
	if err != nil {
		unix.Close(fd)
		return err
	}
	trusted := parentTrusted && st.Uid == 0 && st.Mode&0o022 == 0
	w.stack = append(w.stack, node{fd: fd, name: name, trusted: trusted})
	return nil
}

func (w *walker) pop() {
	if len(w.stack) > 1 {
		unix.Close(w.top().fd)
		w.stack = w.stack[:len(w.stack)-1]
	}
}

func (w *walker) close() {
	for _, n := range w.stack {
		unix.Close(n.fd)
	}
	w.stack = nil
}

func (w *walker) path() string {
	var b strings.Builder
	for _, n := range w.stack[min(1, len(w.stack)):] {
		b.WriteString("/" + n.name)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

func (w *walker) join(name string) string {
	return strings.TrimSuffix(w.path(), "/") + "/" + name
}

// dir opens the directory where the walk ended for reading: fsync and getdents
// don't work on an O_PATH descriptor.
func (w *walker) dir() (*Dir, error) {
	path := w.path()
	fd, err := openat(w.top().fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open directory", Path: path, Err: err}
	}
	return &Dir{fd: fd, path: path}, nil
}

// enter goes one component down. If the component is a symlink to follow, it
// stays where it is and returns the steps of the target.
func (w *walker) enter(s step) ([]step, error) {
	// More than once, because a symlink can have become a directory between two
	// system calls; but not for ever, in case somebody swaps the two on purpose.
	var err error
	for range 4 {
		var fd int
		// O_DIRECTORY makes the kernel mount what autofs has for the name.
		fd, err = openat(w.top().fd, s.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) && w.owner != nil {
			fd, err = w.make(s)
			if errors.Is(err, unix.EEXIST) {
				continue // somebody else has just made it
			}
			if err != nil {
				return nil, err
			}
		} else if err == nil && w.owner != nil {
			err = w.finish(fd, s)
		}
		if err == nil {
			return nil, w.push(fd, s.name, w.top().trusted)
		}
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			break
		}
		var target []step
		if target, err = w.readlink(s); !errors.Is(err, errChanged) {
			return target, err
		}
	}
	return nil, &fs.PathError{Op: "open directory", Path: w.join(s.name), Err: err}
}

var errChanged = errors.New("it was replaced while being looked at")

// mountFor is the command that makes a bind mount of the symlink of that name, which leads to
// a directory of this host. What lies in another mount namespace, or has a name that a shell
// would not take as it is, gets none.
func (w *walker) mountFor(name, path, target string) string {
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	isPlain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-", r)
	}
	if strings.ContainsFunc(path+target, func(r rune) bool { return !isPlain(r) }) {
		return ""
	}
	at, err := identity.At(w.top().fd, name, 0)
	if err != nil || at.Mode&unix.S_IFMT != unix.S_IFDIR {
		return ""
	}
	if here, err := identity.At(unix.AT_FDCWD, path, 0); err != nil || here.Inode() != at.Inode() {
		return ""
	}
	return fmt.Sprintf("rm %s && mkdir %[1]s && mount --bind %s %[1]s", path, target)
}

// readlink returns the steps of a trusted symlink's target.
func (w *walker) readlink(s step) ([]step, error) {
	path := w.join(s.name)
	fd, err := openat(w.top().fd, s.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	st, err := fstat(fd, path)
	if err != nil {
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
	case unix.S_IFDIR:
		return nil, errChanged
	default:
		return nil, &fs.PathError{Op: "open directory", Path: path, Err: unix.ENOTDIR}
	}
	target, err := readlinkat(fd, "")
	if err != nil {
		return nil, &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	if st.Uid != 0 || !w.top().trusted {
		refusal := &SymlinkError{Path: path, Target: target, UID: st.Uid}
		if st.Uid == 0 {
			refusal.Mount = w.mountFor(s.name, path, target)
		}
		return nil, refusal
	}
	if w.links++; w.links > maxLinks {
		return nil, &fs.PathError{Op: "walk", Path: path, Err: unix.ELOOP}
	}
	var steps []step
	for name := range strings.SplitSeq(target, "/") {
		if name != "" && name != "." {
			steps = append(steps, step{name: name})
		}
	}
	if len(steps) > 0 {
		steps[len(steps)-1].path = s.path // the end of the target is what the caller calls the link
	}
	if strings.HasPrefix(target, "/") {
		for len(w.stack) > 1 {
			w.pop()
		}
	}
	return steps, nil
}

// make makes the missing directory and returns an O_PATH descriptor of it.
func (w *walker) make(s step) (int, error) {
	path := w.join(s.name)
	fd, made, err := mkdirOwned(w.top().fd, s.name, path, w.ownerOf(s))
	if made {
		w.created = append(w.created, path)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	pathFD, err := openat(fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open directory", Path: path, Err: err}
	}
	return pathFD, nil
}

// finish sets the owner of a directory that an interrupted make left behind. It
// closes fd when it fails.
func (w *walker) finish(fd int, s step) (err error) {
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	path := w.join(s.name)
	fresh, err := isFresh(fd, path)
	if err != nil || !fresh {
		return err
	}
	dirFD, err := openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return &fs.PathError{Op: "open directory", Path: path, Err: err}
	}
	defer unix.Close(dirFD)
	return ownDir(dirFD, w.top().fd, path, w.ownerOf(s))
}

// ownerOf returns the owner and mode of a directory to be made. One in a directory with the
// set-group-ID bit gets that as well, as from mkdir(2).
func (w *walker) ownerOf(s step) Owner {
	path := s.path
	if path == "" {
		path = w.join(s.name)
	}
	owner := w.owner(path)
	if st, err := fstat(w.top().fd, path); err == nil && st.Mode&unix.S_ISGID != 0 {
		owner.Mode |= fs.ModeSetgid
	}
	return owner
}
