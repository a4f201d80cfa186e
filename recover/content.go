package recover

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"unsafe"
)

// diskInfoContent returns the text of a disk.info. Nova reads it with json.loads
// and never cares for its order (nova/virt/libvirt/imagebackend.py).
func diskInfoContent(formats map[string]string) (string, error) {
	data, err := json.Marshal(formats)
	return string(data), err
}

// directAlign satisfies O_DIRECT on every file system and device in use.
const directAlign = 4096

// alignedReader reads at any offset from a descriptor that may carry O_DIRECT.
type alignedReader struct{ file *os.File }

// ReadAt is io.ReaderAt's.
func (r alignedReader) ReadAt(p []byte, off int64) (int, error) {
	start := off &^ (directAlign - 1)
	skip := int(off - start)
	length := (skip + len(p) + directAlign - 1) &^ (directAlign - 1)
	buf := make([]byte, length+directAlign)
	shift := int(-uintptr(unsafe.Pointer(&buf[0])) & (directAlign - 1))
	buf = buf[shift : shift+length]
	n, err := r.file.ReadAt(buf, start)
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
