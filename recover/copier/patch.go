package copier

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// ErrNoPatch: a file is not one that Diff has made.
var ErrNoPatch = errors.New("it is no patch")

// patchChunk bounds the data of one change in a patch.
const patchChunk = 64 << 20

// change begins each change in a patch, before its data. The first one of a patch has no
// data, and the length of the patched file as its offset.
type change struct{ Off, Length int64 }

const changeLength = 16

// Patch is what Diff has found: what a copy lacks of its source.
type Patch struct {
	Size  int64 // of the source, in bytes
	Bytes int64 // of the changes
	Sums  *Sums // of the patched copy
}

// Diff writes into patch what has changed in src, which nobody writes any more, since dst was
// copied from it; nothing of dst is changed. sums are those of dst as it is on the disk, and
// may be nil. On success patch was fsynced: Apply makes dst equal to src with it, also when
// src is gone by then, and however often it is tried.
//
// patch is an empty regular file open for writing. progress, which may be nil, is called with
// the number of bytes compared since its last call. Errors: ErrSourceChanged,
// ErrNotRegular, syscall.ENOSPC or EDQUOT, the context's.
func Diff(ctx context.Context, patch, dst *os.File, src Source, sums *Sums, progress func(bytes int64)) (Patch, error) {
	p, err := diff(ctx, patch, dst, src, sums, progress)
	if err != nil {
		return Patch{}, fmt.Errorf("see what has changed in %s since %s was copied: %w", src.File.Name(), dst.Name(), err)
	}
	return p, nil
}

func diff(ctx context.Context, patch, dst *os.File, src Source, sums *Sums, progress func(int64)) (Patch, error) {
	from, _, err := src.flushed()
	if err != nil {
		return Patch{}, err
	}
	onDisk, to, err := reopenFromDisk(dst)
	if err != nil {
		return Patch{}, err
	}
	defer func() { _ = onDisk.Close() }()
	if err := writeChange(patch, change{Off: from.size}, nil); err != nil {
		return Patch{}, err
	}
	needs := from
	needs.ioAlign, needs.memAlign = max(from.align(), to.align()), max(from.memAlign, to.memAlign)
	found := Patch{Size: from.size, Sums: newSums(from.size, needs.chunk())}
	var mu sync.Mutex
	done := meter{progress: progress}
	err = each(ctx, needs, sequence(from.size, needs.chunk()), func(sp span, a, b []byte) error {
		data, err := readSpan(src.File, a, sp, from.size, ErrSourceChanged)
		if err != nil {
			return err
		}
		found.Sums.set(sp, data)
		defer done.add(int64(len(data)))
		if sums.has(sp, data) {
			return nil
		}
		var have []byte // as much as the copy has there
		if sp.off < to.size {
			if have, err = readSpan(onDisk, b, sp, to.size, errShrunk); err != nil {
				return err
			}
		}
		if bytes.Equal(data, have) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		found.Bytes += int64(len(data))
		return writeChange(patch, change{sp.off, int64(len(data))}, data)
	})
	if err == nil {
		err = patch.Sync()
	}
	return found, err
}

func writeChange(patch *os.File, c change, data []byte) error {
	head, err := binary.Append(nil, binary.BigEndian, c)
	if err == nil {
		_, err = patch.Write(head)
	}
	if err == nil {
		_, err = patch.Write(data)
	}
	return err
}

// Apply makes dst what the source was that Diff has compared it with, reads what was changed
// back from the disk, and compares it. dst, a regular file open for reading and writing, is
// what it was then, or what an interrupted Apply left of it. Errors: ErrNoPatch, ErrDiffers,
// ErrNotRegular, syscall.ENOSPC or EDQUOT, the context's.
func Apply(ctx context.Context, dst, patch *os.File) error {
	if err := apply(ctx, dst, patch); err != nil {
		return fmt.Errorf("bring %s up to date: %w", dst.Name(), err)
	}
	return nil
}

func apply(ctx context.Context, dst, patch *os.File) error {
	first, _, err := readChange(patch, 0)
	if errors.Is(err, io.EOF) || err == nil && first.Length != 0 {
		err = ErrNoPatch
	}
	if err != nil {
		return err
	}
	to, err := statFile(dst)
	if err != nil {
		return err
	}
	t, err := openTarget(dst, to, first.Off)
	if err != nil {
		return err
	}
	defer t.close()
	err = t.eachChange(ctx, patch, func(sp span, data, buffer []byte) error {
		have, err := readSpan(t.onDisk, buffer, sp, t.size, errShrunk)
		if err == nil {
			_, err = t.writeChanged(sp.off, data, have)
		}
		return err
	})
	if err != nil {
		return err
	}
	_ = t.onDisk.Close()
	// reopenFromDisk syncs the file first.
	if t.onDisk, t.stat, err = reopenFromDisk(dst); err != nil {
		return err
	}
	return t.eachChange(ctx, patch, t.same)
}

// eachChange calls do for every change of a patch. buffer is as long as the change's span.
func (t *target) eachChange(ctx context.Context, patch *os.File, do func(sp span, data, buffer []byte) error) error {
	align := max(t.memAlign, blockSize)
	var data, buffer []byte
	for at := int64(changeLength); ; {
		c, next, err := readChange(patch, at)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		sp := span{off: c.Off, end: c.Off + roundUp(c.Length, t.align())}
		if c.Length <= 0 || c.Off < 0 || c.Off%t.align() != 0 || c.Off+c.Length > t.size {
			return ErrNoPatch
		}
		if n := sp.end - sp.off; n > int64(len(data)) {
			data, buffer = alignedBuffer(n, align), alignedBuffer(n, align)
		}
		if _, err := patch.ReadAt(data[:c.Length], at+changeLength); errors.Is(err, io.EOF) {
			return ErrNoPatch
		} else if err != nil {
			return err
		}
		if err := do(sp, data[:c.Length], buffer); err != nil {
			return err
		}
		at = next
	}
}

// readChange reads the beginning of the change at a place of a patch, and returns where the
// next one begins. io.EOF after the last one.
func readChange(patch *os.File, at int64) (c change, next int64, err error) {
	head := make([]byte, changeLength)
	n, err := patch.ReadAt(head, at)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return change{}, 0, io.EOF
	case errors.Is(err, io.EOF) && n < changeLength:
		return change{}, 0, ErrNoPatch
	case n < changeLength:
		return change{}, 0, err
	}
	if _, err := binary.Decode(head, binary.BigEndian, &c); err != nil {
		return change{}, 0, err
	}
	if c.Length < 0 || c.Length > patchChunk {
		return change{}, 0, ErrNoPatch
	}
	return c, at + changeLength + c.Length, nil
}
