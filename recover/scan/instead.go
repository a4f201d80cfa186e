package scan

import (
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// instead returns the files that may be a disk of an instance that is off, whose definition
// names a path at which it is not: somebody has changed the definition, and not the file.
// They are the files that Nova has made in the instance's directory, if the path is none of
// Nova's, and those that the guard holds for the same target; no definition names them.
func instead(l *look, i recover.Instance, f recover.File) []string {
	if f.Role != recover.RoleDisk {
		return nil
	}
	var found []string
	add := func(path string) {
		named := slices.ContainsFunc(i.Files, func(other recover.File) bool { return other.Path == path })
		st, err := l.home.Stat(path)
		if !named && err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 && !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	for _, h := range l.pins {
		c := candidate{HeldFile: h.HeldFile}
		if slices.Contains(h.Owners, i.UUID) && h.Meta.Role == recover.RoleDisk && h.Meta.Target == f.Target && !c.gone() &&
			placeOf(h, i.UUID) != f.Path {
			if st, err := l.home.Stat(h.Link); err == nil && st.Inode() == h.Inode() {
				add(h.Link) // it was renamed, perhaps out of the tree
			} else {
				add(h.Meta.Path)
			}
		}
	}
	dir := filepath.Join(l.settings.InstancesPath, i.UUID)
	if i.Definition.Nova == nil || filepath.Dir(f.Path) == dir && isNovaDisk(filepath.Base(f.Path)) {
		return found
	}
	names, err := l.root.Names(dir, mostNames)
	if err != nil { // then nothing can be told of it
		return found
	}
	slices.Sort(names)
	for _, name := range names {
		if isNovaDisk(name) && name != "disk.config" {
			add(filepath.Join(dir, name))
		}
	}
	return found
}
