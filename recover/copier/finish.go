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
// and compares each chunk with the digest in draft, which is that of the copy on
// the disk. Where draft, which may be nil, has no digest, Finish reads the copy from
// the disk too. Blocks that differ are written again, and their chunks are compared
// with the source once more, after an fsync.
//
// dst is a regular file open for reading and writing. Nobody else writes it, and
// nobody has written it since the draft. progress, which may be nil, is called with
// the number of bytes compared since its last call. DataBytes of the Result is the
// number of bytes written again. Errors: ErrDiffers, ErrSourceChanged,
// ErrNotRegular, syscall.ENOSPC or EDQUOT, the context's.
func Finish(ctx context.Context, dst *os.File, src Source, draft *Draft, progress func(bytes int64)) (Result, error) {
	result, err := finish(ctx, dst, src, draft, progress)
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

func finish(ctx context.Context, dst *os.File, src Source, draft *Draft, progress func(int64)) (Result, error) {
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
	err = each(ctx, needs, sequence(from.size, needs.chunk()), func(sp span, a, b []byte) error {
		data, err := readSpan(src.File, a, sp, from.size, ErrSourceChanged)
		if err != nil {
			return err
		}
		if !draft.has(sp, data) {
			old, err := readSpan(t.onDisk, b, sp, t.size, errShrunk)
			if err != nil {
				return err
			}
			if !bytes.Equal(data, old) {
				n, err := t.writeChanged(sp.off, data, old)
				if err != nil {
					return err
				}
				mu.Lock()
				result.DataBytes += n
				again = append(again, sp)
				mu.Unlock()
			}
		}
		done.add(int64(len(data)))
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	if err := t.proveAgain(ctx, src, from, again); err != nil {
		return Result{}, err
	}
	return result, settle(dst, src, from.size)
}

// proveAgain compares spans that were written again with the source.
func (t *target) proveAgain(ctx context.Context, src Source, from stat, spans []span) error {
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
		return t.same(sp, data, b)
	})
}
