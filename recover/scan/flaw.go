package scan

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// flawOf says why the regular file at a file's path can't be the image that the definition says
// it is: it has no bytes (a cdrom may be so), or should be qcow2, and QEMU would refuse its header. "" when
// nothing speaks against it: of a raw image's bytes nothing can be told.
func flawOf(root procfs.Root, f recover.File, at identity.Status) (string, error) {
	switch {
	case at.Size == 0 && (f.Writable || f.Role != recover.RoleDisk):
		return "the file at its path is empty", nil
	case f.Format != "qcow2":
		return "", nil
	}
	file, err := root.Open(f.Path)
	if errors.Is(err, fs.ErrPermission) {
		return "", nil // a server that squashes root: its guest can read it
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, err = qcow2.ParseHeader(qcow2.Aligned{File: file}, at.Size)
	if errors.Is(err, qcow2.ErrNotQcow2) || errors.Is(err, qcow2.ErrMalformed) {
		return fmt.Sprintf("its definition calls it a qcow2 image, and the file at its path is none: %v", err), nil
	}
	return "", err
}
