package beneath

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrCannotPublish: the file system can neither rename without replacing nor
// make hard links, so a file can't get a name there without the risk of replacing
// another file. Nothing was changed.
var ErrCannotPublish = errors.New("the file system can't give a file a name without the risk of replacing another file")

// Publish moves a name from one directory to another on the same file system and
// never replaces: fs.ErrExist when toName exists, unix.EXDEV when the directories
// are on different file systems, fs.ErrNotExist when fromName does not exist. Both
// directories are fsynced; when only that fails, the error says that the file
// already has its new name.
//
// It is renameat2(RENAME_NOREPLACE) where the file system knows that flag. NFS
// and CephFS refuse every flag with EINVAL (nfs_rename in fs/nfs/dir.c,
// ceph_rename in fs/ceph/dir.c), and so does FUSE when its server does
// (fs/fuse/dir.c). There Publish links and unlinks, which works for files only.
// Interrupted between the two, it leaves one file with both names; calling Publish
// again finishes it.
//
// A user who can write the directory from can swap the name before it is moved:
// stage in a directory that only root can write, or compare the published inode
// with the descriptor afterwards.
func Publish(from *Dir, fromName string, to *Dir, toName string) error {
	if err := errors.Join(from.check("publish", fromName), to.check("publish", toName)); err != nil {
		return err
	}
	fail := func(err error) error {
		return &os.LinkError{Op: "publish", Old: from.join(fromName), New: to.join(toName), Err: err}
	}
	if err := moveNoReplace(from, fromName, to, toName); err != nil {
		return fail(err)
	}
	err := to.Sync()
	if from.fd != to.fd {
		err = errors.Join(err, from.Sync())
	}
	if err != nil {
		return fail(fmt.Errorf("it has its new name, which may not survive a power cut: %w", err))
	}
	return nil
}

// MoveAside renames a file within its directory, with Publish's promises and
// errors. A directory can be moved aside only where the file system knows
// RENAME_NOREPLACE (ErrCannotPublish elsewhere).
func MoveAside(dir *Dir, name, newName string) error { return Publish(dir, name, dir, newName) }

func moveNoReplace(from *Dir, fromName string, to *Dir, toName string) error {
	err := retry(func() error {
		return unix.Renameat2(from.fd, fromName, to.fd, toName, unix.RENAME_NOREPLACE)
	})
	if err == nil {
		return nil
	}
	if unsupported(err) {
		err = retry(func() error { return unix.Linkat(from.fd, fromName, to.fd, toName, 0) })
	}
	switch {
	case err == nil:
	case errors.Is(err, unix.EEXIST):
		// It may be this very file: an earlier call was interrupted after its link,
		// or NFS lost the reply and sent the request again.
		if !sameFile(from, fromName, to, toName) {
			return err
		}
	case errors.Is(err, unix.EPERM), unsupported(err):
		return fmt.Errorf("%w: %w", ErrCannotPublish, err)
	default:
		return err
	}
	if err := from.Remove(fromName); err != nil {
		return fmt.Errorf("it has its new name, but also still the old one: %w", err)
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// sameFile reports whether two names are links to one file.
func sameFile(from *Dir, fromName string, to *Dir, toName string) bool {
	a, err := from.Stat(fromName)
	if err != nil {
		return false
	}
	b, err := to.Stat(toName)
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino && a.Mode&unix.S_IFMT == unix.S_IFREG &&
		!sameEntry(from, fromName, to, toName)
}

// sameEntry reports whether both are the same name in the same directory: then
// removing the first would remove the file.
func sameEntry(from *Dir, fromName string, to *Dir, toName string) bool {
	if fromName != toName {
		return false
	}
	a, err := from.Info()
	if err != nil {
		return true
	}
	b, err := to.Info()
	return err != nil || a.Dev == b.Dev && a.Ino == b.Ino
}
