package copier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// ErrNotEmpty: the destination of a copy has content already; nothing was written.
var ErrNotEmpty = errors.New("the destination is not empty")

// Method is how a copy was made, see Copy and Finish.
type Method string

// The methods.
const (
	MethodClone   Method = "clone"
	MethodExtents Method = "extents"
	MethodAhead   Method = "ahead" // begun by Ahead, completed by Finish
)

// Result describes how a copy was made.
type Result struct {
	Method Method
	Size   int64 // of the source and the copy, in bytes
	// DataBytes is the number of bytes written, which are the blocks of 4 KiB that
	// are not all zero. 0 for a clone, which shares all its data with the source.
	DataBytes int64
	// Proven is true when the copy needs no Compare: it is a clone on a coherent
	// file system, made after every write was flushed, and can't differ from its
	// source; or both sides were read in full and were equal.
	Proven bool
}

// CopyOptions are options of Copy.
type CopyOptions struct {
	// Prove reads all of src, and reads back all of dst from the disk, while the
	// copy is made. This saves Compare a second reading of src. Where dst's file
	// system can't read back from the disk, the Result is not Proven.
	Prove    bool
	Progress func(bytes int64) // called with the bytes of src done since its last call; may be nil
	// Sums, unless nil, becomes the digests of the copy if that was read back to prove it.
	Sums *Sums
}

// Copy writes the content of src into dst and brings it to the disk: on success
// dst has src's exact size and was fsynced (its directory is the caller's to sync).
// dst is an empty regular file open for reading and writing, without O_APPEND.
//
// Where both are on one file system that can clone and is known to be coherent (XFS
// with reflink, btrfs), dst becomes a clone of src (ioctl_ficlone(2)). Elsewhere
// the data is read and written. Blocks of zeros are not written, so dst is sparse
// wherever src reads as zeros, unless src has that space reserved (KeepAllocation). Copy uses SEEK_DATA and SEEK_HOLE only on ext4, XFS,
// btrfs and tmpfs, after an fsync of the source, and only when it need not prove:
// other file systems have answered them wrongly.
//
// The calls of Progress add up to the size, holes included. After an error dst
// holds part of the content, and the caller removes it. Errors: ErrSourceChanged,
// ErrNotEmpty, ErrNotRegular, ErrDiffers when the disk does not have the data that
// was written, syscall.ENOSPC or EDQUOT when the target is full, the context's
// error (within a few chunks of a MiB).
func Copy(ctx context.Context, dst *os.File, src Source, opt CopyOptions) (Result, error) {
	if opt.Progress == nil {
		opt.Progress = func(int64) {}
	}
	result, err := copyFile(ctx, dst, src, opt)
	if err != nil {
		return Result{}, fmt.Errorf("copy %s to %s: %w", src.File.Name(), dst.Name(), err)
	}
	zerolog.Ctx(ctx).Debug().Str("source", src.File.Name()).Str("copy", dst.Name()).Str("method", string(result.Method)).
		Bool("direct", src.Direct).Int64("size", result.Size).Int64("data_bytes", result.DataBytes).Msg("copied")
	return result, nil
}

func copyFile(ctx context.Context, dst *os.File, src Source, opt CopyOptions) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	to, err := statFile(dst)
	if err != nil {
		return Result{}, err
	}
	if to.size != 0 {
		return Result{}, ErrNotEmpty
	}
	from, fs, err := src.flushed()
	if err != nil {
		return Result{}, err
	}
	if err := TakeOver(dst, src); err != nil {
		return Result{}, err
	}
	result := Result{Method: MethodExtents, Size: from.size}
	if fs.coherent && from.device == to.device {
		cloned, err := clone(dst, src.File)
		if err != nil {
			return Result{}, err
		}
		if cloned {
			// On XFS a clone has holes where its source has space that was never written.
			if err := KeepAllocation(dst, src); err != nil {
				return Result{}, err
			}
			result.Method, result.Proven = MethodClone, true
			opt.Progress(from.size)
			return result, settle(dst, src, from.size)
		}
	}
	t, err := openTarget(dst, to, from.size)
	if err != nil {
		return Result{}, err
	}
	defer t.close()
	if err := KeepAllocation(dst, src); err != nil {
		return Result{}, err
	}
	if opt.Prove && t.readsBack {
		var sums *Sums
		result.DataBytes, sums, err = t.copyProven(ctx, src.File, from, opt.Progress)
		result.Proven = true
		if opt.Sums != nil && err == nil {
			*opt.Sums = *sums
		}
	} else {
		result.DataBytes, err = copyExtents(ctx, t.writer, src.File, from, fs.seeks, opt.Progress)
	}
	if err != nil {
		return Result{}, err
	}
	return result, settle(dst, src, from.size)
}

// settle brings a copy to the disk and checks that both files have the size that
// the source had at first.
func settle(dst *os.File, src Source, size int64) error {
	if err := dst.Sync(); err != nil {
		return err
	}
	return checkSizes(dst, src, size)
}

// checkSizes is ErrSourceChanged unless both files have the size that the source
// had at first.
func checkSizes(dst *os.File, src Source, size int64) error {
	from, err := src.stat()
	if err != nil {
		return err
	}
	to, err := statFile(dst)
	if err != nil {
		return err
	}
	if from.size != size || to.size != size {
		return fmt.Errorf("%w: it had %d bytes, now it has %d and the copy %d", ErrSourceChanged, size, from.size, to.size)
	}
	return nil
}

// clone makes dst a clone of src, and returns false if the file system can't.
func clone(dst, src *os.File) (bool, error) {
	for {
		err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
		switch err {
		case nil:
			return true, nil
		case unix.EINTR:
			continue
		case unix.EOPNOTSUPP, unix.EINVAL, unix.EXDEV, unix.ENOTTY, unix.ENOSYS, unix.EPERM:
			// No reflink here; another mount of the file system (before Linux 5.18);
			// one of the two without copy-on-write on btrfs.
			return false, nil
		}
		return false, &os.PathError{Op: "clone", Path: dst.Name(), Err: err}
	}
}

// copyExtents writes the blocks that are not zero and returns the number of their
// bytes.
func copyExtents(ctx context.Context, dst writer, src *os.File, from stat, seeks bool, progress func(int64)) (int64, error) {
	next := sequence(from.size, from.chunk())
	if seeks {
		next = dataSpans(src, from)
	}
	s := newStream(ctx, src, from, ErrSourceChanged, next)
	defer s.Close()
	written, done := int64(0), int64(0)
	for {
		off, data, err := s.Next()
		if errors.Is(err, io.EOF) {
			progress(from.size - done)
			return written, nil
		}
		if err != nil {
			return 0, err
		}
		n, err := dst.writeData(off, data)
		if err != nil {
			return 0, err
		}
		written += n
		progress(off + int64(len(data)) - done)
		done = off + int64(len(data))
	}
}
