package copier

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// Ahead copies src into dst while somebody still writes src, so that Finish has
// little left to write. It may read a mixture of old and new content and proves
// nothing. It reads the copy back from the disk and keeps its digests, so that
// Finish need not read it again. dst is an empty regular file open for reading
// and writing; on success it was fsynced. src may grow or shrink meanwhile.
//
// progress, which may be nil, is called with the number of bytes done since its
// last call, holes included. bytes is the number of bytes written. Errors:
// ErrNotEmpty, ErrNotRegular, syscall.ENOSPC or EDQUOT, the context's.
func Ahead(ctx context.Context, dst *os.File, src Source, progress func(bytes int64)) (sums *Sums, bytes int64, err error) {
	sums, bytes, err = ahead(ctx, dst, src, progress)
	if err != nil {
		return nil, 0, fmt.Errorf("copy %s to %s ahead: %w", src.File.Name(), dst.Name(), err)
	}
	zerolog.Ctx(ctx).Debug().
		Str("source", src.File.Name()).
		Str("copy", dst.Name()).
		Int64("data_bytes", bytes).
		Int("digests", len(sums.sums)).
		Msg("copied ahead")
	return sums, bytes, nil
}

func ahead(ctx context.Context, dst *os.File, src Source, progress func(int64)) (*Sums, int64, error) {
	to, err := statFile(dst)
	if err != nil {
		return nil, 0, err
	}
	if to.size != 0 {
		return nil, 0, ErrNotEmpty
	}
	from, fs, err := src.flushed()
	if err != nil {
		return nil, 0, err
	}
	if err := TakeOver(dst, src); err != nil {
		return nil, 0, err
	}
	t, err := openTarget(dst, to, from.size)
	if err != nil {
		return nil, 0, err
	}
	defer t.close()
	if err := KeepAllocation(dst, src); err != nil {
		return nil, 0, err
	}

	needs := t.suits(from)
	sums := &Sums{}
	if t.readsBack {
		sums = newSums(from.size, needs.chunk())
	}
	holes := &holes{file: src.File, stat: from, blind: !fs.seeks}
	var total atomic.Int64
	done := meter{progress: progress}
	err = each(ctx, needs, holes.mark(sequence(from.size, needs.chunk())), func(sp span, a, b []byte) error {
		if !sp.hole {
			data, err := readSpan(src.File, a, sp, from.size, ErrSourceChanged)
			if err != nil && !errors.Is(err, ErrSourceChanged) {
				return err
			}
			n, err := t.writeData(sp.off, data)
			if err != nil {
				return err
			}
			total.Add(n)
		}
		if sums.sums != nil {
			got, err := readSpan(t.onDisk, b, sp, t.size, errShrunk)
			if err != nil {
				return err
			}
			sums.set(sp, got)
		}
		done.add(min(sp.end, from.size) - sp.off)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return sums, total.Load(), dst.Sync()
}

// holes finds the spans in which the source has no data, so that they need not be
// read.
type holes struct {
	file *os.File
	stat
	blind bool // the file system can't tell
	data  span // the last extent of data that was found
}

// mark returns the spans of next, in order, and marks those that are holes.
func (h *holes) mark(next func() (span, error)) func() (span, error) {
	return func() (span, error) {
		sp, err := next()
		if err != nil || h.blind {
			return sp, err
		}
		for h.data.end <= sp.off {
			from := max(h.data.end, sp.off)
			if h.data, err = nextExtent(h.file, h.stat, from); err != nil {
				h.data = span{off: h.size, end: roundUp(h.size, h.align()) + 1} // no data behind it
			}
		}
		sp.hole = sp.end <= h.data.off
		return sp, nil
	}
}
