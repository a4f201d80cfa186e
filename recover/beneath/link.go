package beneath

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Link gives an open file one more name in the directory and fsyncs the directory. It never
// replaces: fs.ErrExist. fs.ErrNotExist when the file has no name any more, which no link can
// bring back; unix.EXDEV when it is on another file system. The file may be open in any way.
//
// linkat(2) refuses two mounts of one file system (EXDEV), and a file that was opened through
// the descriptor of another process is on a mount of that one's namespace: libvirt gives each
// QEMU one of its own. Then the file is opened again by its handle, on the directory's
// mount (open_by_handle_at(2), which needs CAP_DAC_READ_SEARCH).
func (d *Dir) Link(f *os.File, name string) error {
	if err := d.check("link", name); err != nil {
		return err
	}
	fail := func(err error) error {
		return &os.LinkError{Op: "link", Old: f.Name(), New: d.join(name), Err: err}
	}
	err := d.linkFD(int(f.Fd()), name)
	if errors.Is(err, unix.EXDEV) {
		var fd int
		if fd, err = d.onMount(f); err == nil {
			err = d.linkFD(fd, name)
			unix.Close(fd)
		}
	}
	if err != nil {
		return fail(err)
	}
	if err := d.Sync(); err != nil {
		return fail(fmt.Errorf("it has its new name, which may not survive a power cut: %w", err))
	}
	return nil
}

func (d *Dir) linkFD(fd int, name string) error {
	// By a path and not with AT_EMPTY_PATH, which an older kernel asks another capability for.
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	return retry(func() error { return unix.Linkat(unix.AT_FDCWD, path, d.fd, name, unix.AT_SYMLINK_FOLLOW) })
}

// onMount opens the file anew, on the mount of the directory. EXDEV when it is not on
// the directory's file system.
func (d *Dir) onMount(f *os.File) (int, error) {
	want, err := fstat(int(f.Fd()), f.Name())
	if err != nil {
		return -1, err
	}
	here, err := d.Info()
	if err != nil {
		return -1, err
	}
	if want.Dev != here.Dev {
		return -1, unix.EXDEV
	}
	handle, _, err := unix.NameToHandleAt(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("it is on another mount, and its file system knows no handles: %w", err)
	}
	fd, err := unix.OpenByHandleAt(d.fd, handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("it is on another mount, and can't be opened by its handle: %w", err)
	}
	got, err := fstat(fd, f.Name())
	if err == nil && !got.Inode().Is(want.Inode(), true) {
		err = errors.New("its handle opens another file")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
