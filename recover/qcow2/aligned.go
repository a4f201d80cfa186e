package qcow2

import (
	"errors"
	"io"
	"os"
	"unsafe"
)

// directAlign is an alignment that O_DIRECT accepts on every file system and device
// in use.
const directAlign = 4096

// Aligned is an io.ReaderAt that reads at any offset from a file that may be open
// with O_DIRECT.
type Aligned struct{ File *os.File }

// ReadAt implements io.ReaderAt.
func (r Aligned) ReadAt(p []byte, off int64) (int, error) {
	start := off &^ (directAlign - 1)
	skip := int(off - start)
	length := (skip + len(p) + directAlign - 1) &^ (directAlign - 1)
	buf := make([]byte, length+directAlign)
	shift := int(-uintptr(unsafe.Pointer(&buf[0])) & (directAlign - 1))
	buf = buf[shift : shift+length]
	n, err := r.File.ReadAt(buf, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if n <= skip {
		return 0, io.EOF
	}
	copied := copy(p, buf[skip:n])
	if copied < len(p) {
		return copied, io.EOF
	}
	return copied, nil
}
