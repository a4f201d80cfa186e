package copier

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var (
	// ErrDirectRefused: the file system refuses O_DIRECT now although QEMU's own
	// descriptor has it. A buffered read might return old content: stop.
	ErrDirectRefused = errors.New("O_DIRECT is refused although QEMU's descriptor has it: a buffered read might return old content")
	// ErrSourceChanged: the source's size changed while it was read, so something still writes it.
	ErrSourceChanged = errors.New("the source changed its size while it was read")
	// ErrNotRegular: a pipe, socket, device or directory, which can't be copied as a file.
	ErrNotRegular = errors.New("not a regular file")
)

// Source is an open inode to read.
type Source struct {
	File   *os.File // open for reading; with O_DIRECT exactly when Direct
	Direct bool
	// Duplicate is true when File is a duplicate of QEMU's own descriptor, and shares its
	// offset, flags and errors: it is only read at offsets, never moved and never synced.
	// QEMU itself flushes when it is suspended.
	Duplicate bool
}

// OpenSource opens the regular file at path afresh, read-only, with O_DIRECT if direct. The path is
// /proc/PID/fd/N of a process that holds the inode (QEMU, or the one that pinned
// it): the kernel then opens that very inode, whether or not it still has a name,
// and the new descriptor takes over no lock (proc_pid_fd(5)). direct is whether
// QEMU's descriptor carries O_DIRECT ("flags:" in /proc/PID/fdinfo/N).
//
// The caller closes File. Errors: ErrDirectRefused, ErrNotRegular, fs.ErrNotExist
// when the process or its descriptor is gone.
func OpenSource(path string, direct bool) (Source, error) {
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	if direct {
		flags |= unix.O_DIRECT
	}
	fd, err := openRegular(path, flags)
	if direct && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
		return Source{}, fmt.Errorf("open %s: %w (%w)", path, ErrDirectRefused, err)
	}
	if err != nil {
		return Source{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	s := Source{File: os.NewFile(uintptr(fd), path), Direct: direct}
	if err := s.Probe(); err != nil {
		_ = s.File.Close()
		return Source{}, err
	}
	return s, nil
}

// Probe reads the first block of a source on a file system whose files other hosts may
// delete. GlusterFS opens a file at its servers only at the first read (performance.open-behind):
// a descriptor that was never read is worth nothing once the file is deleted. The error wraps
// unix.ESTALE when the file's server does not know it any more.
func (s Source) Probe() error {
	st, err := s.stat()
	if err != nil {
		return err
	}
	fs, err := fileSystemOf(s.File)
	if err != nil || fs.local || st.size == 0 {
		return err
	}
	buffer := alignedBuffer(st.align(), max(st.memAlign, blockSize))
	_, err = readSpan(s.File, buffer, span{end: st.align()}, st.size, ErrSourceChanged)
	return err
}

// Size is the source's present size in bytes.
func (s Source) Size() (int64, error) {
	st, err := s.stat()
	return st.size, err
}

// Allocated is the space in bytes that the source takes on its file system: less
// than Size when it is sparse, and close to the space that a copy will take.
func (s Source) Allocated() (int64, error) {
	st, err := s.stat()
	return st.allocated, err
}

func (s Source) stat() (stat, error) { return statFile(s.File) }

// flushed fsyncs the source and then returns its state and its file system.
func (s Source) flushed() (stat, fileSystem, error) {
	if err := s.sync(); err != nil {
		return stat{}, fileSystem{}, err
	}
	fs, err := fileSystemOf(s.File)
	if err != nil {
		return stat{}, fileSystem{}, err
	}
	fs.seeks = fs.seeks && !s.Duplicate // lseek(2) would move QEMU's offset
	st, err := s.stat()
	return st, fs, err
}

// sync brings all changes of the source to the disk.
func (s Source) sync() error {
	if s.Duplicate {
		return nil
	}
	return syncFile(s.File)
}

// stat is the state of an open file.
type stat struct {
	size, allocated int64 // bytes
	mtime, ctime    int64 // nanoseconds since 1970
	device          uint64
	// The alignment that O_DIRECT needs of memory, and of offsets and lengths, in
	// bytes; 0 where O_DIRECT does not work, -1 where the kernel does not say (before
	// Linux 6.1).
	memAlign, ioAlign int64
}

// statFile asks the file system itself (AT_STATX_FORCE_SYNC), because a network
// file system's client may otherwise answer from a cache.
func statFile(f *os.File) (stat, error) {
	var st unix.Statx_t
	const mask = unix.STATX_TYPE | unix.STATX_SIZE | unix.STATX_BLOCKS | unix.STATX_MTIME | unix.STATX_CTIME | unix.STATX_DIOALIGN
	for {
		err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, mask, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return stat{}, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
		}
		break
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return stat{}, fmt.Errorf("%s: %w", f.Name(), ErrNotRegular)
	}
	s := stat{
		size:      int64(st.Size),
		allocated: int64(st.Blocks) * 512,
		mtime:     nanoseconds(st.Mtime),
		ctime:     nanoseconds(st.Ctime),
		device:    unix.Mkdev(st.Dev_major, st.Dev_minor),
		memAlign:  -1,
		ioAlign:   -1,
	}
	if st.Mask&unix.STATX_DIOALIGN != 0 {
		s.memAlign, s.ioAlign = int64(st.Dio_mem_align), int64(st.Dio_offset_align)
	}
	return s, nil
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openRegular looks at what it opens before it does: the process may have put a device in the
// place of the file, and the open of a device can do something (watchdog(4)).
func openRegular(path string, flags int) (int, error) {
	at, err := open(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var st unix.Statx_t
	// What it is never changes: no server need be asked.
	if err := unix.Statx(at, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, ErrNotRegular
	}
	return open(fmt.Sprintf("/proc/self/fd/%d", at), flags)
}

// syncFile writes back all changes of the file, made through any descriptor: only
// then are its extents right. fsync works on a read-only descriptor (fsync(2) does
// not ask for a writable one).
func syncFile(f *os.File) error {
	for {
		err := unix.Fsync(int(f.Fd()))
		switch err {
		case unix.EINTR:
			continue
		case nil, unix.EINVAL, unix.EROFS: // the last two: there is nothing to sync
			return nil
		}
		return &os.PathError{Op: "fsync", Path: f.Name(), Err: err}
	}
}
