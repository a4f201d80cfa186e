package scan

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// Names looks paths up without opening what they lead to, as procfs.Root does.
type Names interface {
	Canonical(path string) (string, error)
	Stat(path string) (identity.Status, error)
}

// CheckHeader compares h, the header of the image at path, with libvirt's definition of
// the domain. Its backing file must be the one that libvirt names: the same file, however
// the header calls it, and in the same format. in is the root in which both names are
// looked up; a file that is deleted is told by the directory that it was in. ErrRefused
// when they differ, when the name can't be understood, or when the header names an external
// data file. It never opens a file that the header names: the guest may have written that
// name.
func CheckHeader(d recover.Domain, path string, h qcow2.Header, in Names) error {
	if h.ExternalData {
		return fmt.Errorf("%w: the header of %s names an external data file (%q), and os-rescue follows no path that an image names",
			recover.ErrRefused, path, h.DataFile)
	}
	next, ok := nextImage(d, path)
	if !ok {
		return nil
	}
	differs := func(what string) error {
		return fmt.Errorf("%w: the header of %s names %q as its backing file, but libvirt says %q: %s",
			recover.ErrRefused, path, h.BackingFile, next.Path, what)
	}
	if h.BackingFile == "" || next.Source == recover.SourceNone {
		if (h.BackingFile == "") != (next.Source == recover.SourceNone) {
			return differs("the next start would read another file")
		}
		return nil
	}
	named, err := readBackingName(h.BackingFile)
	isFile := next.Source == recover.SourceFile || next.Source == recover.SourceBlock
	switch {
	case next.Source == recover.SourceNetwork && err == nil && named.path != "":
		return differs("the next start would read a file of this host")
	case !isFile:
		return nil // what a protocol names is not compared
	case err != nil:
		return differs(err.Error())
	case named.path == "":
		return differs("the next start would read no file")
	}
	if !strings.HasPrefix(named.path, "/") {
		named.path = filepath.Dir(path) + "/" + named.path // not cleaned: a directory of it may be a link
	}
	same, err := sameFile(in, named.path, next.Path)
	switch {
	case err != nil:
		return differs(fmt.Sprintf("%v (%v)", errNotTold, err))
	case !same:
		return differs("the next start would read another file")
	}
	for _, format := range []string{named.format, h.BackingFormat} {
		if format != "" && next.Format != "" && format != next.Format {
			return fmt.Errorf("%w: the header of %s calls its backing file a %s image, but libvirt says that %s is %s: "+
				"the next start would read it as something else", recover.ErrRefused, path, format, next.Path, next.Format)
		}
	}
	return nil
}

// sameFile is true when two paths lead to one file, or did before it was deleted.
func sameFile(in Names, a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	first, err := in.Canonical(a)
	if err != nil {
		return false, err
	}
	second, err := in.Canonical(b)
	if err != nil || first == second {
		return err == nil, err
	}
	// Two names of an inode that exists: a hard link, or a bind mount.
	x, err := in.Stat(first)
	if err != nil {
		return false, nil //nolint:nilerr // one that is not there is not the other
	}
	y, err := in.Stat(second)
	return err == nil && x.Inode() == y.Inode(), nil
}

// nextImage returns the backing image of the image at path, or one with SourceNone
// at the end of the chain. ok is false when libvirt does not name it.
func nextImage(d recover.Domain, path string) (next recover.Image, ok bool) {
	for _, disk := range d.Disks {
		for n, m := range disk.Chain {
			if m.Path != path {
				continue
			}
			if n+1 < len(disk.Chain) {
				return disk.Chain[n+1], true
			}
			return recover.Image{Source: recover.SourceNone}, disk.ChainKnown
		}
	}
	return recover.Image{}, false
}
