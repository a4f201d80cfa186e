package guard

import (
	"os"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/pin"
)

// openScanned opens a file that a full scan found, to be held: through a process that
// has it open, else by its path (NVRAM of a domain that is off). os.ErrNotExist when it
// is another file by now, or is none to be held: other hosts may remove it.
func openScanned(root *beneath.Root, f recover.File) (*os.File, error) {
	if len(f.Holders) == 0 {
		return openByPath(root, f)
	}
	src, err := pin.OpenToHold(f)
	if err != nil {
		return nil, err
	}
	if f.State == recover.FilePresent || f.State == recover.FileDisplaced {
		return unlessShared(src.File)
	}
	return src.File, nil
}

func openByPath(root *beneath.Root, f recover.File) (*os.File, error) {
	dir, err := root.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	file, err := dir.Open(filepath.Base(f.Path), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if st, err := identity.OfFile(file); err != nil || st.Inode() != f.Identity() {
		file.Close()
		return nil, os.ErrNotExist // another file by now: the next scan sees it
	}
	return unlessShared(file)
}

// unlessShared closes a file on a file system of several hosts, and returns
// os.ErrNotExist for it.
func unlessShared(f *os.File) (*os.File, error) {
	shared, err := copier.Shared(f)
	if err == nil && shared {
		err = os.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
