package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// draft copies what the scan knows about a file. No process holds disk.info: its
// content is the guard's copy, or made from the definition.
func (p *planner) draft(i recover.Instance, f recover.File) (recover.FilePlan, error) {
	file := recover.FilePlan{
		Path:      f.Path,
		Role:      f.Role,
		Format:    f.Format,
		Target:    f.Target,
		Backing:   f.Backing,
		Size:      f.Size,
		Allocated: f.Allocated,
		Device:    f.Device,
		Inode:     f.Inode,
		Birth:     f.Birth,
		Writable:  f.Writable,
	}
	if f.Role != recover.RoleDiskInfo {
		return file, nil
	}
	content, err := f.KeptContent, error(nil)
	if content == "" {
		content, err = scan.DiskInfoContent(scan.DiskInfo(i.Definition, p.Settings.InstancesPath))
	}
	file.Content, file.Size = content, int64(len(content))
	file.Device, file.Inode, file.Birth = 0, 0, ""
	return file, err
}

// file plans the restoring of one lost file; its error is a refusal.
func (p *planner) file(i recover.Instance, f recover.File) (recover.FilePlan, error) {
	file, err := p.draft(i, f)
	if err != nil || file.Content != "" {
		return file, err
	}
	if err := p.place(&file); err != nil {
		return file, err
	}
	if err := p.standsStill(i, f); err != nil {
		return file, err
	}
	src, err := pin.Open(f)
	if err != nil {
		return file, err
	}
	defer src.File.Close()
	if err := p.notSharedFile(f.Path, src.File); err != nil {
		return file, err
	}
	err = p.source(i, &file, src)
	return file, err
}

// standsStill returns ErrRefused while a process that the operator named, and that is not the
// domain's QEMU, may write a file: no copy of it would stay the last state of it. The keeper and the
// guard may hold it by a descriptor of QEMU's own; they write nothing.
func (p *planner) standsStill(i recover.Instance, f recover.File) error {
	for _, h := range f.Holders {
		if !h.Writable || h.PID == i.PID || !slices.Contains(p.Options.Holders, h.PID) || f.Role == recover.RoleConsoleLog {
			continue
		}
		if !procfs.IsStopped(procfs.Dir, h.PID) {
			return fmt.Errorf("%w: %s %d, which is not this domain's QEMU, has %s open for writing, and may write while it is copied, and "+
				"afterwards: stop it first (kill -STOP %d), and end it when the instance is back", recover.ErrRefused, h.Process, h.PID, f.Path, h.PID)
		}
		p.warn("%s is copied as %s %d has left it, which was stopped: what that has only in its memory is not in it, as after a power failure. "+
			"Do not continue it, and end it when the instance is back", f.Path, h.Process, h.PID)
	}
	return nil
}

// notSharedFile returns ErrRefused when other hosts may write a file and no Nova can
// rule out that the instance runs on one of them.
func (p *planner) notSharedFile(path string, file *os.File) error {
	if p.Options.AcceptShared || p.Cloud != nil {
		return nil
	}
	shared, err := copier.Shared(file)
	if err == nil && shared {
		err = fmt.Errorf("%w: %s is on a file system that other hosts may write, and without Nova os-rescue can't rule out "+
			"that the instance runs on one of them by now: if you are sure that it does not, use --accept-shared", recover.ErrRefused, path)
	}
	return err
}

// place checks the path at which the file will be published.
func (p *planner) place(f *recover.FilePlan) error {
	st, err := p.root.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%s can't be published safely: %w", f.Path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: %s is no regular file (a symlink, a directory or a device): find out who made it, then move it away",
			recover.ErrConflict, f.Path)
	}
	f.Occupied = true
	if p.Options.ReplaceExisting {
		return p.mayReplace(f.Path)
	}
	if st.Size != f.Size {
		return fmt.Errorf("%w: %s (inode %d, %s) is not the instance's own file (deleted inode %d, %s): "+
			"look at both, then either move it away or use --replace-existing",
			recover.ErrConflict, f.Path, st.Ino, humanize.IBytes(uint64(st.Size)), f.Inode, humanize.IBytes(uint64(f.Size)))
	}
	return nil
}

// mayReplace returns ErrRefused when other hosts may use the file that would be moved aside,
// and no Nova can rule out that the instance runs on one of them.
func (p *planner) mayReplace(path string) error {
	dir, err := p.root.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	at, err := dir.Open(filepath.Base(path), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer at.Close()
	return p.notSharedFile(path, at)
}

// source checks the inode that will be copied, and takes its owner and mode, and how QEMU
// has it open.
func (p *planner) source(i recover.Instance, f *recover.FilePlan, src copier.Source) error {
	f.Direct, f.Reserved = src.Direct, src.CloneReserves()
	if src.Duplicate {
		// qemu-img, which compares a mirror with its source, opens its descriptors anew.
		f.Unmirrorable = fmt.Sprintf("the file system of %s does not open it anew, so a mirror of it could not be compared", f.Path)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.File.Fd()), &st); err != nil {
		return err
	}
	f.UID, f.GID, f.Mode = st.Uid, st.Gid, recover.FileMode(st.Mode&0o777)
	if f.Format != "qcow2" || f.Size == 0 {
		return nil
	}
	header, err := qcow2.ParseHeader(qcow2.Aligned{File: src.File}, f.Size)
	if err != nil {
		return fmt.Errorf("libvirt calls %s a qcow2 image, but its header can't be read as one: %w", f.Path, err)
	}
	switch {
	case header.Snapshots > 0:
		f.Unmirrorable = fmt.Sprintf("%s contains internal snapshots (%d), which a mirror does not keep", f.Path, header.Snapshots)
	case header.Encryption != qcow2.EncryptionNone:
		f.Unmirrorable = fmt.Sprintf("QEMU encrypts %s, and would write its mirror in the clear", f.Path)
	case header.Bitmaps:
		f.Unmirrorable = f.Path + " contains dirty bitmaps (of incremental backups), which a mirror does not keep"
	}
	f.MirrorLoses = mirrorLoses(header)
	f.ClosingWrites = f.Writable && i.PID != 0 && (header.Bitmaps || header.LazyRefcounts || header.Dirty)
	root, err := procfs.OpenRoot(p.root.String())
	if err != nil {
		return err
	}
	defer root.Close()
	return scan.CheckHeader(i.Definition, f.Path, header, root)
}

// mirrorLoses says what the image that libvirt makes for a mirror has not of the old one. It
// has its version, cluster size and subclusters (libvirt 9.0 with QEMU 7.2, measured).
func mirrorLoses(h qcow2.Header) string {
	var lost []string
	if h.LazyRefcounts {
		lost = append(lost, "lazy refcounts")
	}
	if h.RefcountBits != 16 {
		lost = append(lost, fmt.Sprintf("refcounts of %d bits", h.RefcountBits))
	}
	return strings.Join(lost, " and ")
}

// backupFree returns ErrConflict when the backup directory already contains a backup of
// the instance: os-rescue never overwrites one.
func (p *planner) backupFree(uuid string) error {
	if p.Options.BackupDir == "" || p.Resuming {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(p.Options.BackupDir, uuid)); err == nil {
		return fmt.Errorf("%w: %s already contains a backup of it, and os-rescue never overwrites one: give another directory",
			recover.ErrConflict, p.Options.BackupDir)
	}
	return nil
}
