package guard

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

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
		file, err := openByPath(root, f, f.Path, 0)
		if err != nil {
			return nil, err
		}
		return unlessShared(file)
	}
	src, err := pin.OpenToHold(f)
	if err != nil {
		return nil, err
	}
	if f.State != recover.FilePresent && f.State != recover.FileDisplaced {
		return src.File, nil
	}
	// What was opened through a QEMU's descriptor is on that QEMU's mount (libvirt gives each a mount
	// namespace), and has no path once that is gone.
	direct := 0
	if src.Direct {
		direct = unix.O_DIRECT
	}
	path := f.Path
	if f.State == recover.FileDisplaced {
		path = f.Found
	}
	if named, err := openByPath(root, f, path, direct); err == nil {
		src.File.Close()
		return unlessShared(named)
	}
	return unlessShared(src.File)
}

// openByPath opens the file at a path; os.ErrNotExist when it is not f.
func openByPath(root *beneath.Root, f recover.File, path string, flags int) (*os.File, error) {
	if path == "" {
		return nil, os.ErrNotExist
	}
	dir, err := root.OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	file, err := dir.Open(filepath.Base(path), os.O_RDONLY|flags)
	if err != nil {
		return nil, err
	}
	if st, err := identity.OfFile(file); err != nil || st.Inode() != f.Identity() {
		file.Close()
		return nil, os.ErrNotExist // another file by now: the next scan sees it
	}
	return file, nil
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
