package copier

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/rs/zerolog"
)

// Finish makes dst equal to src for any content of dst, proves that, and brings dst
// to the disk. It reads src, which nobody writes any more, in full as QEMU sees it,
// and compares each chunk with its digest in sums, which is that of the copy on
// the disk. Where sums, which may be nil, has no digest, Finish reads the copy from
// the disk too. Blocks that differ are written again, and their chunks are compared
// with the source once more, after an fsync.
//
// dst is a regular file open for reading and writing. Nobody else writes it, and
// nobody has written it since the sums were made. They are those of the finished copy
// afterwards, and none after an error. progress, which may be nil, is called with
// the number of bytes compared since its last call. DataBytes of the Result is the
// number of bytes written again. Errors: ErrDiffers, ErrSourceChanged,
// ErrNotRegular, syscall.ENOSPC or EDQUOT, the context's.
func Finish(ctx context.Context, dst *os.File, src Source, sums *Sums, progress func(bytes int64)) (Result, error) {
	result, err := finish(ctx, dst, src, sums, progress)
	if err != nil {
		return Result{}, fmt.Errorf("finish %s, a copy of %s: %w", dst.Name(), src.File.Name(), err)
	}
	zerolog.Ctx(ctx).Debug().
		Str("source", src.File.Name()).
		Str("copy", dst.Name()).
		Int64("size", result.Size).
		Int64("data_bytes", result.DataBytes).
		Msg("finished and proven")
	return result, nil
}

func finish(ctx context.Context, dst *os.File, src Source, sums *Sums, progress func(int64)) (_ Result, err error) {
	if sums == nil {
		sums = &Sums{}
	}
	old := *sums
	*sums = Sums{}
	from, _, err := src.flushed()
	if err != nil {
		return Result{}, err
	}
	to, err := statFile(dst)
	if err != nil {
		return Result{}, err
	}
	t, err := openTarget(dst, to, from.size)
	if err != nil {
		return Result{}, err
	}
	defer t.close()

	var mu sync.Mutex
	var again []span
	result := Result{Method: MethodAhead, Size: from.size, Proven: true}
	done := meter{progress: progress}
	needs := t.suits(from)
	made := newSums(from.size, needs.chunk())
	err = each(ctx, needs, sequence(from.size, needs.chunk()), func(sp span, a, b []byte) error {
		data, err := readSpan(src.File, a, sp, from.size, ErrSourceChanged)
		if err != nil {
			return err
		}
		if !old.has(sp, data) {
			have, err := readSpan(t.onDisk, b, sp, t.size, errShrunk)
			if err != nil {
				return err
			}
			if !bytes.Equal(data, have) {
				n, err := t.writeChanged(sp.off, data, have)
				if err != nil {
					return err
				}
				mu.Lock()
				result.DataBytes += n
				again = append(again, sp)
				mu.Unlock()
			}
		}
		made.set(sp, data)
		done.add(int64(len(data)))
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	if err := t.proveAgain(ctx, src, from, again, made); err != nil {
		return Result{}, err
	}
	if err := settle(dst, src, from.size); err != nil {
		return Result{}, err
	}
	*sums = *made
	return result, nil
}

// proveAgain compares spans that were written again with the source, and notes their sums.
func (t *target) proveAgain(ctx context.Context, src Source, from stat, spans []span, sums *Sums) error {
	if len(spans) == 0 {
		return nil
	}
	_ = t.onDisk.Close()
	var err error
	// reopenFromDisk syncs the file first.
	if t.onDisk, t.stat, err = reopenFromDisk(t.file); err != nil {
		return err
	}
	return each(ctx, t.suits(from), list(spans), func(sp span, a, b []byte) error {
		data, err := readSpan(src.File, a, sp, from.size, ErrSourceChanged)
		if err != nil {
			return err
		}
		sums.set(sp, data)
		return t.same(sp, data, b)
	})
}
