package copier

import (
	"context"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// blockSize is the unit in which zeros are looked for, and the least alignment
	// of reads: it is enough for O_DIRECT on every device in use.
	blockSize = 4096
	// chunkSize is the length of a read. Four MiB per file are in flight: with more
	// the throughput of a local disk does not grow, and it hides the latency of a
	// network file system.
	chunkSize = 1 << 20
	readAhead = 4
)

// span is a range of a file.
type span struct {
	off, end int64
	hole     bool // known to have no data
}

// stream reads spans of a file, several at a time, and hands them out in order.
type stream struct {
	ctx     context.Context
	file    *os.File
	size    int64
	next    func() (span, error) // aligned spans of at most chunk bytes in order; io.EOF after the last
	changed error                // returned when the file ends before size

	free    [][]byte
	flight  []*chunk
	current *chunk
	end     error
}

type chunk struct {
	span
	buffer []byte
	data   []byte
	err    error
	ready  chan struct{}
}

// newStream returns a stream over the spans of file. st has its size and alignment.
func newStream(ctx context.Context, file *os.File, st stat, changed error, next func() (span, error)) *stream {
	s := &stream{ctx: ctx, file: file, size: st.size, changed: changed, next: next}
	for range readAhead {
		s.free = append(s.free, alignedBuffer(st.chunk(), max(st.memAlign, blockSize)))
	}
	return s
}

// align is the alignment of offsets and lengths in bytes.
func (st stat) align() int64 { return max(st.ioAlign, blockSize) }

// chunk is the length of a read in bytes, a multiple of align.
func (st stat) chunk() int64 { return roundUp(chunkSize, st.align()) }

// Next returns the next span's offset and its bytes, cut at the end of the file.
// The bytes are valid until the next call. io.EOF after the last span.
func (s *stream) Next() (int64, []byte, error) {
	if s.current != nil {
		s.free = append(s.free, s.current.buffer)
		s.current = nil
	}
	if err := s.ctx.Err(); err != nil {
		return 0, nil, err
	}
	for len(s.free) > 0 && s.end == nil {
		sp, err := s.next()
		if err != nil {
			s.end = err
			break
		}
		c := &chunk{span: sp, buffer: s.free[len(s.free)-1], ready: make(chan struct{})}
		s.free = s.free[:len(s.free)-1]
		s.flight = append(s.flight, c)
		go func() {
			defer close(c.ready)
			c.data, c.err = readSpan(s.file, c.buffer, c.span, s.size, s.changed)
		}()
	}
	if len(s.flight) == 0 {
		return 0, nil, s.end
	}
	c := s.flight[0]
	s.flight = s.flight[1:]
	<-c.ready
	s.current = c
	return c.off, c.data, c.err
}

// Close waits for the reads under way.
func (s *stream) Close() {
	for _, c := range s.flight {
		<-c.ready
	}
	s.flight = nil
}

// readSpan reads a span of a file of that size into buffer, up to the end of the
// file; changed is the error when the file ends before size. os.File.ReadAt does
// not work here: after a short read it goes on at an offset that O_DIRECT refuses.
func readSpan(file *os.File, buffer []byte, sp span, size int64, changed error) ([]byte, error) {
	want := min(sp.end, size) - sp.off
	buffer = buffer[:sp.end-sp.off]
	got := int64(0)
	for got < want {
		n, err := unix.Pread(int(file.Fd()), buffer[got:], sp.off+got)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: file.Name(), Err: err}
		case n == 0:
			return buffer[:got], changed
		}
		got += int64(n)
		if got < want && got%blockSize != 0 {
			return buffer[:got], changed // a short read inside a block is the end of the file
		}
	}
	return buffer[:want], nil
}

// sequence returns every span of a file of that size.
func sequence(size, step int64) func() (span, error) {
	off := int64(0)
	return func() (span, error) {
		if off >= size {
			return span{}, io.EOF
		}
		sp := span{off: off, end: min(off+step, roundUp(size, step))}
		off = sp.end
		return sp, nil
	}
}

// list returns spans one by one.
func list(spans []span) func() (span, error) {
	return func() (span, error) {
		if len(spans) == 0 {
			return span{}, io.EOF
		}
		sp := spans[0]
		spans = spans[1:]
		return sp, nil
	}
}

func alignedBuffer(size, align int64) []byte {
	b := make([]byte, size+align)
	skip := (align - int64(uintptr(unsafe.Pointer(&b[0]))%uintptr(align))) % align
	return b[skip : skip+size : skip+size]
}

func roundUp(n, step int64) int64   { return (n + step - 1) / step * step }
func roundDown(n, step int64) int64 { return n / step * step }
