package plainfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotRegular: a FIFO, a directory, a device, a socket or a symlink stands there.
	ErrNotRegular = errors.New("it is no regular file")
	// ErrNoDirectory: something else stands where a directory belongs.
	ErrNoDirectory = errors.New("it is no directory")
	// ErrTooLarge: the file is larger than any that belongs there.
	ErrTooLarge = errors.New("it is too large")
	// ErrNotOurs: another user than root can write the file.
	ErrNotOurs = errors.New("others than root can write it")
)

// Rules say what may stand at a path.
type Rules struct {
	Most     int64 // bytes that Read reads at the most
	Symlinks bool  // a symlink may lead to the file
	// Ours: the file belongs to root, or to this process's user, and nobody else may write it.
	Ours bool
}

// Open opens the regular file at path for reading. It looks at what stands there before it opens
// that, so that nothing else is opened, and it waits for nobody. The error is an *fs.PathError
// that wraps ErrNotRegular, ErrNotOurs, or what the system says, as fs.ErrNotExist.
func Open(path string, r Rules) (*os.File, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !r.Symlinks {
		flags |= unix.O_NOFOLLOW
	}
	at, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(at)
	f, err := open(at, path, r)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}

// open opens what a descriptor of O_PATH stands for.
func open(at int, path string, r Rules) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%w but %s", ErrNotRegular, kind(st.Mode))
	case r.Ours && st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%w: it belongs to the user %d", ErrNotOurs, st.Uid)
	case r.Ours && permissions(st)&0o022 != 0:
		return nil, fmt.Errorf("%w: its mode is %04o: chmod go-w %s", ErrNotOurs, st.Mode&0o7777, path)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Beneath is Open for what a descriptor of O_PATH, which the caller closes, stands for. path is
// its name in errors.
func Beneath(at int, path string, r Rules) (*os.File, error) {
	f, err := open(at, path, r)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}

// Read returns the content of the regular file at path. Its errors are those of Open, and
// ErrTooLarge when it has more than r.Most bytes.
func Read(path string, r Rules) ([]byte, error) {
	f, err := Open(path, r)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return All(f, r.Most)
}

// All reads an open file from where it stands to its end. The error is an *fs.PathError, that
// wraps ErrTooLarge when that is more than most bytes.
func All(f *os.File, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("%w: more than %s", ErrTooLarge, humanize.IBytes(uint64(most)))}
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFLNK:
		return "a symlink"
	case unix.S_IFREG:
		return "a regular file"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a device"
}
