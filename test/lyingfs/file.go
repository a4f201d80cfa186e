package lyingfs

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// handle is one open descriptor of a node.
type handle struct {
	node   *node
	direct bool // opened with O_DIRECT: reads the true content
}

var (
	_ fs.FileReader    = (*handle)(nil)
	_ fs.FileWriter    = (*handle)(nil)
	_ fs.FileFsyncer   = (*handle)(nil)
	_ fs.FileFlusher   = (*handle)(nil)
	_ fs.FileAllocater = (*handle)(nil)
	_ fs.FileLseeker   = (*handle)(nil)
	_ fs.FileReleaser  = (*handle)(nil)
)

// view is the file that this descriptor reads. The node's lock is held.
func (h *handle) view() *os.File {
	if !h.direct && h.node.stale != nil {
		return h.node.stale
	}
	return h.node.truth
}

// change runs one modification. For a direct descriptor it first saves the buffered
// view and then changes only the truth; for a buffered one it changes both.
func (h *handle) change(do func(*os.File) error) syscall.Errno {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	if h.node.forgotten() {
		return syscall.ESTALE
	}
	if h.direct && h.node.stale == nil {
		stale, err := snapshot(h.node.RootData.Path, h.node.truth)
		if err != nil {
			return fs.ToErrno(err)
		}
		h.node.stale = stale
	}
	if err := do(h.node.truth); err != nil {
		return fs.ToErrno(err)
	}
	if !h.direct && h.node.stale != nil {
		return fs.ToErrno(do(h.node.stale))
	}
	return fs.OK
}

// Read fills the stale view with zeros up to the true size: after a short answer the
// kernel would take that place for the end of the file.
func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	h.node.mu.RLock()
	defer h.node.mu.RUnlock()
	if h.node.forgotten() {
		return nil, syscall.ESTALE
	}
	info, err := h.node.truth.Stat()
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	dest = dest[:max(0, min(int64(len(dest)), info.Size()-off))]
	n, err := h.view().ReadAt(dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fs.ToErrno(err)
	}
	clear(dest[n:])
	return fuse.ReadResultData(dest), fs.OK
}

// Write is pwrite(2).
func (h *handle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	errno := h.change(func(f *os.File) error {
		_, err := f.WriteAt(data, off)
		return err
	})
	if errno != fs.OK {
		return 0, errno
	}
	return uint32(len(data)), fs.OK
}

// Allocate is fallocate(2).
func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	return h.change(func(f *os.File) error {
		return unix.Fallocate(int(f.Fd()), mode, int64(off), int64(size))
	})
}

// Lseek is asked for SEEK_DATA and SEEK_HOLE only; the buffered view lies here too.
func (h *handle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	pos, err := unix.Seek(int(h.view().Fd()), int64(off), int(whence))
	return uint64(pos), fs.ToErrno(err)
}

// Fsync is fsync(2) of the truth.
func (h *handle) Fsync(_ context.Context, _ uint32) syscall.Errno {
	return fs.ToErrno(h.node.truth.Sync())
}

// Flush has nothing to do: every write went through.
func (h *handle) Flush(context.Context) syscall.Errno { return fs.OK }

// Release is the end of the last descriptor that shares this open.
func (h *handle) Release(context.Context) syscall.Errno {
	h.node.closed()
	return fs.OK
}

// copyData copies the data of from to the same offsets of to and gives it the same size.
func copyData(to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	for off := int64(0); off < info.Size(); {
		start, err := unix.Seek(int(from.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(from.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, start), io.NewSectionReader(from, start, end-start)); err != nil {
			return err
		}
		off = end
	}
	return to.Truncate(info.Size())
}
