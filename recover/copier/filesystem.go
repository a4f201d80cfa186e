package copier

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fileSystem has the known properties of a type of file system.
type fileSystem struct {
	name     string
	coherent bool // buffered, direct and cloned reads all return the latest write
	seeks    bool // SEEK_DATA and SEEK_HOLE are right after an fsync
	local    bool // only this host writes it
	stamps   bool // each write changes the times that a stat then returns
	// readsBack: O_DIRECT reads from the device (btrfs and tmpfs answer from the page
	// cache).
	readsBack bool
}

// kind returns the properties of the file system with this f_type (statfs(2) and
// the kernel's include/uapi/linux/magic.h). All FUSE file systems are "fuse"; ext2
// and ext3 are "ext4".
//
// Which ones stamp writes: NFS has the server do it (RFC 8881, time_modify), and of the FUSE
// ones ceph-fuse (Client::_write in src/client/Client.cc) and GlusterFS (the utime translator)
// take this host's time. An SMB server may put it off until the file is closed.
func kind(magic uint32) fileSystem {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return fileSystem{name: "ext4", coherent: true, seeks: true, local: true, readsBack: true, stamps: true}
	case unix.XFS_SUPER_MAGIC:
		return fileSystem{name: "xfs", coherent: true, seeks: true, local: true, readsBack: true, stamps: true}
	case unix.BTRFS_SUPER_MAGIC:
		return fileSystem{name: "btrfs", coherent: true, seeks: true, local: true, stamps: true}
	case unix.TMPFS_MAGIC:
		return fileSystem{name: "tmpfs", seeks: true, local: true, stamps: true}
	case unix.F2FS_SUPER_MAGIC:
		return fileSystem{name: "f2fs", local: true, stamps: true}
	case unix.OVERLAYFS_SUPER_MAGIC:
		return fileSystem{name: "overlayfs", local: true, stamps: true}
	case 0x2fc12fc1:
		return fileSystem{name: "zfs", local: true, stamps: true}
	case unix.NFS_SUPER_MAGIC:
		return fileSystem{name: "nfs", stamps: true}
	case unix.FUSE_SUPER_MAGIC:
		return fileSystem{name: "fuse", stamps: true}
	case unix.CEPH_SUPER_MAGIC:
		return fileSystem{name: "ceph", stamps: true}
	case 0x01161970:
		return fileSystem{name: "gfs2", stamps: true}
	case unix.OCFS2_SUPER_MAGIC:
		return fileSystem{name: "ocfs2", stamps: true}
	case unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return fileSystem{name: "cifs"}
	default:
		return fileSystem{name: fmt.Sprintf("unknown (%#x)", magic)}
	}
}

func fileSystemOf(f *os.File) (fileSystem, error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(int(f.Fd()), &st)
		if err == unix.EINTR {
			continue
		}
		if errors.Is(err, unix.ESTALE) {
			// GlusterFS says so of a file that another client has deleted, and reads it all the same.
			return kind(0), nil
		}
		if err != nil {
			return fileSystem{}, fmt.Errorf("find out the file system of %s: %w", f.Name(), err)
		}
		return kind(uint32(st.Type)), nil
	}
}

// Coherent returns the name of the file system that f is on ("ext4", "xfs",
// "btrfs", "tmpfs", "nfs", "fuse", "ceph", "zfs", "overlayfs", "gfs2", "ocfs2",
// ... or "unknown (0x...)"). coherent is true where a clone made by the kernel is
// known to hold the latest write through any descriptor: ext4, XFS and btrfs only.
func Coherent(f *os.File) (name string, coherent bool, err error) {
	fs, err := fileSystemOf(f)
	return fs.name, fs.coherent, err
}

// Shared reports whether other hosts may write to the file system that f is on, so
// that files can change without this host's doing: NFS, CephFS, every FUSE file
// system, GFS2, OCFS2, CIFS, and every unknown type.
func Shared(f *os.File) (bool, error) {
	fs, err := fileSystemOf(f)
	return !fs.local, err
}
