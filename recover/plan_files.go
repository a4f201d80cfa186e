package recover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// draft takes over what the scan knows of a file; disk.info, which nobody holds,
// is made from the definition.
func (p *planner) draft(i Instance, f File) (FilePlan, error) {
	todo := FilePlan{Path: f.Path, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing, Size: f.Size,
		Allocated: f.Allocated, Device: f.Device, Inode: f.Inode, Writable: f.Writable}
	if f.Role != RoleDiskInfo {
		return todo, nil
	}
	content, err := f.kept, error(nil)
	if content == "" {
		content, err = diskInfoContent(diskInfo(i.domain, p.Settings.InstancesPath))
	}
	todo.Content, todo.Size, todo.Device, todo.Inode = content, int64(len(content)), 0, 0
	return todo, err
}

// file plans the restoring of one lost file; its error is a refusal.
func (p *planner) file(i Instance, f File) (FilePlan, error) {
	todo, err := p.draft(i, f)
	if err != nil || todo.Content != "" {
		return todo, err
	}
	if err := p.place(&todo); err != nil {
		return todo, err
	}
	src, err := openHeld(f)
	if err != nil {
		return todo, err
	}
	defer src.File.Close()
	todo.Direct = src.Direct
	if err := p.notSharedFile(f.Path, src.File); err != nil {
		return todo, err
	}
	return todo, p.source(i, &todo, src)
}

// notSharedFile returns ErrRefused where other hosts may write a file, and nobody can
// say that the instance does not run on one of them.
func (p *planner) notSharedFile(path string, file *os.File) error {
	if p.Options.AcceptShared || p.Cloud != nil {
		return nil
	}
	shared, err := copier.Shared(file)
	if err == nil && shared {
		err = fmt.Errorf("%w: %s is on a file system that other hosts may write, and without Nova nobody can say that the instance is not running "+
			"on one of them by now: --accept-shared says that you know", ErrRefused, path)
	}
	return err
}

// place checks where the file is to go.
func (p *planner) place(f *FilePlan) error {
	st, err := p.root.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%s can't be published safely: %w", f.Path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: %s is no regular file (a symlink, a directory or a device): move it away after a look at who made it", ErrConflict, f.Path)
	}
	f.Occupied = true
	if p.Options.ReplaceExisting {
		return nil
	}
	if st.Size != f.Size {
		return fmt.Errorf("%w: %s (inode %d, %s) is not the instance's own (deleted inode %d, %s): look at both, then either move it away or use --replace-existing",
			ErrConflict, f.Path, st.Ino, humanize.IBytes(uint64(st.Size)), f.Inode, humanize.IBytes(uint64(f.Size)))
	}
	return nil
}

// source checks the inode that is to be copied.
func (p *planner) source(i Instance, f *FilePlan, src copier.Source) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.File.Fd()), &st); err != nil {
		return err
	}
	f.UID, f.GID, f.Mode = st.Uid, st.Gid, FileMode(st.Mode&0o777)
	if f.Format != "qcow2" || f.Size == 0 {
		return nil
	}
	header, err := qcow2.ParseHeader(qcow2.Aligned{File: src.File}, f.Size)
	if err != nil {
		return fmt.Errorf("libvirt calls %s a qcow2 image, but its header can't be read as one: %w", f.Path, err)
	}
	switch {
	case header.Snapshots > 0:
		f.unmirrorable = fmt.Sprintf("%s has %d snapshots inside, which a mirror does not keep", f.Path, header.Snapshots)
	case header.Bitmaps:
		f.unmirrorable = f.Path + " has dirty bitmaps inside (of incremental backups), which a mirror does not keep"
	}
	return checkHeader(i.domain, f.Path, header)
}

// backupFree returns ErrConflict when the backup directory has something of the
// instance already: no backup is ever overwritten.
func (p *planner) backupFree(uuid string) error {
	if p.Options.BackupDir == "" || p.Resuming {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(p.Options.BackupDir, uuid)); err == nil {
		return fmt.Errorf("%w: %s has a backup of it already, and none is overwritten: give another directory", ErrConflict, p.Options.BackupDir)
	}
	return nil
}
