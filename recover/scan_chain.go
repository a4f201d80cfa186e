package recover

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// checkHeader compares what an image says of itself with what libvirt says of
// it. What it names is never opened: the guest's side may have written it.
func checkHeader(d Domain, path string, h qcow2.Header) error {
	if h.ExternalData {
		return fmt.Errorf("%w: the header of %s names an external data file (%q): os-rescue follows no path out of an image", ErrRefused, path, h.DataFile)
	}
	next, ok := nextImage(d, path)
	if !ok || next.Source != SourceFile && next.Source != SourceBlock && next.Source != SourceNone {
		return nil
	}
	named := h.BackingFile
	if named != "" && !filepath.IsAbs(named) && !strings.Contains(named, ":") {
		named = filepath.Join(filepath.Dir(path), named)
	}
	if filepath.Clean(named) != filepath.Clean(next.Path) {
		return fmt.Errorf("%w: the header of %s names %q as its backing file, but libvirt says %q: the next start would read another file", ErrRefused, path, h.BackingFile, next.Path)
	}
	return nil
}

// nextImage returns the member below the image at path, with SourceNone at the
// end of a chain; not ok when libvirt does not say.
func nextImage(d Domain, path string) (Image, bool) {
	for _, disk := range d.Disks {
		for n, m := range disk.Chain {
			if m.Path != path {
				continue
			}
			if n+1 < len(disk.Chain) {
				return disk.Chain[n+1], true
			}
			return Image{Source: SourceNone}, disk.ChainKnown
		}
	}
	return Image{}, false
}
