package scan

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// inventoryOnly scans the instances that libvirt no longer knows but whose lost files
// the guard still holds. It takes their domains from the guard's records. A record
// without held files proves nothing: Nova may be about to delete the instance.
func (l *look) inventoryOnly(ctx context.Context, known map[string]bool) ([]recover.Instance, error) {
	var found []recover.Instance
	for _, uuid := range slices.Sorted(maps.Keys(l.records)) {
		if known[uuid] || !slices.ContainsFunc(l.pins.of(uuid), func(h candidate) bool { return h.Unlinked() }) {
			continue
		}
		i, err := l.instance(ctx, l.records[uuid].AsOff())
		if err != nil {
			return nil, err
		}
		i.GuardOnly = true
		if i.IsWhole() {
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
func (l *look) addGuarded(i *recover.Instance, tree procfs.Root) {
	lost := slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Role != recover.RoleOther && f.Lost() })
	if !lost {
		return
	}
	missing := func(path string) bool {
		_, err := tree.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	small := l.records[i.UUID].Small
	for _, path := range slices.Sorted(maps.Keys(small)) {
		n := slices.IndexFunc(i.Files, func(f recover.File) bool { return f.Path == path })
		if n < 0 && missing(path) {
			i.Files = append(i.Files, recover.File{
				Path:    path,
				Role:    recover.RoleDiskInfo,
				Format:  "raw",
				State:   recover.FileMissing,
				Holders: []recover.Holder{},
			})
			n = len(i.Files) - 1
		}
		if n >= 0 && i.Files[n].Role == recover.RoleDiskInfo {
			i.Files[n].KeptContent = small[path]
		}
	}
	for _, p := range l.pins {
		if !p.Meta.Needed || !p.Unlinked() || p.Meta.Role != recover.RoleOther || !slices.Contains(p.Owners, i.UUID) {
			continue
		}
		known := slices.ContainsFunc(i.Files, func(f recover.File) bool {
			return f.Path == p.Meta.Path || f.Identity() == p.Inode()
		})
		if known || !recover.IsBelow(p.Meta.Path, l.settings.InstancesPath) || !missing(p.Meta.Path) {
			continue
		}
		f := recover.File{
			Path:      p.Meta.Path,
			Role:      recover.RoleOther,
			State:     recover.FileDeleted,
			Reason:    "no definition names it, but the guard holds it: it is put back with the other files",
			Holders:   []recover.Holder{},
			GuardHeld: true,
		}
		addHolder(&f, candidate{HeldFile: p.HeldFile})
		i.Files = append(i.Files, f)
	}
}
