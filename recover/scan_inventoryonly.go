package recover

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
)

// inventoryOnly scans the instances whose domains libvirt has forgotten and that have
// lost files which a guard still holds, by the guard's records of their domains. A
// record alone says nothing: Nova may be about to delete the instance.
func (l *look) inventoryOnly(ctx context.Context, known map[string]bool) ([]Instance, error) {
	var found []Instance
	for _, uuid := range slices.Sorted(maps.Keys(l.records)) {
		if known[uuid] || !slices.ContainsFunc(l.pins.of(uuid), func(h scanCandidate) bool { return h.unlinked() }) {
			continue
		}
		i, err := l.instance(ctx, l.records[uuid].remembered())
		if err != nil {
			return nil, err
		}
		i.forgotten = true
		if i.Verdict == VerdictIntact || i.Verdict == VerdictUnaffected {
			continue // what is deleted of it is nothing that it needs
		}
		i.Reasons = append(i.Reasons, "libvirt has forgotten its domain: what is known of it is the guard's record")
		found = append(found, i)
	}
	return found, nil
}

// addGuarded adds what only the guard has of an instance that has lost files: the
// content of small files that nobody ever holds, and files that no definition
// names (a kernel, what a resize can be reverted to).
func (l *look) addGuarded(i *Instance, tree root) {
	lost := slices.ContainsFunc(i.Files, func(f File) bool { return f.Role != RoleOther && f.Lost() })
	if !lost {
		return
	}
	missing := func(path string) bool {
		_, err := tree.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	small := l.records[i.UUID].Small
	for _, path := range slices.Sorted(maps.Keys(small)) {
		n := slices.IndexFunc(i.Files, func(f File) bool { return f.Path == path })
		if n < 0 && missing(path) {
			i.Files = append(i.Files, File{Path: path, Role: RoleDiskInfo, Format: "raw", State: FileMissing, Holders: []Holder{}})
			n = len(i.Files) - 1
		}
		if n >= 0 && i.Files[n].Role == RoleDiskInfo {
			i.Files[n].kept = small[path]
		}
	}
	for _, p := range l.pins {
		if !p.Meta.Needed || !p.unlinked() || p.Meta.Role != RoleOther || !slices.Contains(p.Owners, i.UUID) {
			continue
		}
		known := slices.ContainsFunc(i.Files, func(f File) bool {
			return f.Path == p.Meta.Path || (inode{f.Device, f.Inode}) == p.inode()
		})
		if known || !isBelow(p.Meta.Path, l.settings.InstancesPath) || !missing(p.Meta.Path) {
			continue
		}
		f := File{Path: p.Meta.Path, Role: RoleOther, State: FileDeleted, Holders: []Holder{}, guarded: true,
			Reason: "no definition names it, and the guard holds it: it goes back with the others"}
		addHolder(&f, scanCandidate{heldFile: p.heldFile})
		i.Files = append(i.Files, f)
	}
}
