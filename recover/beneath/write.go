package beneath

import (
	"crypto/rand"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Write writes a file whole or not at all, with mode 0600, in place of what has that name: of a
// symlink the name is replaced, and it is not followed. The file is on disk when Write returns
// nil. A reader meanwhile sees the old file or the new one (rename(2)).
func Write(d *Dir, name string, data []byte) error {
	if err := d.check("write", name); err != nil {
		return err
	}
	fresh := "." + name + "." + rand.Text()
	f, err := d.Create(fresh)
	if err != nil {
		return err
	}
	defer func() { _ = d.Remove(fresh) }() // after the rename there is nothing to remove
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Renameat(d.fd, fresh, d.fd, name) }); err != nil {
		return &fs.PathError{Op: "write", Path: d.join(name), Err: err}
	}
	return d.Sync()
}
