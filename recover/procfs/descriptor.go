package procfs

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
)

// DeletedSuffix is what the kernel appends to the link of a descriptor whose name was
// unlinked (fs/d_path.c, d_path). The name of a file may really end so: the suffix
// alone proves nothing.
const DeletedSuffix = " (deleted)"

// Descriptor is one open regular file of a process.
type Descriptor struct {
	FD    int             // its number in the process
	Link  string          // as readlink shows it, the suffix included
	Stat  identity.Status // of the open inode
	Flags int             // as given to open(2), and what fcntl(2) has changed since
	// Stale is true when the file's server does not know it any more (ESTALE): Stat is what
	// this host remembers of it, and no name leads to it.
	Stale bool
}

// stat asks for the status of the open file; path is its link in /proc/PID/fd. A file that
// its server has forgotten must not look like a descriptor that was closed.
func (d *Descriptor) stat(path string) (err error) {
	if d.Stat, err = identity.At(unix.AT_FDCWD, path, 0); !errors.Is(err, unix.ESTALE) {
		return err
	}
	d.Stat, err = identity.Remembered(path)
	d.Stale = err == nil
	return err
}

// Inode identifies the open file.
func (d Descriptor) Inode() recover.Inode { return d.Stat.Inode() }

// Unlinked is true when no name leads to the file any more.
func (d Descriptor) Unlinked() bool { return d.Stat.Nlink == 0 }

// Direct is true when the file was opened with O_DIRECT.
func (d Descriptor) Direct() bool { return d.Flags&unix.O_DIRECT != 0 }

// Writable is true when the file was opened for writing.
func (d Descriptor) Writable() bool { return d.Flags&unix.O_ACCMODE != unix.O_RDONLY }

// SillyRenamed is true for the hidden name that an NFS client (fs/nfs/unlink.c,
// nfs_sillyrename) or libfuse (".fuse_hidden") gives an open file on deletion. Its link
// count is not 0, although it is deleted for everybody else.
func (d Descriptor) SillyRenamed() bool {
	base := filepath.Base(strings.TrimSuffix(d.Link, DeletedSuffix))
	return strings.HasPrefix(base, ".nfs") || strings.HasPrefix(base, ".fuse_hidden")
}

// PathsOf returns the paths that a descriptor's file may have had, the likeliest first:
// its link as it is, and its link without the kernel's suffix, if it has that. unlinked
// is Descriptor.Unlinked.
func PathsOf(link string, unlinked bool) []string {
	stripped, cut := strings.CutSuffix(link, DeletedSuffix)
	switch {
	case cut && unlinked:
		return []string{stripped, link}
	case cut:
		return []string{link, stripped}
	default:
		return []string{link}
	}
}
