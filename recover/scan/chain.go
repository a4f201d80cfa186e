package scan

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// CheckHeader compares h, the header of the image at path, with libvirt's definition of
// the domain. ErrRefused when they differ, or when the header names an external data
// file. It never opens a file that the header names: the guest may have written that
// name.
func CheckHeader(d recover.Domain, path string, h qcow2.Header) error {
	if h.ExternalData {
		return fmt.Errorf("%w: the header of %s names an external data file (%q), and os-rescue follows no path that an image names",
			recover.ErrRefused, path, h.DataFile)
	}
	next, ok := nextImage(d, path)
	if !ok || next.Source != recover.SourceFile && next.Source != recover.SourceBlock && next.Source != recover.SourceNone {
		return nil
	}
	named := h.BackingFile
	if named != "" && !filepath.IsAbs(named) && !strings.Contains(named, ":") {
		named = filepath.Join(filepath.Dir(path), named)
	}
	if filepath.Clean(named) != filepath.Clean(next.Path) {
		return fmt.Errorf("%w: the header of %s names %q as its backing file, but libvirt says %q: the next start would read another file",
			recover.ErrRefused, path, h.BackingFile, next.Path)
	}
	return nil
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
