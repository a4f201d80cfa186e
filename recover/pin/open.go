package pin

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// ErrStale: QEMU has the file open, but its server does not know it any more: nobody has its
// content.
var ErrStale = errors.New("QEMU's own descriptor is dead (ESTALE)")

// Open opens the held inode of a scanned file anew, through the descriptor of one of its
// holders (/proc/PID/fd, proc(5)): with O_DIRECT if any holder uses it. Where a file system
// does not open a deleted file anew, it returns a duplicate of a holder's own descriptor
// (procfs.Duplicate). It checks that this is still the same inode. The caller closes the
// source. The error wraps copier.ErrDirectRefused when the file system refuses O_DIRECT,
// fs.ErrNotExist when the holders have closed the file, ErrStale when nobody can read it any
// more, and procfs.ErrNoDuplicate.
func Open(f recover.File) (copier.Source, error) {
	direct := false
	for _, h := range f.Holders {
		direct = direct || h.Direct
	}
	failed := fs.ErrNotExist
	for _, h := range f.Holders {
		src, err := openHolder(f, h, direct)
		if err == nil || errors.Is(err, copier.ErrDirectRefused) {
			return src, err
		}
		// ErrStale only if it is true of every holder that has the file.
		if errors.Is(failed, fs.ErrNotExist) || errors.Is(failed, ErrStale) && !errors.Is(err, fs.ErrNotExist) {
			failed = err
		}
	}
	return copier.Source{}, fmt.Errorf("open the held inode of %s: %w", f.Path, failed)
}

// openHolder opens a file through one of its holders.
func openHolder(f recover.File, h recover.Holder, direct bool) (copier.Source, error) {
	src, err := copier.OpenSource(fmt.Sprintf("%s/%d/fd/%d", procfs.Dir, h.PID, h.FD), direct)
	if err != nil && notOpenedAnew(err) {
		again := err
		if src, err = duplicate(h, direct); errors.Is(err, unix.ESTALE) {
			err = ErrStale
		} else if err != nil {
			err = fmt.Errorf("%w, and it can't be opened anew: %v", err, again) //nolint:errorlint // the first decides
		}
	}
	if err != nil {
		return copier.Source{}, err
	}
	var st identity.Status
	if st, err = identity.OfFile(src.File); err == nil && st.Inode().Is(f.Identity(), true) {
		return src, nil
	}
	src.File.Close()
	return copier.Source{}, fmt.Errorf("descriptor %d of process %d has become another file", h.FD, h.PID)
}

// notOpenedAnew is true for the errors with which a file system refuses to open a deleted
// file that it goes on reading for whoever has it open: ESTALE (GlusterFS, NFS), ENOENT (FUSE file
// systems that go by names; also of a descriptor that was closed), EIO and ENXIO (those that
// pass an error of theirs on), EACCES and EPERM (root is nobody on the server).
func notOpenedAnew(err error) bool {
	for _, errno := range []unix.Errno{unix.ESTALE, unix.ENOENT, unix.EIO, unix.ENXIO, unix.EACCES, unix.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// duplicate takes a duplicate of a holder's descriptor, and reads from it.
func duplicate(h recover.Holder, direct bool) (copier.Source, error) {
	if h.Direct != direct {
		return copier.Source{}, fmt.Errorf("%w: another holder reads the file with O_DIRECT, and this one does not", procfs.ErrNoDuplicate)
	}
	file, err := procfs.Duplicate(h.PID, h.FD)
	if err != nil {
		return copier.Source{}, err
	}
	src := copier.Source{File: file, Direct: direct, Duplicate: true}
	if err := src.Probe(); err != nil {
		file.Close()
		return copier.Source{}, err
	}
	return src, nil
}
