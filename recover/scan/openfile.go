package scan

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// candidate is a held file that may belong to an instance.
type candidate struct {
	procfs.HeldFile
	// pinPath is the path that the definition gives a file of the keeper or the guard;
	// the descriptor's own link may differ from it. Empty for other holders.
	pinPath string
	// belongs is the path that a definition gave a file of the guard's, which may have
	// another name by now.
	belongs string
	// needed is true for a file that the guard holds because an instance lost it.
	needed bool
	// retired is true for a file that the guard holds although its instance was defined anew
	// since it was deleted.
	retired bool
	// opened is true for a pin that the instance's QEMU has had open: a guard holds others too.
	opened bool
	// elsewhere is true for a file of a process that is neither a QEMU of the instance nor a
	// pin of it.
	elsewhere bool
}

// candidates turns the files of a process that pins nothing into candidates.
func candidates(held []procfs.HeldFile) []candidate {
	list := make([]candidate, len(held))
	for n, h := range held {
		list[n].HeldFile = h
	}
	return list
}

// gone is true when the held file has no name that anybody could open.
func (c candidate) gone() bool { return c.Unlinked() || c.SillyRenamed() }

// isOfNova is true for a file in a directory that Nova itself has renamed: UUID_resize and
// UUID_del (nova/virt/libvirt/driver.py).
func (c candidate) isOfNova() bool {
	_, suffix, renamed := strings.Cut(filepath.Base(filepath.Dir(c.Link)), "_")
	return renamed && (suffix == "resize" || suffix == "del")
}

// isDeletedByNow looks at the descriptor once more: true when its file has lost its last name.
func (c candidate) isDeletedByNow() bool {
	st, err := identity.At(unix.AT_FDCWD, fmt.Sprintf("%s/%d/fd/%d", procfs.Dir, c.PID, c.FD), 0)
	return err == nil && st.Inode() == c.Inode() && st.Nlink == 0
}

// openFile is one inode with all descriptors on it.
type openFile struct {
	inode recover.Inode
	fds   []candidate
}

// openFiles groups descriptors by their inode, in the order of the first descriptors.
func openFiles(list []candidate) []*openFile {
	var files []*openFile
	byInode := map[recover.Inode]*openFile{}
	for _, c := range list {
		f := byInode[c.Inode()]
		if f == nil {
			f = &openFile{inode: c.Inode()}
			byInode[c.Inode()] = f
			files = append(files, f)
		}
		f.fds = append(f.fds, c)
	}
	return files
}

// first is the descriptor that stands for the file.
func (o *openFile) first() candidate { return o.fds[0] }

func (o *openFile) writable() bool {
	return slices.ContainsFunc(o.fds, func(c candidate) bool { return c.Writable() })
}

// names are the paths that the kernel shows for the file, the likeliest first.
func (o *openFile) names() []string {
	var names []string
	for _, c := range o.fds {
		names = append(names, procfs.PathsOf(c.Link, c.Unlinked())...)
	}
	return names
}

// header reads the beginning of the file.
func (o *openFile) header() header {
	src, err := pin.Open(o.file())
	if err != nil {
		return header{unreadable: true}
	}
	defer src.File.Close()
	h, err := qcow2.ParseHeader(qcow2.Aligned{File: src.File}, o.first().Stat.Size)
	return header{Header: h, isQCOW2: err == nil, unreadable: err != nil && !errors.Is(err, qcow2.ErrNotQcow2)}
}

// file is the open file as a file that no definition names.
func (o *openFile) file() recover.File {
	f := recover.File{
		Path:    o.names()[0],
		Role:    recover.RoleOther,
		State:   recover.FileDeleted,
		Reason:  "no definition names it: it lasts as long as its QEMU runs, and os-rescue leaves it alone",
		Holders: []recover.Holder{},
	}
	for _, c := range o.fds {
		addHolder(&f, c)
	}
	return f
}

// String names the open file and its first descriptor, for people.
func (o *openFile) String() string {
	c := o.first()
	return fmt.Sprintf("%s (%d:%d)", c.Link, c.PID, c.FD)
}

// isImage is false for what a QEMU has open that no image is opened like: memory, temporary
// files that never had a lasting name, and output, which it only writes (chardev/char-file.c).
func isImage(c candidate) bool {
	name := procfs.PathsOf(c.Link, c.Unlinked())[0]
	for _, prefix := range []string{"/memfd:", "/dev/hugepages", "/SYSV", "/anon_hugepage", "/var/tmp/vl.", "/tmp/vl."} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	// QEMU's memory backends in a directory (softmmu/physmem.c, file_ram_open).
	return !strings.HasPrefix(filepath.Base(name), "qemu_back_mem.") && c.Flags&unix.O_APPEND == 0 && c.Flags&unix.O_ACCMODE != unix.O_WRONLY
}

// isPackaged is true for a file that a package of this host brought, such as the firmware,
// which QEMU has open too, and which an upgrade deletes. Such a file is an image only if its
// path or its identity says so.
func (o *openFile) isPackaged() bool { return strings.HasPrefix(o.names()[0], "/usr/") }
