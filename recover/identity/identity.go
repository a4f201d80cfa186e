package identity

import (
	"encoding/hex"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// Status is the status of a file (stat(2)) with its birth.
type Status struct {
	unix.Stat_t
	Birth string // as recover.Inode has it
}

// Inode identifies the file.
func (s Status) Inode() recover.Inode {
	return recover.Inode{Device: s.Dev, Inode: s.Ino, Birth: s.Birth}
}

// Of returns the status of the file that a descriptor is open on; O_PATH is enough. The
// error is that of statx(2).
func Of(fd int) (Status, error) {
	s, err := statx(fd, "", unix.AT_EMPTY_PATH)
	if err == nil && (s.Birth == "" || isAnonymous(s)) {
		s.Birth = birth(fd, s)
	}
	return s, err
}

// OfFile is Of for an open file, which may be closed meanwhile: then the error wraps
// os.ErrClosed.
func OfFile(f *os.File) (s Status, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return s, err
	}
	cerr := c.Control(func(fd uintptr) { s, err = Of(int(fd)) })
	return s, errors.Join(cerr, err)
}

// At returns the status of the file at a name below the open directory dir, or at a path
// with unix.AT_FDCWD. flags are 0 or unix.AT_SYMLINK_NOFOLLOW. A link of /proc/PID/fd
// leads to the very file that the process has open, whether or not it has a name
// (proc(5)). The error is that of statx(2).
func At(dir int, name string, flags int) (Status, error) {
	s, err := statx(dir, name, flags)
	if err != nil || s.Birth != "" && !isAnonymous(s) {
		return s, err
	}
	// Several questions have to be about one file: a descriptor keeps it meanwhile.
	how := unix.O_PATH | unix.O_CLOEXEC
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		how |= unix.O_NOFOLLOW
	}
	var fd int
	err = retry(func() (err error) {
		fd, err = unix.Openat(dir, name, how, 0)
		return err
	})
	if err != nil {
		s.Birth = ""
		return s, nil // it has a status, and no birth that can be had
	}
	defer unix.Close(fd)
	return Of(fd)
}

// Cached returns what this host knows of the file at a path, without asking its server, which may be
// dead. It has no birth. The error is that of statx(2).
func Cached(path string) (s Status, err error) {
	var x unix.Statx_t
	err = retry(func() error {
		return unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &x)
	})
	if err == nil {
		s = statusOf(x)
	}
	return s, err
}

// Remembered returns what this host remembers of the file at a path, without asking its
// server, which may not know the file any more (ESTALE): it has no links then, and no birth
// that would be asked for. The error is that of statx(2).
func Remembered(path string) (Status, error) {
	s, err := Cached(path)
	s.Nlink = 0
	return s, err
}

// statx is stat(2) and, as Birth, the time of the file's making, if the file system tells it.
func statx(dir int, name string, flags int) (s Status, err error) {
	var x unix.Statx_t
	ask := func(mask int) error {
		return retry(func() error { return unix.Statx(dir, name, flags, mask, &x) })
	}
	if err = ask(unix.STATX_BASIC_STATS | unix.STATX_BTIME); err != nil {
		// To a FUSE server these are two questions, and it may have an answer to one.
		err = ask(unix.STATX_BASIC_STATS)
	}
	if err != nil {
		return s, err
	}
	s = statusOf(x)
	// A server that does not know it may say 0.
	if x.Mask&unix.STATX_BTIME != 0 && (x.Btime.Sec != 0 || x.Btime.Nsec != 0) {
		s.Birth = "b" + strconv.FormatInt(x.Btime.Sec*1e9+int64(x.Btime.Nsec), 10)
	}
	return s, nil
}

// statusOf is what statx says as stat says it.
func statusOf(x unix.Statx_t) (s Status) {
	s.Dev, s.Rdev = unix.Mkdev(x.Dev_major, x.Dev_minor), unix.Mkdev(x.Rdev_major, x.Rdev_minor)
	s.Ino, s.Mode, s.Uid, s.Gid = x.Ino, uint32(x.Mode), x.Uid, x.Gid
	s.Size, s.Blocks = int64(x.Size), int64(x.Blocks)
	put(&s.Nlink, x.Nlink)
	put(&s.Blksize, x.Blksize)
	s.Atim, s.Mtim, s.Ctim = timespec(x.Atime), timespec(x.Mtime), timespec(x.Ctime)
	return s
}

// put sets a field of unix.Stat_t whose type differs between architectures.
func put[T int32 | int64 | uint32 | uint64](to *T, value uint32) { *to = T(value) }

func timespec(t unix.StatxTimestamp) unix.Timespec {
	return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
}

// isAnonymous is true for a file system that is on no block device of its own (major
// number 0, fs/super.c, get_anon_bdev): FUSE is one.
func isAnonymous(s Status) bool { return s.IsAnonymous() }

// IsAnonymous is true for a file on a file system that is on no block device of its own: only such a
// one can be a server's.
func (s Status) IsAnonymous() bool { return unix.Major(s.Dev) == 0 }

// The types of a FUSE file's handle, which it shares with XFS (fs/fuse/inode.c,
// fuse_encode_fh, and fs/xfs/xfs_export.h).
const (
	fuseHandle       = 0x81
	fuseParentHandle = 0x82
)

// birth returns the birth of a file of which statx tells no time of making, or one that may
// be a FUSE server's. It is in the handle (name_to_handle_at(2)) then: a file system that
// can be exported by NFS puts the number and its generation there, NFS the server's handle.
//
// A file of FUSE has none: a server may know a time of making by one question and not by
// the next, and the handle is the name of an entry in its cache, which it may give to the
// next file.
func birth(fd int, s Status) string {
	handle, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	switch {
	case err == nil && isAnonymous(s) && (handle.Type() == fuseHandle || handle.Type() == fuseParentHandle):
		return ""
	case err != nil && s.Birth != "" && !isFUSE(fd): // an overlay that can't be exported
		return s.Birth
	case err != nil || handle.Size() == 0:
		return ""
	case s.Birth != "":
		return s.Birth
	}
	return "g" + hex.EncodeToString(handle.Bytes())
}

// isFUSE is true also when that can't be found out.
func isFUSE(fd int) bool {
	var fs unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd, &fs) })
	return err != nil || fs.Type == unix.FUSE_SUPER_MAGIC
}

// retry repeats a call that a signal interrupted: the Go runtime sends itself signals, and
// these interrupt calls on FUSE and NFS.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
