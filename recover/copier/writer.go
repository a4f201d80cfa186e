package copier

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// writer writes a file's data at any offset and leaves zeros out. Whole blocks go
// through direct, a rest at the end of the file through file. Both are open on the
// same inode.
type writer struct {
	file, direct *os.File
}

// directWriter writes dst with O_DIRECT where its file system has that. On a
// local disk this took 0.5 to 0.7 of the time of buffered writes with an fsync,
// and it leaves the page cache to the guests. It is for coherent file systems
// only: on others a buffered reader might not see the data.
func directWriter(dst *os.File) (writer, error) {
	fd, err := open(fmt.Sprintf("/proc/self/fd/%d", dst.Fd()), unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return writer{file: dst, direct: dst}, nil
	}
	if err != nil {
		return writer{}, &os.PathError{Op: "open", Path: dst.Name(), Err: err}
	}
	return writer{file: dst, direct: os.NewFile(uintptr(fd), dst.Name())}, nil
}

// close closes the descriptor that directWriter opened. The fsync of file reports
// write errors.
func (w writer) close() {
	if w.direct != w.file {
		_ = w.direct.Close()
	}
}

// writeData writes the runs of blocks that are not zero and returns the number of
// their bytes. data is aligned to a block, in the file and in memory.
func (w writer) writeData(off int64, data []byte) (int64, error) {
	written := int64(0)
	for len(data) > 0 {
		zero := run(data, true)
		data, off = data[zero:], off+int64(zero)
		n := run(data, false)
		if err := w.writeAll(off, data[:n]); err != nil {
			return 0, err
		}
		data, off = data[n:], off+int64(n)
		written += int64(n)
	}
	return written, nil
}

// writeAll writes data, zeros and all.
func (w writer) writeAll(off int64, data []byte) error {
	whole := len(data) / blockSize * blockSize
	if whole > 0 {
		_, err := w.direct.WriteAt(data[:whole], off)
		if errors.Is(err, unix.ENOSPC) {
			// XFS frees deleted files in the background. A buffered write that finds no
			// space waits for that, a direct one does not (xfs_file_buffered_write in the
			// kernel's fs/xfs/xfs_file.c).
			_, err = w.file.WriteAt(data[:whole], off)
		}
		if err != nil {
			return err
		}
	}
	if len(data) == whole {
		return nil
	}
	_, err := w.file.WriteAt(data[whole:], off+int64(whole))
	return err
}

// writeChanged writes the blocks in which data differs from old, the content of the
// file there, and returns the number of their bytes.
func (w writer) writeChanged(off int64, data, old []byte) (int64, error) {
	written := int64(0)
	for at := 0; at < len(data); {
		end, differs := at, false
		for ; end < len(data); end += blockSize {
			next := min(end+blockSize, len(data))
			if changed := !bytes.Equal(data[end:next], old[end:next]); end == at {
				differs = changed
			} else if changed != differs {
				break
			}
		}
		end = min(end, len(data))
		if differs {
			if err := w.writeAll(off+int64(at), data[at:end]); err != nil {
				return written, err
			}
			written += int64(end - at)
		}
		at = end
	}
	return written, nil
}

// run returns the length of the blocks at the start of data that are all zero,
// or all not zero.
func run(data []byte, zero bool) int {
	n := 0
	for n < len(data) {
		block := data[n:min(n+blockSize, len(data))]
		if isZero(block) != zero {
			break
		}
		n += len(block)
	}
	return n
}

// isZero compares the block with itself shifted by one byte, which runs at the speed
// of memory. For most data the first byte decides.
func isZero(block []byte) bool {
	return block[0] == 0 && bytes.Equal(block[1:], block[:len(block)-1])
}
