package scan

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// flaw is what speaks against the content of a file. at is empty when nothing does: of a raw
// image's bytes nothing can be told.
type flaw struct {
	at  verdict.Place
	why string
}

// flawOff finds the flaw of a file of a domain that is off: of what the next start would open, or
// of the inode that is held.
func flawOff(root procfs.Root, f recover.File, found finding) (flaw, error) {
	if found.starts() {
		return flawOf(root, f, found.status)
	}
	if found.of != nil && mayBeQcow2(f) {
		return splitOff(found.of.header().Header), nil
	}
	return flaw{}, nil
}

// flawOf finds the flaw of the regular file at the path of a file of a domain that is off: it has
// no bytes (a cdrom may be so), or should be qcow2, and QEMU would refuse its header, or its data
// is somewhere else.
func flawOf(root procfs.Root, f recover.File, at identity.Status) (flaw, error) {
	switch {
	case at.Size == 0 && (f.Writable || f.Role != recover.RoleDisk):
		return flaw{verdict.NoImage, "the file at its path is empty"}, nil
	case !mayBeQcow2(f):
		return flaw{}, nil
	}
	file, err := root.Open(f.Path)
	if errors.Is(err, fs.ErrPermission) {
		return flaw{}, nil // a server that squashes root: its guest can read it
	}
	if err != nil {
		return flaw{}, err
	}
	defer file.Close()
	header, err := qcow2.ParseHeader(qcow2.Aligned{File: file}, at.Size)
	switch {
	case err == nil:
		return splitOff(header), nil
	case f.Format == "":
		return flaw{}, nil
	case errors.Is(err, qcow2.ErrNotQcow2) || errors.Is(err, qcow2.ErrMalformed):
		return flaw{verdict.NoImage, fmt.Sprintf("its definition calls it a qcow2 image, and the file at its path is none: %v", err)}, nil
	}
	return flaw{}, err
}

// mayBeQcow2 is true for a file that is called a qcow2 image, and for a backing file of which
// nobody says what it is.
func mayBeQcow2(f recover.File) bool {
	return f.Format == "qcow2" || f.Format == "" && f.Role == recover.RoleBacking
}

// splitOff is the flaw of an image of a domain that is off and that keeps its data in another file.
// libvirt names that only from 10.10 on, and os-rescue follows no name that an image gives.
func splitOff(h qcow2.Header) flaw {
	if !h.ExternalData {
		return flaw{}
	}
	return flaw{verdict.Split, fmt.Sprintf("its header names %q, which os-rescue does not look at: whether the data is there can't be told",
		h.DataFile)}
}

// flawRunning finds the flaw of a file that stands at its path, and that a running QEMU has open,
// as QEMU sees it: it has no bytes, or should be qcow2 and does not begin so, or its data is somewhere else.
func flawRunning(d recover.Domain, m *matching, tree lookup, f recover.File, found finding) flaw {
	if found.at != verdict.Itself || found.holder != verdict.Own || isInTheMaking(d, f) {
		return flaw{}
	}
	isEmpty := found.status.Size == 0 && found.of.first().Stat.Size == 0
	switch h := m.header(found.of); {
	case isEmpty && (f.Writable || f.Role != recover.RoleDisk):
		return flaw{verdict.Overwritten, "its QEMU has it open, and it is empty"}
	case f.Format != "qcow2" || h.unreadable:
		return flaw{}
	case !h.isQCOW2:
		return flaw{verdict.Overwritten, "its QEMU has it open as a qcow2 image, and it does not begin like one any more"}
	default:
		return splitRunning(m, tree, f, h.Header)
	}
}

// isInTheMaking is true for a file of which the content says nothing: a job works on it, or its
// image does not begin where the file does.
func isInTheMaking(d recover.Domain, f recover.File) bool {
	n := slices.IndexFunc(d.Disks, func(disk recover.Disk) bool { return disk.Target == f.Target })
	return f.Temporary || d.Job != "" || d.BlockJobs[f.Target] != "" || n >= 0 && len(d.Disks[n].Unusual) > 0
}

// splitRunning is the flaw of an image that keeps its data in another file than one that QEMU has
// open. The name of that is looked up and not opened.
func splitRunning(m *matching, tree lookup, f recover.File, h qcow2.Header) flaw {
	if !h.ExternalData {
		return flaw{}
	}
	name, err := readBackingName(h.DataFile)
	if err == nil && name.path != "" {
		// QEMU opens a relative name where it runs, which libvirt makes "/" (bdrv_open_child in its block.c).
		for _, path := range []string{filepath.Join("/", name.path), filepath.Join(filepath.Dir(f.Path), name.path)} {
			st, err := tree.Stat(path)
			isOpen := func(o *openFile) bool { return o.inode == st.Inode() }
			if err == nil && (st.Mode&unix.S_IFMT == unix.S_IFBLK || slices.ContainsFunc(m.open, isOpen)) {
				return flaw{}
			}
		}
	}
	why := fmt.Sprintf("its header names %q, and that is no file that its QEMU has open", h.DataFile)
	var others []string
	cure := ""
	for _, o := range m.unclaimed() {
		if len(others) == maxNamed {
			break
		}
		c := o.first()
		others = append(others, fmt.Sprintf("%s (%s/%d/fd/%d)", c.Link, procfs.Dir, c.PID, c.FD))
		if !c.gone() {
			cure = ": if it was renamed, move it back (mv -n) while the guest runs"
		}
	}
	if len(others) > 0 {
		why += "; it may be " + strings.Join(others, " or ") + cure
	}
	return flaw{verdict.Split, why}
}
