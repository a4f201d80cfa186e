package recover

import "slices"

// pinned is what the keeper and a guard hold.
type pinned []heldPin

// of returns the pins that belong, or may belong, to an instance.
func (p pinned) of(uuid string) []scanCandidate {
	var list []scanCandidate
	for _, h := range p {
		// A cached image of which a guard has not learned yet whose it is may be anybody's.
		if slices.Contains(h.Owners, uuid) || len(h.Owners) == 0 {
			list = append(list, scanCandidate{heldFile: h.heldFile, pinPath: h.Meta.Path, needed: h.Meta.Needed})
		}
	}
	return list
}

// files returns the files that are pinned for an instance and not among those that
// its definition names, and then those: the definition of a domain that is off says
// nothing of backing files, and the others need them.
func (p pinned) files(uuid string, named []File) []File {
	var files []File
	for _, h := range p {
		if h.Meta.Role == RoleOther || !slices.Contains(h.Owners, uuid) {
			continue
		}
		// A guard holds what is in order too, and of another time.
		if h.Meta.Run == guardRun && h.Meta.Role != RoleBacking && (!h.Meta.Needed || !h.unlinked()) {
			continue
		}
		same := func(f File) bool { return f.Path == h.Meta.Path }
		if slices.ContainsFunc(named, same) || slices.ContainsFunc(files, same) {
			continue
		}
		files = append(files, File{Path: h.Meta.Path, Role: h.Meta.Role, Format: h.Meta.Format, Target: h.Meta.Target,
			Backing: h.Meta.Backing, Writable: h.Meta.Role == RoleDisk || h.Meta.Role == RoleNVRAM, Holders: []Holder{}})
	}
	return slices.Concat(files, named)
}
