package copier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// workers is the number of goroutines that go through a file, each with its own
// chunk: while one waits for the disk another compares. More gained nothing on a
// local disk.
const workers = 4

// target is a copy that is being made, whose size is set.
type target struct {
	writer
	stat
	onDisk    *os.File // reads from the disk
	readsBack bool     // onDisk sees a write at once; if false, only after a sync
}

// openTarget sets dst's size and opens the ways to write it and to read it back.
// The size comes first: a direct write inside it need not extend the file.
func openTarget(dst *os.File, to stat, size int64) (*target, error) {
	if to.size != size {
		if err := dst.Truncate(size); err != nil {
			return nil, err
		}
	}
	fs, err := fileSystemOf(dst)
	if err != nil {
		return nil, err
	}
	t := &target{writer: writer{file: dst, direct: dst}}
	if fs.coherent && to.ioAlign != 0 && to.ioAlign <= blockSize && to.memAlign <= blockSize {
		if t.writer, err = directWriter(dst); err != nil {
			return nil, err
		}
	}
	// Only where the kernel confirms that an O_DIRECT read is not a buffered one.
	t.readsBack = fs.readsBack && to.ioAlign > 0 && t.direct != t.file
	if t.onDisk, t.stat, err = reopenFromDisk(dst); err != nil {
		t.writer.close()
		return nil, err
	}
	return t, nil
}

func (t *target) close() {
	t.writer.close()
	_ = t.onDisk.Close()
}

// suits returns from with the alignment that reads of both files need.
func (t *target) suits(from stat) stat {
	from.ioAlign, from.memAlign = max(from.align(), t.align()), max(from.memAlign, t.memAlign)
	return from
}

// copyProven copies all of src chunk by chunk, holes included, reads back each
// chunk that was written, and compares it with what was read of the source.
func (t *target) copyProven(ctx context.Context, src *os.File, from stat, progress func(int64)) (int64, *Sums, error) {
	var total atomic.Int64
	done := meter{progress: progress}
	needs := t.suits(from)
	sums := newSums(from.size, needs.chunk())
	err := each(ctx, needs, sequence(from.size, needs.chunk()), func(sp span, a, b []byte) error {
		data, err := readSpan(src, a, sp, from.size, ErrSourceChanged)
		if err != nil {
			return err
		}
		n, err := t.writeData(sp.off, data)
		if err != nil {
			return err
		}
		total.Add(n)
		if err := t.same(sp, data, b); err != nil {
			return err
		}
		sums.set(sp, data)
		done.add(int64(len(data)))
		return nil
	})
	return total.Load(), sums, err
}

// same reads a span of the copy from the disk into buffer and compares it with
// data: ErrDiffers when they are not equal.
func (t *target) same(sp span, data, buffer []byte) error {
	got, err := readSpan(t.onDisk, buffer, sp, sp.off+int64(len(data)), errShrunk)
	if err != nil {
		return err
	}
	if !bytes.Equal(data, got) {
		return &DiffersError{Offset: sp.off + firstDifference(data, got), SourceSize: t.size, CopySize: t.size}
	}
	return nil
}

// each calls do for every span, several at a time and in no order. a and b are two
// buffers of the worker. The first error ends all.
func each(ctx context.Context, needs stat, next func() (span, error), do func(sp span, a, b []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	for range workers {
		g.Go(func() error {
			align := max(needs.memAlign, blockSize)
			a, b := alignedBuffer(needs.chunk(), align), alignedBuffer(needs.chunk(), align)
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				mu.Lock()
				sp, err := next()
				mu.Unlock()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err == nil {
					err = do(sp, a, b)
				}
				if err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// meter passes on the progress of several workers, one call at a time.
type meter struct {
	mu       sync.Mutex
	progress func(int64) // may be nil
}

func (m *meter) add(n int64) {
	if m.progress == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress(n)
}
