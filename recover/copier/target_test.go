package copier

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatTheDiskHasIsHeldAgainstWhatWasReadOfTheSource(t *testing.T) {
	dst, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dst.Close() }()
	const size = 3*chunkSize + 5
	to, err := openTarget(dst, stat{ioAlign: -1, memAlign: -1}, size)
	if err != nil {
		t.Fatal(err)
	}
	defer to.close()
	data, buffer := alignedBuffer(chunkSize, blockSize), alignedBuffer(chunkSize, blockSize)
	copy(data, bytes.Repeat([]byte("data"), chunkSize))
	for _, part := range []span{{off: chunkSize, end: 2 * chunkSize}, {off: 3 * chunkSize, end: 4 * chunkSize}} {
		want := data[:min(part.end, size)-part.off]
		if _, err := to.writeData(part.off, want); err != nil {
			t.Fatal(err)
		}
		if err := to.same(part, want, buffer); err != nil {
			t.Errorf("at %d: %v", part.off, err)
		}
		at := part.off + int64(len(want)) - 1
		if _, err := dst.WriteAt([]byte("X"), at); err != nil {
			t.Fatal(err)
		}
		var differs *DiffersError
		if err := to.same(part, want, buffer); !errors.As(err, &differs) || differs.Offset != at {
			t.Errorf("at %d: %v", part.off, err)
		}
	}
	if err := dst.Truncate(chunkSize + 10); err != nil {
		t.Fatal(err)
	}
	if err := to.same(span{off: chunkSize, end: 2 * chunkSize}, data, buffer); !errors.Is(err, ErrDiffers) {
		t.Errorf("a copy that shrinks: %v", err)
	}
}
