package copier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// ErrDiffers: the copy is not equal to its source; a *DiffersError has the offset.
var ErrDiffers = errors.New("the copy differs from its source")

// errShrunk: somebody else changes the copy.
var errShrunk = fmt.Errorf("%w: its size changed while it was read", ErrDiffers)

// DiffersError is the first difference of a copy from its source, in bytes.
// errors.Is finds ErrDiffers in it.
type DiffersError struct {
	Offset               int64 // of the first byte that differs or is missing on one side
	SourceSize, CopySize int64
}

// Error names the place of the difference.
func (e *DiffersError) Error() string {
	if e.SourceSize != e.CopySize {
		return fmt.Sprintf("%v: its size is %d bytes instead of %d", ErrDiffers, e.CopySize, e.SourceSize)
	}
	return fmt.Sprintf("%v at byte %d of %d", ErrDiffers, e.Offset, e.SourceSize)
}

// Is makes errors.Is(err, ErrDiffers) true.
func (e *DiffersError) Is(target error) bool { return target == ErrDiffers }

// CompareOptions are options of Compare.
type CompareOptions struct {
	Digest   bool              // compute the SHA-256 of the content
	Sums     *Sums             // becomes the digests of dst, which has those of src, unless nil
	Progress func(bytes int64) // called with the bytes compared since its last call; may be nil
}

// Compare reads src and dst in full, holes included, and returns nil when they
// are equal to the byte: src as QEMU sees it, dst as it reached the disk. To read
// dst from the disk it fsyncs dst, drops it from the page cache and reads it
// through a new descriptor, with O_DIRECT where its file system has that. dst is a
// regular file open for reading.
//
// The digest is the SHA-256 in lower-case hexadecimal, "" unless asked for.
// Errors: ErrDiffers (as a *DiffersError unless dst changes meanwhile),
// ErrSourceChanged, ErrNotRegular, the context's error (within one chunk of a MiB).
func Compare(ctx context.Context, src Source, dst *os.File, opt CompareOptions) (digest string, err error) {
	digest, err = compare(ctx, src, dst, opt)
	if err != nil {
		return "", fmt.Errorf("compare %s with its copy %s: %w", src.File.Name(), dst.Name(), err)
	}
	zerolog.Ctx(ctx).Debug().
		Str("source", src.File.Name()).
		Str("copy", dst.Name()).
		Bool("direct", src.Direct).
		Msg("compared, equal")
	return digest, nil
}

func compare(ctx context.Context, src Source, dst *os.File, opt CompareOptions) (string, error) {
	if err := src.sync(); err != nil {
		return "", err
	}
	from, err := src.stat()
	if err != nil {
		return "", err
	}
	written, to, err := reopenFromDisk(dst)
	if err != nil {
		return "", err
	}
	defer func() { _ = written.Close() }()
	if from.size != to.size {
		return "", &DiffersError{Offset: min(from.size, to.size), SourceSize: from.size, CopySize: to.size}
	}

	// Both are read in the same steps, with the larger of the two alignments.
	from.ioAlign = max(from.align(), to.align())
	to.ioAlign = from.ioAlign
	a := newStream(ctx, src.File, from, ErrSourceChanged, sequence(from.size, from.chunk()))
	defer a.Close()
	b := newStream(ctx, written, to, errShrunk, sequence(to.size, to.chunk()))
	defer b.Close()

	var sums *Sums
	if opt.Sums != nil {
		*opt.Sums = Sums{}
		sums = newSums(from.size, from.chunk())
	}
	var sum hash.Hash
	if opt.Digest {
		sum = sha256.New()
	}
	for {
		off, x, err := a.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		_, y, err := b.Next()
		if err != nil {
			return "", err
		}
		if !bytes.Equal(x, y) {
			return "", &DiffersError{Offset: off + firstDifference(x, y), SourceSize: from.size, CopySize: to.size}
		}
		if sum != nil {
			sum.Write(x)
		}
		if sums != nil {
			sums.set(span{off: off}, x)
		}
		if opt.Progress != nil {
			opt.Progress(int64(len(x)))
		}
	}
	if err := checkSizes(dst, src, from.size); err != nil {
		return "", err
	}
	if sums != nil {
		*opt.Sums = *sums
	}
	if sum == nil {
		return "", nil
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// reopenFromDisk opens dst for reading past the page cache, with O_DIRECT if its
// file system has it. It always writes and drops dst's pages too, because some file
// systems (btrfs, tmpfs) answer O_DIRECT from the page cache.
func reopenFromDisk(dst *os.File) (*os.File, stat, error) {
	st, err := statFile(dst)
	if err != nil {
		return nil, stat{}, err
	}
	if err := syncFile(dst); err != nil {
		return nil, stat{}, err
	}
	_ = unix.Fadvise(int(dst.Fd()), 0, 0, unix.FADV_DONTNEED) // advice only
	path := fmt.Sprintf("/proc/self/fd/%d", dst.Fd())
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOCTTY
	fd, err := -1, error(unix.EINVAL)
	if st.ioAlign != 0 {
		fd, err = open(path, flags|unix.O_DIRECT)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		fd, err = open(path, flags)
	}
	if err != nil {
		return nil, stat{}, &os.PathError{Op: "open", Path: dst.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), dst.Name()), st, nil
}

// firstDifference returns the index of the first byte in which x and y differ. They
// have the same length and are not equal.
func firstDifference(x, y []byte) int64 {
	for i := range x {
		if x[i] != y[i] {
			return int64(i)
		}
	}
	return int64(len(x))
}
