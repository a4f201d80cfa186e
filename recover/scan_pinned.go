package recover

import (
	"slices"
)

// pinsOf returns the pins that belong, or may belong, to an instance.
func (s *scanner) pinsOf(uuid string) []heldFile {
	var held []heldFile
	for _, p := range s.pins {
		// A cached image of which a guard has not learned yet whose it is may be anybody's.
		if slices.Contains(p.Owners, uuid) || len(p.Owners) == 0 {
			held = append(held, p.heldFile)
		}
	}
	return held
}

// pinnedFiles returns the files that are pinned for an instance and not among
// those that its definition names: the definition of a domain that is off says
// nothing of backing files. They come first, because the others need them.
func (s *scanner) pinnedFiles(uuid string, named []File) []File {
	var files []File
	for _, p := range s.pins {
		if p.Meta.Role == RoleOther || !slices.Contains(p.Owners, uuid) {
			continue
		}
		// A guard holds what is in order too, and of another time.
		if p.Meta.Run == guardRun && p.Meta.Role != RoleBacking && (!p.Needed || !p.unlinked()) {
			continue
		}
		same := func(f File) bool { return f.Path == p.Meta.Path }
		if slices.ContainsFunc(named, same) || slices.ContainsFunc(files, same) {
			continue
		}
		files = append(files, File{Path: p.Meta.Path, Role: p.Meta.Role, Format: p.Meta.Format, Target: p.Meta.Target,
			Backing: p.Meta.Backing, Writable: p.Meta.Role == RoleDisk || p.Meta.Role == RoleNVRAM, Holders: []Holder{}})
	}
	return slices.Concat(files, named)
}
