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

// Digest reads a file in full, holes included, as it reached the disk (as Compare reads a
// copy), and returns the SHA-256 of its content in lower-case hexadecimal. progress is called
// with the bytes read since its last call; it may be nil. f is open for reading.
//
// Errors: ErrNotRegular, ErrSourceChanged when its size changes meanwhile, the context's
// error (within one chunk of a MiB).
func Digest(ctx context.Context, f *os.File, progress func(bytes int64)) (string, error) {
	digest, err := digestOf(ctx, f, progress)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return digest, nil
}

func digestOf(ctx context.Context, f *os.File, progress func(bytes int64)) (string, error) {
	again, st, err := reopenFromDisk(f)
	if err != nil {
		return "", err
	}
	defer func() { _ = again.Close() }()
	s := newStream(ctx, again, st, ErrSourceChanged, sequence(st.size, st.chunk()))
	defer s.Close()
	sum := sha256.New()
	for {
		_, data, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		sum.Write(data)
		if progress != nil {
			progress(int64(len(data)))
		}
	}
	if now, err := statFile(f); err != nil || now.size != st.size {
		return "", errors.Join(ErrSourceChanged, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
