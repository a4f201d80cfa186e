package copier

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// maxSums bounds the memory of a Draft: 32 MiB, for a file of a TiB.
const maxSums = 1 << 20

// sum is the SHA-256 of a chunk, and nothing but zeros for one that has nothing
// but zeros. Of the digests that nobody can forge it was the fastest on
// processors that have instructions for it: 1.6 GB/s on one core.
type sum [sha256.Size]byte

func sumOf(data []byte) sum {
	if isZero(data) {
		return sum{}
	}
	return sha256.Sum256(data)
}

// Draft is what is known of a copy that was made ahead and is not proven: what
// each of its chunks is on the disk, where that could be read back.
type Draft struct {
	step int64
	sums []sum
}

// has is true when the copy provably has that data at a span.
func (d *Draft) has(sp span, data []byte) bool {
	if d == nil || sp.end-sp.off != d.step {
		return false
	}
	n := sp.off / d.step
	return n < int64(len(d.sums)) && sumOf(data) == d.sums[n]
}

// Ahead copies src into dst while somebody still writes src, so that Finish has
// little left to write: what it reads may be half old, half new, and it proves
// nothing. What reached the disk is read back and its digests are kept, so that
// Finish need not read it again. dst is an empty regular file open for reading
// and writing; on success it was fsynced. src may grow or shrink meanwhile.
//
// progress, which may be nil, is told the bytes that are done since its last
// call, holes included. bytes is how much was written. Errors: ErrNotEmpty,
// ErrNotRegular, syscall.ENOSPC or EDQUOT, the context's.
func Ahead(ctx context.Context, dst *os.File, src Source, progress func(bytes int64)) (d *Draft, bytes int64, err error) {
	d, bytes, err = ahead(ctx, dst, src, progress)
	if err != nil {
		return nil, 0, fmt.Errorf("copy %s to %s ahead: %w", src.File.Name(), dst.Name(), err)
	}
	zerolog.Ctx(ctx).Debug().Str("source", src.File.Name()).Str("copy", dst.Name()).Int64("data_bytes", bytes).Int("digests", len(d.sums)).Msg("copied ahead")
	return d, bytes, nil
}

func ahead(ctx context.Context, dst *os.File, src Source, progress func(int64)) (*Draft, int64, error) {
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
	t, err := openTarget(dst, to, from.size)
	if err != nil {
		return nil, 0, err
	}
	defer t.close()

	needs := t.suits(from)
	d := &Draft{step: needs.chunk()}
	if chunks := roundUp(from.size, d.step) / d.step; t.readsBack && chunks <= maxSums {
		d.sums = make([]sum, chunks)
	}
	holes := &holes{file: src.File, stat: from, blind: !fs.seeks}
	var total atomic.Int64
	shows := meter{show: progress}
	err = each(ctx, needs, holes.mark(sequence(from.size, d.step)), func(sp span, a, b []byte) error {
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
		if d.sums != nil {
			got, err := readSpan(t.onDisk, b, sp, t.size, errShrunk)
			if err != nil {
				return err
			}
			d.sums[sp.off/d.step] = sumOf(got)
		}
		shows.add(min(sp.end, from.size) - sp.off)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return d, total.Load(), dst.Sync()
}

// holes finds the spans in which the source has no data, to skip their reading.
type holes struct {
	file *os.File
	stat
	blind bool // nothing can be known
	data  span // the last extent of data that was found
}

// mark returns the spans of next, in order, with those marked that are holes.
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
