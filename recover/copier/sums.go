package copier

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxSums bounds the memory of Sums: 2 GiB, for a file of 64 TiB that is full of data. Memory
// that was never written takes no room, so holes cost nothing.
const maxSums = 64 << 20

// sum is the SHA-256 of a chunk, or all zeros for a chunk of zeros. SHA-256 was
// the fastest digest without known collisions on processors with instructions for
// it: 1.6 GB/s on one core.
type sum [sha256.Size]byte

func sumOf(data []byte) sum {
	if isZero(data) {
		return sum{}
	}
	return sha256.Sum256(data)
}

// Sums has the digests of a file's chunks as they are on the disk. The zero value has none:
// nobody has read the file, it is too long, or the file system wants chunks of another
// length.
type Sums struct {
	size int64
	sums []sum
}

// newSums returns the sums of a file of that size, which are yet to be set; none when
// chunks are not read in the length that digests are made of.
func newSums(size, step int64) *Sums {
	chunks := roundUp(size, chunkSize) / chunkSize
	if step != chunkSize || chunks > maxSums {
		return &Sums{}
	}
	return &Sums{size: size, sums: make([]sum, chunks)}
}

// set notes the data of a chunk. Several goroutines may set different ones.
func (s *Sums) set(sp span, data []byte) {
	if s.sums == nil {
		return
	}
	if n, is := sp.off/chunkSize, sumOf(data); s.sums[n] != is {
		s.sums[n] = is
	}
}

// has is true when the file provably has that data at a span.
func (s *Sums) has(sp span, data []byte) bool {
	n := sp.off / chunkSize
	return s != nil && sp.end-sp.off == chunkSize && n < int64(len(s.sums)) && sumOf(data) == s.sums[n]
}

// Digest is the digest of the whole file, in lower-case hexadecimal; "" when there are no
// sums. It is the SHA-256 of the SHA-256s of the file's chunks of a MiB, where that of a
// chunk of zeros, of any length, counts as 32 zero bytes: chunks are read in any order, and
// holes need not be.
func (s *Sums) Digest() string {
	if s == nil || s.sums == nil {
		return ""
	}
	whole := sha256.New()
	for _, one := range s.sums {
		whole.Write(one[:])
	}
	return hex.EncodeToString(whole.Sum(nil))
}

// SumsOf reads a file in full from the disk, and returns its digests. file is a regular file
// open for reading that nobody writes. progress, which may be nil, is called with the number
// of bytes done since its last call. Errors: ErrDiffers when somebody does, ErrNotRegular,
// the context's.
func SumsOf(ctx context.Context, file *os.File, progress func(bytes int64)) (*Sums, error) {
	onDisk, st, err := reopenFromDisk(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = onDisk.Close() }()
	sums := newSums(st.size, st.chunk())
	in := newStream(ctx, onDisk, st, errShrunk, sequence(st.size, st.chunk()))
	defer in.Close()
	for {
		off, data, err := in.Next()
		if errors.Is(err, io.EOF) {
			return sums, nil
		}
		if err != nil {
			return nil, err
		}
		sums.set(span{off: off}, data)
		if progress != nil {
			progress(int64(len(data)))
		}
	}
}

// Verify reads a file in full from the disk as SumsOf does, and returns nil when it has
// that size in bytes and that Sums.Digest. ErrDiffers when it has not, and the errors of SumsOf.
func Verify(ctx context.Context, file *os.File, size int64, digest string, progress func(bytes int64)) error {
	if err := verify(ctx, file, size, digest, progress); err != nil {
		return fmt.Errorf("verify %s: %w", file.Name(), err)
	}
	return nil
}

func verify(ctx context.Context, file *os.File, size int64, digest string, progress func(int64)) error {
	st, err := statFile(file)
	if err != nil {
		return err
	}
	if st.size != size {
		return &DiffersError{Offset: min(size, st.size), SourceSize: size, CopySize: st.size}
	}
	sums, err := SumsOf(ctx, file, progress)
	if err != nil {
		return err
	}
	if got := sums.Digest(); got != digest {
		return fmt.Errorf("%w: its digest is %s instead of %s", ErrDiffers, got, digest)
	}
	return nil
}
