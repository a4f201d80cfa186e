package beneath

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Owner is a file's user, group and mode. Mode has permission bits and
// fs.ModeSetuid, fs.ModeSetgid and fs.ModeSticky, nothing else.
type Owner struct {
	UID, GID uint32
	Mode     fs.FileMode
}

// String returns "UID:GID MODE" with the mode in octal.
func (o Owner) String() string { return fmt.Sprintf("%d:%d %04o", o.UID, o.GID, o.bits()) }

// OwnerOf returns the owner and mode that a file has.
func OwnerOf(st unix.Stat_t) Owner {
	mode := fs.FileMode(st.Mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if st.Mode&bit != 0 {
			mode |= flag
		}
	}
	return Owner{UID: st.Uid, GID: st.Gid, Mode: mode}
}

func (o Owner) bits() uint32 {
	bits := uint32(o.Mode.Perm())
	if o.Mode&fs.ModeSetuid != 0 {
		bits |= unix.S_ISUID
	}
	if o.Mode&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	if o.Mode&fs.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}

// SetOwner sets the owner and mode of an open file, by descriptor, and verifies
// that the file system took them (an NFS server that squashes root may not).
// An ID of 2^32-1, which means "leave it" to chown(2), is fs.ErrInvalid, and so
// are mode bits other than those of Owner.
func SetOwner(f *os.File, o Owner) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) { err = setOwner(int(fd), f.Name(), o) })
	if cerr != nil {
		return cerr
	}
	return err
}

func setOwner(fd int, path string, o Owner) error {
	const leave = ^uint32(0)
	if o.UID == leave || o.GID == leave || o.Mode&^(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
		return &fs.PathError{Op: "set owner of", Path: path, Err: fmt.Errorf("%w: %s", fs.ErrInvalid, o)}
	}
	// The owner first: chown(2) clears the set-ID bits.
	if err := retry(func() error { return unix.Fchown(fd, int(o.UID), int(o.GID)) }); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	if err := retry(func() error { return unix.Fchmod(fd, o.bits()) }); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	st, err := fstat(fd, path)
	if err != nil {
		return err
	}
	if st.Uid != o.UID || st.Gid != o.GID || st.Mode&0o7777 != o.bits() {
		return &fs.PathError{
			Op:   "set owner of",
			Path: path,
			Err:  fmt.Errorf("the file system set %d:%d %04o instead of %s", st.Uid, st.Gid, st.Mode&0o7777, o),
		}
	}
	return nil
}
