package scan

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// inventoryOnly scans the instances that libvirt no longer knows but whose lost files
// the guard still holds. It takes their domains from the guard's records. A record
// without held files proves nothing: Nova may be about to delete the instance.
func (l *look) inventoryOnly(ctx context.Context, known map[string]bool) ([]recover.Instance, error) {
	var found []recover.Instance
	for _, uuid := range slices.Sorted(maps.Keys(l.records)) {
		held := slices.ContainsFunc(l.pins.of(uuid), func(h candidate) bool { return h.Unlinked() }) || mayHaveMore(l, uuid)
		if known[uuid] || !held {
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
// kernel, or the old disks to which a resize can be reverted). Where a disk of an instance
// that is off is nowhere, each of those may be that disk.
func (l *look) addGuarded(i *recover.Instance, tree procfs.Root) {
	mayBeDisks := i.Process.PID == 0 && slices.ContainsFunc(i.Files, func(f recover.File) bool {
		return f.State == recover.FileMissing && verdict.KindOf(f.Role) == verdict.Essential
	})
	if mayBeDisks {
		l.addUnplaced(i)
	}
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
	if mayBeDisks {
		return
	}
	for _, p := range l.unplaced(*i) {
		known := slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Path == p.Meta.Path })
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
		i.Superseded = slices.DeleteFunc(i.Superseded, func(s recover.File) bool { return s.Identity() == f.Identity() })
	}
}

// unplaced returns what is held of an instance that has lost files, and is none that its
// definition names or a scan has found.
func (l *look) unplaced(i recover.Instance) []pin.Held {
	return slices.DeleteFunc(slices.Clone(l.pins), func(p pin.Held) bool {
		return !p.Meta.Needed || !p.Unlinked() || p.Meta.Role != recover.RoleOther || !slices.Contains(p.Owners, i.UUID) ||
			slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Identity() == p.Inode() })
	})
}

// addUnplaced adds what may be a missing disk of an instance that is off: what its QEMU had
// open and nobody could match is held on after its end.
func (l *look) addUnplaced(i *recover.Instance) {
	for _, p := range l.unplaced(*i) {
		f := recover.File{
			Path:      p.Meta.Path,
			Role:      recover.RoleOther,
			State:     recover.FileDeleted,
			Reason:    "no definition names it, but its QEMU had it open",
			Holders:   []recover.Holder{},
			GuardHeld: true,
		}
		addHolder(&f, candidate{HeldFile: p.HeldFile})
		i.Nameless = append(i.Nameless, f)
	}
}
