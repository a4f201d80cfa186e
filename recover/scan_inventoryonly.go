package recover

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
)

// inventoryOnly scans the instances that libvirt no longer knows but whose lost files
// the guard still holds. It takes their domains from the guard's records. A record
// without held files proves nothing: Nova may be about to delete the instance.
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
			continue // it does not need its deleted files
		}
		i.Reasons = append(i.Reasons, "libvirt no longer knows its domain: the guard's record of the domain is used")
		found = append(found, i)
	}
	return found, nil
}

// addGuarded adds what only the guard has of an instance with lost files: the content
// of small files that no process holds open, and files that no definition names (a
// kernel, or the old disks to which a resize can be reverted).
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
			i.Files = append(i.Files, File{
				Path:    path,
				Role:    RoleDiskInfo,
				Format:  "raw",
				State:   FileMissing,
				Holders: []Holder{},
			})
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
		f := File{
			Path:    p.Meta.Path,
			Role:    RoleOther,
			State:   FileDeleted,
			Reason:  "no definition names it, but the guard holds it: it is put back with the other files",
			Holders: []Holder{},
			guarded: true,
		}
		addHolder(&f, scanCandidate{heldFile: p.heldFile})
		i.Files = append(i.Files, f)
	}
}
