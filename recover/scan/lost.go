package scan

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// explainLost says what is still possible for each lost instance. It looks at all the
// others too: another instance's QEMU may still hold a shared backing file.
func explainLost(instances []recover.Instance) {
	holder := map[string]string{} // domains, by the backing file that they hold
	for _, i := range instances {
		for _, f := range i.Files {
			if f.Role == recover.RoleBacking && len(f.Holders) > 0 {
				holder[f.Path] = i.Domain
			}
		}
	}
	for n := range instances {
		i := &instances[n]
		if i.Verdict != recover.VerdictLost {
			continue
		}
		for _, f := range i.Files {
			if f.State != recover.FileMissing || f.Remedy != recover.RemedyRestore {
				continue
			}
			i.Possible = append(i.Possible, remedy(*i, f, holder[f.Path]))
		}
	}
}

// explainUnmounted says first of each lost instance that the file system of the instances may not be
// mounted, if it looks so: not one instance has a file below that path, or a directory.
func explainUnmounted(root procfs.Root, instancesPath string, instances []recover.Instance) {
	isThere := func(f recover.File) bool {
		return recover.IsBelow(f.Path, instancesPath) && (f.State != recover.FileMissing || len(f.Holders) > 0)
	}
	for _, i := range instances {
		_, err := root.Lstat(filepath.Join(instancesPath, i.UUID))
		if !errors.Is(err, fs.ErrNotExist) || slices.ContainsFunc(i.Files, isThere) {
			return
		}
	}
	for n := range instances {
		i := &instances[n]
		isGone := func(f recover.File) bool { return recover.IsBelow(f.Path, instancesPath) }
		if i.Verdict == recover.VerdictLost && slices.ContainsFunc(i.Files, isGone) {
			i.Possible = slices.Insert(i.Possible, 0, fmt.Sprintf("nothing of any instance is in %[1]s: look before anything else whether its "+
				"file system is mounted (findmnt -T %[1]s, /etc/fstab), mount it (mount -a), and scan again", quote(instancesPath)))
		}
	}
}

// remedy says what can still be done about a missing file; other is the domain that
// holds it, if any does.
func remedy(i recover.Instance, f recover.File, other string) string {
	dir := filepath.Dir(f.Path)
	// Its directory may have been moved while it was off: then no process tells where to.
	moved := fmt.Sprintf("%s: look first whether it was only moved away (find %s -xdev -path '*/%s/%s*'), and move it back",
		f.Path, quote(filepath.Dir(filepath.Dir(dir))), filepath.Base(dir), filepath.Base(f.Path))
	switch {
	case f.Role == recover.RoleBacking && other != "":
		return fmt.Sprintf("%s is held by %s: rescuing that instance brings it back", f.Path, other)
	case f.Role == recover.RoleDisk && !f.Writable:
		return fmt.Sprintf("%s: bring it back, or take it out of the drive: virsh change-media %s %s --eject --force --config, "+
			"and without --config if the guest runs", f.Path, i.Domain, f.Target)
	case f.Role == recover.RoleBacking && filepath.Base(dir) == "_base":
		return fmt.Sprintf("%s is a cached image: Nova can fetch it again from Glance if the image still exists", f.Path)
	case f.Role == recover.RoleConfigDrive:
		return fmt.Sprintf("a hard reboot can't make %s again: restore it from a backup, or rebuild the instance", f.Path)
	default:
		return moved + "; else restore it from a backup or a snapshot (os-rescue restore --from DIR); " +
			"without one only a rebuild or an undelete on the file system is left"
	}
}
